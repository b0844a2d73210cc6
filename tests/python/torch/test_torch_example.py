"""The transformers example as a user runs it: CPU in fp32, and in bf16 on a GPU where there is one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "deepseek_transformers.py"


def run(tmp_path: pathlib.Path, *arguments: str) -> dict:
    pytest.importorskip("transformers")
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--json", str(figures), *arguments], capture_output=True, text=True, timeout=300
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("passed")
    return json.loads(figures.read_text())


def test_greedy_tokens_on_the_cpu(tmp_path):
    figures = run(tmp_path, "--device", "cpu", "--dtype", "float32", "--steps", "12")
    assert figures["ok"] and figures["paged"]["kv_bytes_per_token"] < figures["eager"]["kv_bytes_per_token"]


def test_logits_in_bf16(tmp_path, device):
    figures = run(tmp_path, "--device", device, "--dtype", "bfloat16", "--steps", "12")
    logits = figures["logits"]
    assert logits["paged_max_error"] <= 1.5 * logits["eager_max_error"]
