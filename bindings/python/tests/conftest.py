"""What the tests share: the repository's files, a net, and the program."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import verilume

ROOT = pathlib.Path(__file__).parents[3]
CAT = ROOT / "examples" / "chelsea.png"


@pytest.fixture(scope="session")
def model() -> verilume.Model:
    """The embedded net, on one thread."""
    return verilume.load(threads=1, device="cpu")


@pytest.fixture(scope="session")
def small() -> verilume.Model:
    """A small net, on one thread."""
    return verilume.load(ROOT / "tests" / "zoo" / "hf-resnet.17.onnx", threads=1, device="cpu")


@pytest.fixture
def inputs(small: verilume.Model) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Five normalised inputs of the small net."""
    return np.random.default_rng(7).standard_normal((5, *small.input_shape), dtype=np.float32)


@pytest.fixture
def command(tmp_path: pathlib.Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program of the package in an empty folder."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "verilume", *map(str, words)]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)

    return run


@pytest.fixture
def explained(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: pathlib.Path) -> Callable[..., Any]:
    """The record and the map that the command line makes of a picture."""

    def run(picture: object, method: str, *options: object) -> tuple[dict[str, Any], Any]:
        words = ["explain", picture, "-m", method, "--format", "npy", "--json", "--threads", 1, "--device", "cpu"]
        done = command(*words, *options)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        return record, np.load(tmp_path / record["files"][0])

    return run
