"""The lines of docs/ray.md run."""

from __future__ import annotations

import os
import pathlib
import sys

from conftest import ROOT, draw, ended, program

# The blocks of a page, one after the other. Those that need a package which is not here are left out.
RUN = """
import importlib.util, re, sys
page = open(sys.argv[1], encoding="utf-8").read()
for needs, block in re.findall(r"^```python (\\w+)\\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
    if importlib.util.find_spec(needs) is None:
        print("left out, without", needs, flush=True)
    else:
        exec(compile(block, "docs/ray.md", "exec"), globals())
        print("ran with", needs, flush=True)
"""


def test_the_pages_lines_run(tmp_path: pathlib.Path) -> None:
    draw(tmp_path, 12)
    (tmp_path / "000").rename(tmp_path / "photos")
    for picture in (tmp_path / "photos").glob("*.jpg"):
        picture.rename(picture.with_suffix(".png"))
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    said = ended(program(RUN, ROOT / "docs" / "ray.md", cwd=tmp_path, env={**os.environ, "PYSPARK_PYTHON": sys.executable}))
    assert said.count("ran with ray") == 5
    assert "{'pictures': 13, 'failed': 1, 'parts': 13, 'made': 13}" in said
    assert "broken.png: not a picture, but text" in said
    assert "deletion" in said
    assert said.count("with pyspark") + said.count("without pyspark") == 1
