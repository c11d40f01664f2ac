"""`explain_folder`: every picture once, with the bits of one process, whatever is killed on the way."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import CAT, ROOT, DRIVER, ended, once_begun, program, rows_of, same, workers

import verilume
import verilume.ray
from verilume.ray import explain_folder

Alone = Callable[..., dict[str, verilume.Explanation]]


def test_bits_are_those_of_one_process(pictures: pathlib.Path, alone: Alone, ray: Any, tmp_path: pathlib.Path) -> None:
    made = explain_folder(pictures, tmp_path / "maps", method="smoothgrad:n=2", seed=4, rows=9)
    assert made == {"pictures": 41, "failed": 1, "parts": 5, "made": 5}
    rows = rows_of(tmp_path / "maps")
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    same(rows, alone("smoothgrad:n=2", seed=4))
    record = json.loads(rows[1]["record"])
    assert (record["input"], record["target"]) == (rows[1]["id"], rows[1]["target"])


def test_maps_as_files_or_not_at_all(pictures: pathlib.Path, alone: Alone, ray: Any, tmp_path: pathlib.Path) -> None:
    explain_folder(pictures / "001", tmp_path / "files", maps="files", target="tabby")
    explain_folder(pictures / "001", tmp_path / "none", maps=None, target="tabby")
    want = {name[4:]: e for name, e in alone("grad_cam", target="tabby").items() if name.startswith("001/")}
    rows = rows_of(tmp_path / "files")
    assert len(rows) == len(want) == 15
    for row, without in zip(rows, rows_of(tmp_path / "none")):
        e = want[row["id"]]
        assert np.load(tmp_path / "files" / "_maps" / row["map_file"]).tobytes() == e.map.tobytes()
        assert row["map"] is None
        assert (without["map"], without["map_file"], without["shape"]) == (None, None, list(e.map.shape))
        assert row["target"] == 281


def test_a_killed_actor(pictures: pathlib.Path, alone: Alone, ray: Any, tmp_path: pathlib.Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        late = time.monotonic() + 120
        while time.monotonic() < late and not killed:
            if any(tmp_path.glob("maps/part-*.parquet")):
                for process in workers()[:1]:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    made = explain_folder(pictures, tmp_path / "maps", method="smoothgrad:n=8", rows=3)
    killer.join()
    assert killed
    assert made == {"pictures": 41, "failed": 1, "parts": 14, "made": 14}
    same(rows_of(tmp_path / "maps"), alone("smoothgrad:n=8"))


@pytest.mark.parametrize("sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.full)])
def test_a_stopped_driver(sent: signal.Signals, pictures: pathlib.Path, alone: Alone, tmp_path: pathlib.Path) -> None:
    maps = tmp_path / "maps"
    # Shells make programs in the background ignore the signal, and children inherit that.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = program(DRIVER, pictures, maps, "smoothgrad:n=8", 3, 2, preexec_fn=heard)
    once_begun(child, maps, 3)
    if sent == signal.SIGINT:
        # Meanwhile nobody else writes there.
        with pytest.raises(verilume.VerilumeError, match="another run writes there"):
            explain_folder(pictures, maps, method="smoothgrad:n=8", rows=3)
    child.send_signal(sent)
    said, _ = child.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert "interrupted" in said
    there = {path.name: path.stat().st_mtime_ns for path in maps.glob("part-*.parquet")}
    assert 3 <= len(there) < 14
    said = ended(program(DRIVER, pictures, maps, "smoothgrad:n=8", 3, 2))
    # A part may have been completed while the driver went.
    assert int(said.split(" of 14")[0].split()[-1]) in (14 - len(there), 13 - len(there), 12 - len(there)), said
    again = {path.name: path.stat().st_mtime_ns for path in maps.glob("part-*.parquet")}
    assert {name: again[name] for name in there} == there
    assert not list(maps.glob(".*.tmp"))
    same(rows_of(maps), alone("smoothgrad:n=8"))


def test_other_settings_and_pictures_are_refused(pictures: pathlib.Path, ray: Any, tmp_path: pathlib.Path) -> None:
    source, maps = tmp_path / "source", tmp_path / "maps"
    shutil.copytree(pictures / "001", source)
    assert explain_folder(source, maps)["made"] == 15
    for name, other in {
        "method": "gradient", "seed": 1, "target": 5, "maps": None, "rows": 7, "size": 200,
        "model": ROOT / "tests" / "zoo" / "hf-resnet.17.onnx",
    }.items():
        with pytest.raises(verilume.SettingsError, match=f"^{name}: the run in"):
            explain_folder(source, maps, **{name: other})
    # These change no bit.
    assert explain_folder(source, maps, threads=2, memory="1GiB", actors=1)["made"] == 0
    picture = next(source.iterdir())
    os.utime(picture, ns=(1, 1))
    with pytest.raises(verilume.InputError, match=f"{picture.name}: the picture is new or has changed"):
        explain_folder(source, maps)
    picture.unlink()
    with pytest.raises(verilume.InputError, match=f"{picture.name}: the picture is gone"):
        explain_folder(source, maps)


def test_odd_names(ray: Any, tmp_path: pathlib.Path) -> None:
    deep = tmp_path / "odd" / "a" / "b"
    deep.mkdir(parents=True)
    names = [b"\xff\n.png", "é 😀.PNG".encode(), b"[1]*?.png", b"l" * 250 + b".png", b"100%20'\".png"]
    for name in names:
        shutil.copy(CAT, deep / os.fsdecode(name))
    (deep / "loop").symlink_to("..")
    (deep / "dangling.png").symlink_to("nowhere")
    (deep / "folder.png").mkdir()
    (deep / "._cat.png").write_text("of macOS")
    # Results may lie among the pictures.
    for again in range(2):
        made = explain_folder(tmp_path / "odd", tmp_path / "odd" / "maps", maps="files")
        assert (made["pictures"], made["failed"]) == (6, 1)
    rows = {row["id"]: row for row in rows_of(tmp_path / "odd" / "maps")}
    assert rows.keys() == {f"a/b/{name.decode('utf-8', 'backslashreplace')}" for name in [*names, b"dangling.png"]}
    maps = {(tmp_path / "odd" / "maps" / "_maps" / row["map_file"]).read_bytes() for row in rows.values() if not row["error"]}
    assert len(maps) == 1
    shutil.copy(CAT, deep / "\\xff\n.png")
    with pytest.raises(verilume.InputError, match="two pictures are called"):
        explain_folder(tmp_path / "odd", tmp_path / "new")


def test_folders_that_cannot_be_meant(pictures: pathlib.Path, ray: Any, tmp_path: pathlib.Path) -> None:
    for name in ("empty", "other", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    for at in range(3):
        (tmp_path / "bad" / f"{at}.png").write_text("no picture")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "_run.json").write_text("{}")
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (tmp_path / "missing", tmp_path / "new", OSError, "missing"),
        (CAT, tmp_path / "new", OSError, "chelsea.png"),
        (tmp_path / "empty", tmp_path / "new", ValueError, "it holds no pictures"),
        (pictures, pictures, ValueError, "is the folder of the pictures"),
        (pictures, tmp_path / "other", OSError, "holds mine.txt"),
        (pictures, CAT, OSError, "chelsea.png"),
        (pictures, broken, OSError, "_run.json"),
        ("s3://pictures", tmp_path / "new", ValueError, "is an address"),
    ]
    for source, maps, usual, named in cases:
        with pytest.raises(verilume.VerilumeError, match=named) as caught:
            explain_folder(source, maps)
        assert isinstance(caught.value, usual)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]
    for how, named in [
        ({"target": "no such class"}, "no such class"), ({"method": "no_such"}, "no_such"), ({"model": "no-such"}, "no-such"),
        ({"rows": 0}, "^rows"), ({"seed": -1}, "seed"), ({"maps": "no"}, "maps"), ({"actors": 9}, "2 fit"),
        ({"actors": 0}, "^actors"), ({"num_cpus": 9}, "0 fit"), ({"num_cpus": 0}, "num_cpus"), ({"num_gpus": 1}, "0 GPU"),
    ]:
        with pytest.raises(verilume.FileError if "model" in how else verilume.SettingsError, match=named):
            explain_folder(pictures, tmp_path / str(how), **how)
    assert explain_folder(tmp_path / "bad", tmp_path / "new") == {"pictures": 3, "failed": 3, "parts": 3, "made": 3}


def test_a_net_that_actors_cannot_open(pictures: pathlib.Path, ray: Any, tmp_path: pathlib.Path) -> None:
    # The driver's net is gone when the actors look for it.
    net = tmp_path / "net.onnx"
    shutil.copy(ROOT / "tests" / "zoo" / "hf-resnet.17.onnx", net)
    looked = verilume.ray._pictures

    def gone(*folders: str) -> Any:
        net.unlink()
        return looked(*folders)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verilume.ray, "_pictures", gone)
        with pytest.raises(verilume.VerilumeError, match="net.onnx"):
            explain_folder(pictures, tmp_path / "maps", model=net)
