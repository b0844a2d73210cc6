"""Fixtures of the PyTorch tests: each test that takes `device` runs on the CPU, and on the GPU where there is one.

FLASH_MLA_TEST_DEVICES=cuda (or cpu) runs it there alone; a device that was asked for by name and is missing fails.
"""

from __future__ import annotations

import os
import sys

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))

ASKED = os.environ.get("FLASH_MLA_TEST_DEVICES", "").split(",") if "FLASH_MLA_TEST_DEVICES" in os.environ else []
DEVICES = ASKED or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", DEVICES)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and "cuda" not in DEVICES:
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
