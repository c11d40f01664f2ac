"""Types: a program that uses all of the package is clean, and runs. The form of the tutorial."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import CAT

import verilume

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(verilume.__file__).parent


def _run(*words: object) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_runs() -> None:
    _run(sys.executable, HERE / "typed.py", CAT)


def test_mypy() -> None:
    pytest.importorskip("mypy")
    _run(sys.executable, "-m", "mypy", "--strict", HERE / "typed.py")
    # By its name: a folder among the installed packages would be checked with all its neighbours. Packages that it only uses
    # where they are installed need not be here.
    _run(sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "-p", "verilume")


def test_pyright() -> None:
    pytest.importorskip("pyright")
    _run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, HERE / "typed.py", PACKAGE)


def test_the_tutorial_is_a_notebook_without_outputs() -> None:
    path = HERE.parent / "tutorial.ipynb"
    made = json.loads(path.read_text(encoding="utf-8"))
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in made["cells"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert all(not cell.get("outputs") for cell in made["cells"])
    assert path.stat().st_size < 60_000
