"""The package as it was installed: what it brings, what it loads, and that importing it compiles nothing."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

import flash_mla

FOLDER = pathlib.Path(flash_mla.__file__).parent
BUNDLED = ("libflash_mla_python", "libdnnl", "libgomp", "libhwy", "libOpenCL")


def test_version_is_the_distributions():
    assert flash_mla.__version__ == importlib.metadata.version("flash-mla")


def test_everything_named_exists_and_is_documented():
    for name in flash_mla.__all__:
        value = getattr(flash_mla, name)
        assert value.__doc__, f"{name} has no documentation"


def test_it_is_typed():
    assert (FOLDER / "py.typed").exists()


def test_library_and_dependencies_come_from_the_package():
    maps = pathlib.Path("/proc/self/maps").read_text()
    for library in BUNDLED:
        loaded = set(re.findall(rf"(\S*/{library}[^/\s]*\.so\S*)", maps))
        assert any(path.startswith(str(FOLDER)) for path in loaded) or library == "libgomp", (library, loaded)
        assert loaded, f"{library} is not loaded"


def test_backends_say_what_they_are():
    described = {backend["name"]: backend for backend in flash_mla.backends()}
    assert described["cpu"]["available"] and described["cpu"]["device_count"] == 1
    assert all(backend["reason"] for backend in described.values())
    assert flash_mla.device_info("cpu")["workers"] >= 1


def test_a_cuda_device_that_cannot_be_used_says_why():
    described = {backend["name"]: backend for backend in flash_mla.backends()}
    if described.get("cuda", {}).get("available"):
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="(?i)cuda"):
        flash_mla.plan(max_batch=1, num_heads_q=16, device="cuda")


IMPORT_THAT_COUNTS_PROCESSES = """
import subprocess
started = []
start = subprocess.Popen.__init__

def count(self, command, *rest, **named):
    started.append(str(command))
    start(self, command, *rest, **named)

subprocess.Popen.__init__ = count
import flash_mla
print([command for command in started if "ldconfig" not in command])  # with it ctypes looks libraries up
"""


def test_importing_runs_no_compiler():
    """No process is started by an import, so none compiles."""
    command = [sys.executable, "-c", IMPORT_THAT_COUNTS_PROCESSES]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout.strip() == "[]", result.stdout + result.stderr
