"""Odd arguments: each has the numbers that it says, or an error that says why not."""

from __future__ import annotations

import os
import pathlib
import pickle
import shutil
from typing import Any

import numpy as np
import pytest
from conftest import CAT, ROOT

import verilume

NET = ROOT / "tests" / "zoo" / "hf-resnet.17.onnx"
METRICS = "deletion:step=50%"


def test_kinds_of_numbers(small: verilume.Model, inputs: Any) -> None:
    def bits(x: Any) -> bytes:
        return small.attribute(x, 0, "input_x_gradient").tobytes()

    # Without negative zeros, which whole numbers have not.
    whole = np.round(10 * inputs) + 0
    want = bits(whole)
    for kind in ("i1", ">i2", "i4", ">i8", "f2", ">f4", "f8", np.longdouble):
        assert bits(whole.astype(kind)) == want, kind
    assert bits(inputs > 0) == bits((inputs > 0).astype(np.float32))
    assert bits(inputs[:, :, ::-1, ::-1]) == bits(inputs[:, :, ::-1, ::-1].copy())
    exact = verilume.load(NET, threads=1, precision="f64", device="cpu")
    # Beyond the whole numbers of single precision.
    large = np.full((1, *small.input_shape), (1 << 24) + 1)
    for kind in (np.int32, np.int64, np.uint32, np.longdouble):
        got = exact.attribute(large.astype(kind), 0, "input_x_gradient")
        assert got.tobytes() == exact.attribute(large.astype(np.float64), 0, "input_x_gradient").tobytes(), kind
    for odd, why in [
        (inputs + 0j, "complex"),
        (inputs.astype(object), "object"),
        (inputs.astype(str), "<U"),
        (np.ma.masked_array(inputs, inputs > 1), "mask"),
        (np.full_like(inputs, np.longdouble("1e4000"), np.longdouble), "infinite"),
        (inputs * np.inf, "NaN|infinite"),
        ([[1, 2], [3]], "list"),
        (None, "NaN|NoneType"),
    ]:
        with pytest.raises(verilume.InputError, match=why):
            small.attribute(odd)
    assert small.logits(inputs[:0]).shape == (0, len(small.labels))


def test_kinds_of_targets(small: verilume.Model, inputs: Any) -> None:
    for odd in (True, [True] * 5, 1.0, "1", -1, 10**30, {0}, b"1", [None] * 5, [[0]] * 5, np.ones(5)):
        with pytest.raises(verilume.InputError, match="target"):
            small.attribute(inputs, odd)
    for odd in (True, 1.0, -1, 10**30, {0}, b"1", [[0]]):
        with pytest.raises(verilume.InputError, match="target"):
            small.explain([CAT], target=odd)
        with pytest.raises(verilume.InputError, match="labels"):
            small.evaluate([CAT], odd, methods="gradient", metrics=METRICS)
    with pytest.raises(verilume.InputError, match="labels"):
        small.evaluate([CAT], [None], methods="gradient", metrics=METRICS)
    with pytest.raises(verilume.SettingsError, match="class 7"):
        small.evaluate([CAT], [7], methods="gradient", metrics=METRICS)


def test_a_number_is_an_index_also_where_names_are_numbers() -> None:
    # As folders of a data set are sorted.
    model = verilume.load(NET, threads=1, device="cpu", labels=["0", "1", "10", "2", "3", "4", "four"])
    for index, name in [(2, "10"), (3, "2"), (6, "four"), (0, "0")]:
        by_index, by_name = model.explain([CAT, CAT], "gradient", target=[index, name], progress=False)
        assert (by_index.target, by_name.target) == (index, index)
        scored = model.evaluate([CAT, CAT], [index, name], methods="gradient", metrics=METRICS)
        assert [p["label"] for p in scored.pictures] == [index, index]
    twice = verilume.load(NET, threads=1, device="cpu", labels=["crane", "1", "10", "2", "3", "4", "crane"])
    with pytest.raises(verilume.SettingsError, match="class 6"):
        twice.explain(CAT, "gradient", target=6)


def test_kinds_of_pictures(small: verilume.Model, tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    cat = image.open(CAT).convert("RGB").resize((60, 45))
    clear = cat.copy()
    clear.putalpha(image.linear_gradient("L").resize(cat.size))
    palette = cat.convert("P")
    upright = image.Exif()
    saved: dict[str, tuple[Any, dict[str, Any]]] = {
        "rgba.png": (clear, {}),
        "la.png": (clear.convert("LA"), {}),
        "l.png": (cat.convert("L"), {}),
        "one.png": (cat.convert("1"), {}),
        "p.png": (palette, {}),
        "p-clear.png": (palette, {"transparency": 3}),
        "rgb-clear.png": (cat, {"transparency": (9, 9, 9)}),
        "p.gif": (palette, {}),
        "cmyk.tif": (cat.convert("CMYK"), {}),
        "x.bmp": (cat, {}),
    }
    for name, (picture, how) in saved.items():
        picture.save(tmp_path / name, **how)
    for orientation in range(1, 9):
        upright[0x112] = orientation
        cat.save(tmp_path / f"turned-{orientation}.png", exif=upright)
    for path in sorted(tmp_path.iterdir()):
        # As the command line reads the file.
        assert small.explain(image.open(path), "gradient").map.tobytes() == small.explain(path, "gradient").map.tobytes(), path
    # Of a JPEG, which Pillow decodes with other roundings, the turn is the same.
    upright[0x112] = 6
    cat.save(tmp_path / "turned.jpg", exif=upright, quality=95)
    views = [small.explain(of, "gradient").view for of in (tmp_path / "turned.jpg", image.open(tmp_path / "turned.jpg"))]
    assert views[0] is not None and views[1] is not None
    assert np.abs(views[0].astype(int) - views[1]).max() <= 4
    for mode in ("I;16", "I", "F"):
        with pytest.raises(verilume.InputError, match=mode):
            small.explain(image.new(mode, (9, 9)))


def test_pictures_that_cannot_be_read(small: verilume.Model, tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    data = CAT.read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(data[: len(data) // 2])
    levels = np.zeros((9, 9, 3), np.uint8)
    closed = image.open(CAT)
    closed.close()
    odd = [
        image.open(cut), closed, image.new("RGB", (0, 0)), levels[:0], levels.astype(np.int64), levels > 0, levels[:, :, :2],
        np.zeros((3, 9, 9), np.uint8), np.ma.masked_array(levels, levels == 0), levels[0, 0], b"cat.png", None,
    ]
    made = small.explain([levels, *odd], "gradient", progress=False)
    assert [e.error is None for e in made] == [True] + [False] * len(odd)
    assert all(isinstance(e.error, verilume.InputError) and "picture picture" not in str(e.error) for e in made[1:])
    for one in odd:
        with pytest.raises(verilume.InputError):
            small.explain(one)
    for one in (tmp_path, tmp_path / "numbers.npy"):
        with pytest.raises(verilume.InputError, match=one.name):
            small.evaluate([one], [1], methods="gradient", metrics=METRICS)
    with pytest.raises(verilume.InputError, match="int"):
        small.check(3)


def test_one_name_is_no_list(small: verilume.Model) -> None:
    report = small.check(CAT, "gradient", tests="picture_shift")
    assert [(f["method"], f["test"]) for f in report.findings] == [("gradient", "picture_shift")]
    scored = small.evaluate(CAT, 1, methods="gradient", metrics=METRICS)
    assert [p["label"] for p in scored.pictures] == [1]


def test_methods_and_seeds(small: verilume.Model, inputs: Any) -> None:
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (None, {}, "method"),
        (3, {}, "method"),
        (["gradient"], {}, "method"),
        ("gradient", {"n": 3}, "'n'"),
        ("smoothgrad:n=2", {"n": 3}, "n twice"),
        ("smoothgrad", {"n": 0}, "n=0"),
        ("smoothgrad", {"n": 2.5}, "2.5"),
        ("smoothgrad", {"n": 10**30}, "n=10"),
        ("smoothgrad", {"n": 2, "sigma": float("nan")}, "NaN"),
        ("ig", {"steps": "3,gap=no"}, "3,gap=no"),
        ("gradient", {"seed": 1.5}, "seed"),
        ("gradient", {"seed": "1"}, "seed"),
        ("gradient", {"seed": 1 << 64}, "seed"),
    ]
    for method, parameters, why in cases:
        with pytest.raises(verilume.SettingsError, match=why):
            small.attribute(inputs, 0, method, **parameters)
    with pytest.raises(verilume.SettingsError, match="names"):
        verilume.load(NET, labels=3)  # type: ignore[arg-type]


def test_a_pickled_model_is_the_same_net_in_every_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, inputs: Any
) -> None:
    shutil.copy(NET, tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    model = verilume.load("net.onnx", threads=1, device="cpu")
    data = pickle.dumps(model)
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    shutil.copy(ROOT / "tests" / "zoo" / "resnet-basic.17.onnx", "net.onnx")
    assert pickle.loads(data).attribute(inputs).tobytes() == model.attribute(inputs).tobytes()
    shutil.copy("net.onnx", tmp_path / "net.onnx")
    with pytest.raises(verilume.ModelError, match="another"):
        pickle.loads(data)


def test_tensors_of_torch_of_all_sorts(small: verilume.Model, inputs: Any) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(inputs)
    want = small.attribute(x, 0)
    assert torch.equal(small.attribute(torch._neg_view(-x), 0), want)
    assert torch.equal(small.attribute(torch.nn.Parameter(x), 0), want)
    assert torch.equal(small.attribute(x.contiguous(memory_format=torch.channels_last), 0), want)
    assert torch.equal(small.attribute(x[:1].expand(3, -1, -1, -1), 0)[2], want[0])
    for odd in (x.to_sparse(), x.to("meta")):
        with pytest.raises(verilume.InputError, match="cannot be read|device"):
            small.attribute(odd)
    assert [e.target for e in small.explain([CAT, CAT], "gradient", target=torch.tensor([1, 2]), progress=False)] == [1, 2]
    sorts = pytest.importorskip("torchvision.tv_tensors")
    assert torch.equal(small.attribute(sorts.Image(x), 0), want)


def test_a_module_keeps_the_modes_of_its_parts() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net[1].eval()
    verilume.from_torch(net, torch.randn(2, 3, 16, 16), threads=1, device="cpu")
    assert [part.training for part in net] == [True, False, True, True, True, True]

    class Pair(nn.Module):  # type: ignore[misc, name-defined]
        """Gives two tensors."""

        def forward(self, x: Any) -> Any:
            return x.mean((2, 3)), x

    with pytest.raises(verilume.ModelError, match="Pair"):
        verilume.from_torch(Pair(), torch.randn(1, 3, 8, 8))
    with pytest.raises(verilume.InputError, match="function"):
        verilume.from_torch(lambda x: x, torch.randn(1, 3, 8, 8))
