"""Runs the blocks of Python of docs/python.md one after the other, in one namespace. The arguments: the repository's folder."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import sys


def main(root: pathlib.Path) -> None:
    """Runs them in the present folder, which must be empty."""
    text = (root / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python(.*?)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shutil.copy(root / "examples" / "chelsea.png", "cat.png")
    names: dict[str, object] = {}
    ran = 0
    for about, block in blocks:
        needs = about.split()
        missing = [package for package in needs if importlib.util.find_spec(package) is None]
        if missing:
            print(f"left out, without {', '.join(missing)}: {block.splitlines()[0]}")
            continue
        exec(compile(block, "docs/python.md", "exec"), names)
        ran += 1
    if ran < 4:
        raise SystemExit(f"{ran} blocks of docs/python.md ran")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
