"""Maps beside Captum's, in double precision: of small nets by its stored numbers, of ResNet-18 and VGG-11 where it is installed."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import captum_maps
import numpy as np
import pytest
from conftest import ROOT

import verilume

# Largest difference, as a share of the largest number.
MOST = 1e-5


def _compare(got: Any, want: Any, largest: float) -> None:
    assert largest > 0
    off = float(np.abs(np.asarray(got, np.float64) - want).max()) / largest
    assert off <= MOST, off


@pytest.mark.parametrize("name", captum_maps.NETS)
def test_small_nets(name: str) -> None:
    zoo = ROOT / "tests" / "zoo"
    stored = np.load(captum_maps.GOLDEN)
    entry = json.loads((zoo / "expected.json").read_text())[name]
    model = verilume.load(zoo / entry["files"][-1], threads=1, precision="f64", device="cpu")
    x = _picture(entry["input"])[None]
    for method in captum_maps.methods(name):
        want = stored[f"{name} {method}"]
        got = model.attribute(x, entry["target"], method)
        assert got.dtype == np.float64
        _compare(got.ravel()[:: captum_maps.STRIDE], want[:-1], float(want[-1]))


def _picture(shape: list[int]) -> Any:
    """The picture of tests/zoo/common.py."""
    spec = importlib.util.spec_from_file_location("zoo_common", ROOT / "tests" / "zoo" / "common.py")
    assert spec is not None and spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    return common.picture(shape)


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_nets_of_torchvision(name: str) -> None:
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("captum")
    torch.manual_seed(3)
    net = getattr(models, name)(weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    target = [int(net(x).argmax())]
    model = verilume.from_torch(net, x, precision="f64", device="cpu")
    reference = captum_maps.ready(net)
    layer = reference.layer4 if name == "resnet18" else reference.features
    for method in captum_maps.methods(name):
        got = model.attribute(x.double(), target, method).numpy()
        want = captum_maps.captum(method, reference, layer, x.double(), target)
        assert got.shape == want.shape
        _compare(got, want, float(np.abs(want).max()))
