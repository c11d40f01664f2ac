"""What the tests of Ray and Spark share: pictures, a Ray, and what one process makes of the pictures."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import verilume
import verilume.ray

ROOT = pathlib.Path(__file__).parents[4]
CAT = ROOT / "examples" / "chelsea.png"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full`: all tests."""
    parser.addoption("--full", action="store_true", help="2,000 pictures, speeds and Spark too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what `--full` alone asks for."""
    for item in items if not config.getoption("--full") else []:
        if item.get_closest_marker("full") is not None:
            item.add_marker(pytest.mark.skip(reason="only with --full"))


def draw(folder: pathlib.Path, n: int) -> None:
    """Writes `n` different pictures: parts of one, in folders of 25, in JPEG and PNG."""
    image = pytest.importorskip("PIL.Image")
    with image.open(CAT) as cat:
        levels = cat.convert("RGB")
    for at in range(n):
        left, top = at * 7 % 190, at * 11 % 60
        part = levels.crop((left, top, left + 230 + at % 23, top + 228 + at % 11))
        part = part.rotate(90 * (at // 600), expand=True)
        below = folder / f"{at // 25:03}"
        below.mkdir(parents=True, exist_ok=True)
        part.save(below / f"{at:05}.{'png' if at % 5 == 0 else 'jpg'}")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of 40 pictures and one file that is none."""
    folder: pathlib.Path = tmp_path_factory.mktemp("pictures")
    draw(folder, 40)
    (folder / "000" / "bad.png").write_text("no picture")
    return folder


@pytest.fixture(scope="session")
def files(pictures: pathlib.Path) -> list[str]:
    """The pictures' paths below their folder, in order."""
    return sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.*"))


@pytest.fixture(scope="session")
def alone(pictures: pathlib.Path, files: list[str]) -> Callable[..., dict[str, verilume.Explanation]]:
    """What one process makes of the pictures, by their paths below the folder."""
    model = verilume.load(threads=1, device="cpu")

    def explain(method: str, **how: Any) -> dict[str, verilume.Explanation]:
        return dict(zip(files, model.explain([str(pictures / name) for name in files], method, progress=False, **how)))

    return explain


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Ray as the package starts it, for two actors."""
    import ray

    verilume.ray.start(2)
    yield ray
    ray.shutdown()


def same(rows: Any, want: dict[str, verilume.Explanation]) -> None:
    """Every picture has one row, with the bits and the errors of one process."""
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    assert by_id.keys() == want.keys()
    for id, e in want.items():
        row = by_id[id]
        if e.error is not None:
            assert id in row["error"]
            assert [row[key] for key in ("prediction", "target", "label", "score", "map", "shape")] == [None] * 6
            continue
        assert row["error"] is None
        assert np.asarray(row["map"], np.float32).tobytes() == e.map.tobytes(), id
        assert list(row["shape"]) == list(e.map.shape)
        assert (row["target"], row["label"], row["score"]) == (e.target, e.label, e.score)
        assert row["prediction"] == e.prediction[0]["index"]


def program(text: str, *words: object, **how: Any) -> subprocess.Popen[str]:
    """A Python process that runs `text`."""
    line = [sys.executable, "-c", text, *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)


def ended(child: subprocess.Popen[str]) -> str:
    """What a process that must succeed has printed."""
    said, _ = child.communicate(timeout=300)
    assert child.returncode == 0, said
    return said


def rows_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of the Parquet files of a folder, in the order of their names; maps as arrays."""
    rows: list[dict[str, Any]] = []
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in sorted(folder.glob("*.parquet")):
        table = parquet.read_table(path)
        maps = [one.values.to_numpy() if one.is_valid else None for one in table.column("map")]
        rows += [{**row, "map": map} for row, map in zip(table.drop_columns("map").to_pylist(), maps)]
    return rows


def workers() -> list[int]:
    """Processes of actors of this package."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_Worker"):
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


DRIVER = """
import sys, verilume.ray
print("ready", flush=True)
_, src, dst, method, rows, actors = sys.argv
try:
    made = verilume.ray.explain_folder(src, dst, method=method, rows=int(rows), actors=int(actors))
    print(made["made"], "of", made["parts"], flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def once_begun(child: subprocess.Popen[str], folder: pathlib.Path, parts: int) -> None:
    """Waits until a driver has made so many parts."""
    late = time.monotonic() + 300
    while len(list(folder.glob("part-*.parquet"))) < parts:
        assert child.poll() is None and time.monotonic() < late, child.communicate()[0]
        time.sleep(0.01)
