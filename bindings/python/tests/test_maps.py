"""Maps: the same bytes as the command line's, whatever the form of the input."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from conftest import CAT, ROOT

import verilume

# What a record says of the run rather than of the map.
OF_THE_RUN = ("seconds", "peak_bytes", "files", "bytes")


def _same(model: verilume.Model, method: str, explained: Any, *options: object) -> verilume.Explanation:
    record, want = explained(CAT, method, "--seed", 5, *options)
    e = model.explain(CAT, method, seed=5)
    assert e.map.dtype == np.float32
    assert e.map.flags.owndata
    assert e.map.shape == want.shape
    assert e.map.tobytes() == want.tobytes()
    assert {k: v for k, v in e.record.items() if k not in OF_THE_RUN} == {
        k: v for k, v in record.items() if k not in OF_THE_RUN
    }
    assert (e.target, e.score, e.gap, e.shares) == (
        record["target"], record["score"], record["gap"], record.get("shares")
    )
    return e


def test_the_embedded_net_has_the_bytes_and_the_record_of_the_command_line(model: verilume.Model, explained: Any) -> None:
    e = _same(model, "gradient", explained)
    assert (e.target, e.label) == (282, "tiger cat")
    assert e.map.any()


@pytest.mark.parametrize(
    "method",
    ["gradient", "ig:steps=4", "lrp", "smoothgrad:n=3", "decoy:iterations=2,masks=patch,n=3", "relex:copies=2,iterations=2"],
)
def test_the_bytes_and_the_record_of_the_command_line(method: str, small: verilume.Model, explained: Any) -> None:
    assert _same(small, method, explained, "--model", ROOT / "tests" / "zoo" / "hf-resnet.17.onnx").map.any()


def test_a_batch_is_one_by_one(small: verilume.Model) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(5)]
    for method in ("gradient", "ig:steps=3", "lrp", "smoothgrad:n=2"):
        together = small.explain(pictures, method, progress=False)
        for picture, one in zip(pictures, together):
            assert small.explain(picture, method).map.tobytes() == one.map.tobytes()


def test_forms_of_one_picture(model: verilume.Model) -> None:
    image = pytest.importorskip("PIL.Image")
    want = model.explain(str(CAT), "gradient").map.tobytes()
    opened = image.open(CAT)
    levels = np.asarray(opened.convert("RGB"))
    turned = np.asfortranarray(levels)
    assert not turned.flags.c_contiguous
    for picture in (CAT, opened, levels, turned):
        assert model.explain(picture, "gradient").map.tobytes() == want
    assert model.explain(opened).input == str(CAT)
    assert model.explain([levels], progress=False)[0].input == "picture 0"
    grey = levels[:, :, 0]
    assert model.explain(grey).map.tobytes() == model.explain(np.repeat(grey[:, :, None], 3, axis=2)).map.tobytes()


def test_targets_and_parameters(model: verilume.Model) -> None:
    by_name, by_number, least = model.explain([CAT] * 3, "gradient", target=["tabby", 281, "least"], progress=False)
    assert (by_name.target, by_number.target) == (281, 281)
    assert by_name.map.tobytes() == by_number.map.tobytes() != least.map.tobytes()
    assert least.score is not None and by_name.score is not None and least.score < by_name.score
    words = model.explain(CAT, "ig:steps=3,gap=no")
    keys = model.explain(CAT, "ig", steps=3, gap=False)
    assert words.map.tobytes() == keys.map.tobytes()
    assert keys.gap is None
    nested = model.explain(CAT, "smooth", base="ig:steps=2", n=2)
    assert nested.map.tobytes() == model.explain(CAT, "smooth:base=(ig:steps=2),n=2").map.tobytes()
    seeds = [model.explain(CAT, "smoothgrad", n=2, seed=seed).map.tobytes() for seed in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]


def test_attribute_is_explain_on_normalised_numbers(small: verilume.Model, inputs: Any) -> None:
    maps = small.attribute(inputs, 1, "ig", steps=4)
    assert (type(maps), maps.dtype, maps.shape) == (np.ndarray, np.float32, inputs.shape)
    assert maps.flags.owndata
    assert maps.any()
    logits = small.logits(inputs)
    assert logits.shape == (5, len(small.labels))
    tops = logits.argmax(axis=1)
    assert small.attribute(inputs, tops).tobytes() == small.attribute(inputs).tobytes()
    for i in range(5):
        assert small.attribute(inputs[i : i + 1], [1], "ig", steps=4)[0].tobytes() == maps[i].tobytes()
    assert small.attribute(inputs, method="grad_cam").shape == (5, 1, *inputs.shape[2:])
    assert small.attribute(inputs[:0]).shape[0] == 0


def test_any_layout_and_precision(small: verilume.Model, inputs: Any) -> None:
    want = small.attribute(inputs).tobytes()
    strided = np.repeat(inputs, 2, axis=3)[:, :, :, ::2]
    last = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    swapped = inputs.astype(inputs.dtype.newbyteorder())
    for form in (strided, last, swapped, inputs.astype(np.float64), inputs.tolist()):
        assert small.attribute(form).tobytes() == want
    reference = verilume.load(ROOT / "tests" / "zoo" / "hf-resnet.17.onnx", threads=1, precision="f64", device="cpu")
    exact = reference.attribute(inputs.astype(np.float64))
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, small.attribute(inputs), rtol=0, atol=1e-3 * np.abs(exact).max())
    # More than single precision is read and returned.
    moved = inputs.astype(np.float64) + 1e-9
    assert not np.array_equal(reference.attribute(moved, 0, "input_x_gradient"), reference.attribute(inputs, 0, "input_x_gradient"))


class OfAnotherLibrary:
    """An array that is known by the protocol alone."""

    def __init__(self, array: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self.array = array
        self.on = device
        self.device = f"device {device[0]}"

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.on

    def __array_namespace__(self) -> Any:
        return type("Library", (), {"from_dlpack": staticmethod(lambda x: OfAnotherLibrary(np.from_dlpack(x)))})


def test_arrays_of_other_libraries(small: verilume.Model, inputs: Any) -> None:
    maps = small.attribute(OfAnotherLibrary(inputs))
    assert isinstance(maps, OfAnotherLibrary)
    assert maps.array.tobytes() == small.attribute(inputs).tobytes()
    with pytest.raises(verilume.InputError, match=r"\.cpu\(\)") as caught:
        small.attribute(OfAnotherLibrary(inputs, (2, 0)))
    assert caught.value.kind == "input"
    assert "device 2" in str(caught.value)


def test_tensors_of_torch(small: verilume.Model, inputs: Any) -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(inputs).requires_grad_()
    maps = small.attribute(x, torch.tensor([0, 1, 0, 1, 0]))
    assert isinstance(maps, torch.Tensor)
    assert maps.numpy().tobytes() == small.attribute(inputs, [0, 1, 0, 1, 0]).tobytes()
    with pytest.raises(verilume.InputError, match="bfloat16"):
        small.attribute(x.to(torch.bfloat16))


def test_drawing(model: verilume.Model, command: Any, tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    e = model.explain(CAT, "gradient")
    assert command("explain", CAT, "-m", "gradient", "--threads", 1, "--device", "cpu").returncode == 0
    drawn = np.asarray(image.open(tmp_path / "verilume-out" / "chelsea.gradient.png").convert("RGB"))
    assert np.array_equal(np.asarray(e.overlay()), drawn)
    assert not np.array_equal(np.asarray(e.overlay(winsorise=50)), drawn)
    cam = e.cam01()
    assert (cam.shape, cam.dtype, cam.min(), cam.max()) == (e.map.shape[1:], np.float32, 0.0, 1.0)
    assert "data:image/png;base64," in e._repr_html_()
    assert "tiger cat" in e._repr_html_()
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = pyplot.figure().add_subplot()
    assert e.plot(axes) is axes
    assert axes.get_title() == "gradient: tiger cat"


def test_quantus(small: verilume.Model, inputs: Any) -> None:
    explain = small.explain_func("ig", steps=2)
    maps = explain(None, inputs, np.array([0, 1, 0, 1, 0]), device="cpu")
    assert maps.tobytes() == small.attribute(inputs, [0, 1, 0, 1, 0], "ig:steps=2").tobytes()
    quantus = pytest.importorskip("quantus")
    torch = pytest.importorskip("torch")
    # A net that Quantus asks nothing.
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs[0].size, 7)).eval()
    metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
    got = metric(model=net, x_batch=inputs, y_batch=np.array([0, 1, 0, 1, 0]), explain_func=explain, device="cpu")
    assert len(got) == 5
    assert all(0 < one < 1 for one in got)


def test_results_are_plain_data(model: verilume.Model) -> None:
    e = model.explain(CAT)
    again = pickle.loads(pickle.dumps(e))
    assert again.map.tobytes() == e.map.tobytes()
    assert again.record == e.record
    assert "tiger cat" in repr(e)
