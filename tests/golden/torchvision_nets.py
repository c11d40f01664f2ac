#!/usr/bin/env python3
"""Logits and input gradients of torchvision's nets with drawn weights, in float64, on the CPU.

    python -m venv v && v/bin/pip install torch torchvision safetensors numpy
    v/bin/python torchvision_nets.py OUT_FILE [NET ...]

Weights and pictures are drawn from the names of the tensors (`drawn`), so that `tests/torchvision.rs` draws the same
ones. A net's tensors are called after it: `NET.input_size` [H,W]; `NET.parameters`, their number; `NET.logits` [2,128],
the first ones, and `NET.logits_norm` [2] of all; `NET.classes` [2,2], the two highest; `NET.gradients` [2,2,256], of
those logits with respect to the picture at the flat positions 7919 i modulo its size, and `NET.gradient_norms` [2,2] of
all.
"""
import pathlib
import sys

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file

SIZES = {  # rows and columns of the pictures
    "mobilenet_v2": (71, 65),
    "densenet121": (65, 71),
    "densenet161": (33, 40),
    "squeezenet1_0": (66, 71),
    "squeezenet1_1": (71, 66),
    "googlenet": (70, 65),
    "inception_v3": (99, 96),
    "shufflenet_v2_x1_0": (65, 71),
    "shufflenet_v2_x0_5": (64, 33),
    "regnet_y_400mf": (71, 65),
    "regnet_x_400mf": (64, 49),
    "mobilenet_v3_small": (65, 71),
    "mobilenet_v3_large": (71, 65),
    "efficientnet_b0": (65, 71),
    "efficientnet_b1": (49, 64),
    "convnext_tiny": (71, 65),
}


def uniform(name, n):
    """`n` numbers in [-1, 1) of 24 bits: SplitMix64, its state the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def drawn(name, shape):
    """The numbers of a tensor, rounded to float32."""
    u = uniform(name, int(np.prod(shape)))
    if name == "input":
        values = 1.5 * u
    elif name.endswith("layer_scale"):
        values = 0.5 + 0.25 * u
    elif len(shape) > 1:
        values = np.sqrt(6 / np.prod(shape[1:])) * u
    elif name.endswith(("running_mean", "bias")):
        values = 0.1 * u
    else:  # scales and variances
        values = 1 + 0.5 * u
    return torch.from_numpy(values.astype(np.float32).astype(np.float64).reshape(shape))


class HardSigmoid(torch.nn.Module):
    """PyTorch's own takes a sixth in single precision on the way back (2.15), also in float64."""

    def forward(self, x):
        return torch.nn.functional.relu6(x + 3) / 6


def exact(model):
    """Replaces each hard sigmoid."""
    for parent in list(model.modules()):
        for key, child in parent.named_children():
            if isinstance(child, torch.nn.Hardsigmoid):
                setattr(parent, key, HardSigmoid())
    return model


def case(name, size):
    aux = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = exact(getattr(torchvision.models, name)(weights=None, **aux)).double().eval()
    state = {key: t if key.endswith("num_batches_tracked") else drawn(key, tuple(t.shape))
             for key, t in model.state_dict().items()}
    model.load_state_dict(state)
    x = drawn("input", (2, 3, *size)).requires_grad_(True)
    logits = model(x)
    classes = logits.detach().topk(2, 1).indices
    at = torch.arange(256) * 7919 % x[0].numel()
    gradients, norms = [], []
    for k in range(2):
        g = torch.autograd.grad(logits.gather(1, classes[:, k:k + 1]).sum(), x, retain_graph=True)[0].flatten(1)
        gradients.append(g[:, at])
        norms.append(g.norm(dim=1))
    print(f"{name}: logits of size {logits.std().item():.2e}, gradients {norms[0].tolist()}")
    return {
        "input_size": torch.tensor(size),
        "parameters": torch.tensor([sum(p.numel() for p in model.parameters())]),
        "logits": logits.detach()[:, :128],
        "logits_norm": logits.detach().norm(dim=1),
        "classes": classes,
        "gradients": torch.stack(gradients, 1),
        "gradient_norms": torch.stack(norms, 1),
    }


def main():
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(SIZES)
    found = load_file(out) if out.exists() else {}
    for name in names:
        found |= {f"{name}.{key}": t.contiguous() for key, t in case(name, SIZES[name]).items()}
    save_file(found, out)


if __name__ == "__main__":
    main()
