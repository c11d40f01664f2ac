"""Datasets of Ray, clusters that are too small, and evaluation in shares."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import ended, program, same

import verilume
from verilume.ray import Explainer, evaluate, explain

pyarrow = pytest.importorskip("pyarrow")
Alone = Callable[..., dict[str, verilume.Explanation]]


def below(rows: Any, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Rows whose ids are paths below a folder, as the error sentences have them."""
    return [{**row, "id": row["id"].removeprefix(f"{folder}/")} for row in rows]


def test_paths_in_one_block(pictures: pathlib.Path, files: list[str], alone: Alone, ray: Any) -> None:
    table = pyarrow.table({"path": [str(pictures / name) for name in files], "more": range(len(files))})
    made = explain(ray.data.from_arrow(table), method="smoothgrad:n=2", seed=4, batch_size=8, actors=2).materialize()
    same(below(made.take_all(), pictures), alone("smoothgrad:n=2", seed=4))
    # Small files are read as one block, which would be one actor's work.
    assert made.num_blocks() >= 5


def test_encoded_pictures_and_arrays(pictures: pathlib.Path, alone: Alone, ray: Any) -> None:
    read = ray.data.read_binary_files(str(pictures), include_paths=True)
    want = alone("gradient")
    same(below(explain(read, method="gradient", column="bytes").take_all(), pictures), want)
    levels = [np.zeros((9, 12, 3), np.uint8), np.full((20, 7, 3), 9, np.uint8), np.zeros((3, 3, 3), np.float32)]
    made = Explainer(method="gradient", column="image", id="name")({"name": ["a", "b", "c"], "image": levels}).to_pylist()
    model = verilume.load(threads=1, device="cpu")
    for row, picture in zip(made[:2], levels):
        assert np.asarray(row["map"], np.float32).tobytes() == model.explain(picture, "gradient").map.tobytes()
    assert made[2]["error"].startswith("c: ")
    assert made[2]["map"] is None


def test_an_error_of_the_machine_is_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(method="gradient")
    made = explainer.model.explain(["missing.png"], "gradient")
    made[0].error = verilume.DeviceError("the device is lost")
    monkeypatch.setattr(explainer.model, "explain", lambda *_, **__: made)
    with pytest.raises(verilume.DeviceError, match="lost"):
        explainer({"path": ["missing.png"]})


def test_a_wrong_call_ends_before_it_begins(ray: Any) -> None:
    data = ray.data.from_items([{"path": "a.png"}])
    for how, named in [
        ({"method": "no_such"}, "no_such"), ({"target": "no such"}, "no such"), ({"model": "no-such"}, "no-such"),
        ({"batch_size": 0}, "^batch_size"), ({"maps": "files"}, "^folder"), ({"actors": 3}, "2 fit"),
    ]:
        with pytest.raises(verilume.FileError if "model" in how else verilume.SettingsError, match=named):
            explain(data, **how)
    with pytest.raises(verilume.SettingsError, match="no column 'image', but path"):
        Explainer(column="image")({"path": ["a.png"]})


SMALL = """
import sys, ray, verilume, verilume.ray
ray.init(num_cpus=2, include_dashboard=False)
data = ray.data.from_items([{"path": path} for path in sys.argv[1:]])
for actors, cpus in ((2, 1), (1, 2), (3, 0.5)):
    try:
        verilume.ray.explain(data, actors=actors, num_cpus=cpus)
    except verilume.SettingsError as e:
        print(e, flush=True)
print(len(verilume.ray.explain(data).take_all()), "rows", flush=True)
"""


def test_a_small_cluster_of_the_user(pictures: pathlib.Path, files: list[str]) -> None:
    said = ended(program(SMALL, *(pictures / name for name in files)))
    assert said.count("1 CPU must stay free for reading and writing, or the work would wait for ever") == 3
    assert "41 rows" in said


def test_evaluation_in_shares(pictures: pathlib.Path, files: list[str], ray: Any) -> None:
    paths = [str(pictures / name) for name in files if not name.endswith("bad.png")][:24]
    classes = ["tiger cat", 281] * 12
    how: dict[str, Any] = {"methods": ["gradient", "grad_cam"], "metrics": ["deletion:step=20%", "stability:n=2"], "seed": 3}
    made = evaluate(paths, classes, rows=5, **how)
    want = verilume.load(threads=1, device="cpu").evaluate(paths, classes, progress=False, **how)
    assert made.scores == want.scores
    assert [score["n"] for score in made.scores] == [24] * len(made.scores)
    of_the_run = ("data",)
    assert {k: v for k, v in made.summary.items() if k not in of_the_run} == {
        k: v for k, v in want.summary.items() if k not in of_the_run
    }
    assert [picture["input"] for picture in made.pictures] == paths
    with pytest.raises(verilume.SettingsError, match="no_such"):
        evaluate(paths, classes, metrics=["no_such"], rows=24)
    with pytest.raises(verilume.InputError, match="24 pictures, 1 classes"):
        evaluate(paths, classes[:1])
    with pytest.raises(verilume.InputError, match="there is none"):
        evaluate([])
