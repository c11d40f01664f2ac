"""Captum's maps in double precision beside the methods that compute the same.

    python bindings/python/tests/captum_maps.py        # writes captum.npz again

Made with torch 2.15.0, torchvision 0.29.2, captum 0.9.0, and what tests/zoo/make.py needs. ``captum.npz`` has, for nets of
tests/zoo and each method, every 37th number of the map in single precision, and the largest number of all.
"""

from __future__ import annotations

import json
import pathlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ZOO = HERE.parents[2] / "tests" / "zoo"
GOLDEN = HERE / "captum.npz"
# Nets of tests/zoo, with the module whose output Grad-CAM weighs.
NETS: dict[str, Callable[[Any], Any]] = {
    "mnasnet-small": lambda net: net.layers,
    "resnet-basic": lambda net: net[2],
    "vgg-plain": lambda net: net[9],
}
STRIDE = 37


def _grad_cam(attr: Any, net: Any, layer: Any, x: Any, target: Any) -> Any:
    small = attr.LayerGradCam(net, layer).attribute(x, target, relu_attributions=True)
    return attr.LayerAttribution.interpolate(small, x.shape[2:], "bilinear")


# Our text of a method, and how Captum is asked for the same: its module, the net, the layer of Grad-CAM, x, the target.
METHODS: dict[str, Callable[[Any, Any, Any, Any, Any], Any]] = {
    "gradient": lambda attr, net, _, x, t: attr.Saliency(net).attribute(x, t, abs=False),
    "input_x_gradient": lambda attr, net, _, x, t: attr.InputXGradient(net).attribute(x, t),
    "ig:steps=5": lambda attr, net, _, x, t: attr.IntegratedGradients(net).attribute(
        x, target=t, n_steps=5, method="riemann_middle"
    ),
    "ig:steps=5,rule=gausslegendre": lambda attr, net, _, x, t: attr.IntegratedGradients(net).attribute(x, target=t, n_steps=5),
    "guided_backprop": lambda attr, net, _, x, t: attr.GuidedBackprop(net).attribute(x, t),
    "deconvnet": lambda attr, net, _, x, t: attr.Deconvolution(net).attribute(x, t),
    "deep_lift": lambda attr, net, _, x, t: attr.DeepLift(net, eps=1e-10).attribute(x, target=t),
    "grad_cam": _grad_cam,
}


def methods(net: str) -> list[str]:
    """The methods that are compared on a net.

    Captum's DeepLIFT wants a module for each use of an activation, and its sum misses the difference of the scores where
    max-pools overlap or tie. VGG-11 has neither: its drawn biases are zero, so the baseline's activations are too.
    """
    return [method for method in METHODS if method != "deep_lift" or net in ("mnasnet-small", "vgg11")]


def captum(method: str, net: Any, layer: Any, x: Any, target: list[int]) -> np.ndarray[Any, Any]:
    """Captum's map, where the net is one of double precision whose activations do not write over their input."""
    import captum.attr
    import torch

    with warnings.catch_warnings():
        # Its hooks are announced at each call.
        warnings.simplefilter("ignore")
        made = METHODS[method](captum.attr, net, layer, x.clone(), torch.tensor(target))
    return np.asarray(made.detach().numpy())


def ready(net: Any) -> Any:
    """A copy of the net as Captum needs it."""
    import copy

    net = copy.deepcopy(net).double().eval()
    for part in net.modules():
        if getattr(part, "inplace", False):
            part.inplace = False
    return net


def main() -> None:
    """Writes the file."""
    sys.path.insert(0, str(ZOO))
    import make
    import torch
    from common import picture

    expected = json.loads((ZOO / "expected.json").read_text())
    made: dict[str, np.ndarray[Any, Any]] = {}
    for name, last_stage in NETS.items():
        entry = expected[name]
        x = picture(entry["input"])
        for seed in range(40):
            net = make.NETS[name][0]().eval()
            make.draw(net, seed)
            if np.allclose(make.answer(ready(net), x)[0], entry["logits"], rtol=1e-9):
                break
        else:
            raise SystemExit(f"{name}: no draw has the logits of expected.json")
        net = ready(net)
        layer = last_stage(net)
        for method in methods(name):
            map = captum(method, net, layer, torch.from_numpy(x).double()[None], [entry["target"]])
            made[f"{name} {method}"] = np.append(map.ravel()[::STRIDE], np.abs(map).max()).astype(np.float32)
            print(name, method, map.shape)
    np.savez_compressed(GOLDEN, allow_pickle=False, **made)


if __name__ == "__main__":
    main()
