"""Runs what the guides show, in the present folder, which must be empty: `page.py ROOT`, the repository's folder.

Blocks of Python of README.md, docs/python.md and the package's own README.md run one after the other, each page in a namespace
of its own, and so do the cells of tutorial.ipynb, whose last values are shown as a notebook does. Commands `verilume …` of
README.md run too. What needs packages or files that are not here is left out, with a line that says so.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

CAT = "chelsea.png"


class Page:
    """A page and its names."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.names: dict[str, Any] = {}
        self.ran = 0

    def has(self, block: str, missing: list[str]) -> bool:
        """Says what is missing."""
        if missing:
            print(f"{self.path.name}: left out, without {', '.join(missing)}: {block.splitlines()[0]}")
        self.ran += not missing
        return not missing

    def python(self, block: str, needs: list[str]) -> None:
        """Runs a block; the value of its last line has a form for notebooks if it has one at all."""
        if not self.has(block, [package for package in needs if importlib.util.find_spec(package) is None]):
            return
        # With drawn weights, where none may be downloaded.
        tree = ast.parse(block.replace('weights="DEFAULT"', "weights=None"), str(self.path))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(self.path), "exec"), self.names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(self.path), "eval"), self.names)
            shown = getattr(value, "_repr_html_", lambda: repr(value))()
            if not isinstance(shown, str) or not shown:
                raise SystemExit(f"{self.path}: nothing is shown for: {block}")

    def command(self, line: str, fails: bool) -> None:
        """Runs a command of the program."""
        words = shlex.split(line, comments=True)[1:]
        files = [word for word in words if re.search(r"\.(safetensors|onnx|npy)$", word)]
        if not self.has(line, [file for file in files if not os.path.exists(file)]):
            return
        done = subprocess.run([sys.executable, "-m", "verilume", *words], capture_output=True, text=True, check=False)
        if (done.returncode != 0) != fails:
            raise SystemExit(f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def blocks(path: pathlib.Path) -> Iterator[tuple[str, list[str], str]]:
    """The language, the other words, and the text of each block."""
    for about, block in re.findall(r"^```(\w+.*?)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        language, *words = about.split()
        yield language, words, block


def main(root: pathlib.Path) -> None:
    """Runs all pages."""
    # Where they lie in the repository, and where a reader puts them.
    for place in ("examples", "photos", "bindings/python"):
        os.makedirs(place)
    for copy in (f"examples/{CAT}", f"photos/{CAT}", "cat.png"):
        shutil.copy(root / "examples" / CAT, copy)
    package = root / "bindings" / "python"
    pages = [Page(root / "README.md"), Page(root / "docs" / "python.md"), Page(package / "README.md")]
    for page in pages:
        for language, words, block in blocks(page.path):
            if language == "python":
                page.python(block, words)
            elif language in ("console", "sh"):
                lines = re.findall(r"^(?:\$ )?(verilume .*)", block, re.MULTILINE)
                for line in lines:
                    page.command(line, "failed:" in block)
    tutorial = Page(package / "tutorial.ipynb")
    os.chdir("bindings/python")
    for cell in json.loads(tutorial.path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            needs = [tag[len("needs-") :] for tag in cell["metadata"].get("tags", [])]
            tutorial.python("".join(cell["source"]), needs)
    for page, least in zip([*pages, tutorial], (6, 4, 1, 9)):
        print(f"{page.path.parent.name}/{page.path.name}: {page.ran} ran")
        if page.ran < least:
            raise SystemExit(f"{page.path}: only {page.ran} ran")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
