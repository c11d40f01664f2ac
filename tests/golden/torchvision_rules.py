#!/usr/bin/env python3
"""Relevance by Zennit and DeepLIFT by Captum on torchvision's nets with drawn weights, in float64, on the CPU.

    python -m venv v && v/bin/pip install torch torchvision captum zennit safetensors numpy
    v/bin/python torchvision_rules.py OUT_FILE [NET ...]

Weights and pictures are those of `torchvision_nets.py`, in the sizes of `SIZES`; the highest logit of each picture is
explained. Rules attach to modules, so each net is traced and every call becomes a module of its own (`modules`); batch
norms are merged into the convolutions before them, as Verilume's are, and others become depthwise convolutions. A row
is `NET.ROW` [2,256], the map at the flat positions 7919 i modulo its size, and `NET.ROW.norm` [2] of the whole map.
`NET.input_size` [H,W], `NET.classes` [2] and `NET.logits` [2] (of those classes) come with them.

Nets that are left out have what the peers have no rule for: mobilenet_v3, efficientnet and regnet_y multiply two signals
(Zennit and Captum send the gradient to both), convnext has layer norms (both take the gradient).
"""
import pathlib
import sys

import torch
import torch.fx
import torch.nn.functional as F
import torchvision
from captum.attr import DeepLift
from captum.attr._core import deep_lift
from safetensors.torch import load_file, save_file
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite
from zennit.rules import AlphaBeta, Epsilon, Gamma, Norm, Pass, ZPlus
from zennit.types import Activation, AvgPool, Convolution, Linear

from models import StackSum, Sum
from torchvision_nets import drawn

SIZES = {  # rows and columns of the pictures
    "mobilenet_v2": (49, 64),
    "densenet121": (49, 64),
    "squeezenet1_1": (64, 49),
    "googlenet": (64, 49),
    "inception_v3": (80, 75),
    "shufflenet_v2_x1_0": (64, 49),
    "resnet8": (32, 32),
}

# Captum's rule for functions of one number, also for this one.
deep_lift.SUPPORTED_NON_LINEAR[nn.ReLU6] = deep_lift.nonlinear


class Shortcut(nn.Module):
    """Every second row and column, and zero channels around (He 2016, option A)."""

    def __init__(self, around):
        super().__init__()
        self.around = around

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.around, self.around))


class CifarBlock(nn.Module):
    def __init__(self, c_in, c):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, c, 3, 1 if c_in == c else 2, 1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.shortcut = nn.Identity() if c_in == c else Shortcut((c - c_in) // 2)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet8(nn.Module):
    """ResNet for CIFAR-10 with one block a layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(CifarBlock(16, 16))
        self.layer2 = nn.Sequential(CifarBlock(16, 32))
        self.layer3 = nn.Sequential(CifarBlock(32, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def as_module(node):
    """The module that does what a traced function does, or None where no rule needs one."""
    name = getattr(node.target, "__name__", node.target)
    rest = {"stride": None, "padding": 0} | dict(zip(("kernel_size", "stride", "padding"), node.args[1:])) | node.kwargs
    if name in ("relu", "relu_"):
        return nn.ReLU()
    if name in ("add", "iadd"):
        return Sum()
    if name == "adaptive_avg_pool2d" or (name == "mean" and tuple(node.args[1]) == (2, 3)):
        return nn.AdaptiveAvgPool2d(1)
    if name == "avg_pool2d":
        return nn.AvgPool2d(rest["kernel_size"], rest["stride"], rest["padding"])
    if name == "max_pool2d":
        return nn.MaxPool2d(rest["kernel_size"], rest["stride"], rest["padding"])
    return None


def parts(norm):
    """Scale and shift of a batch norm."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def depthwise(norm):
    """A batch norm as a convolution."""
    c = norm.num_features
    conv = nn.Conv2d(c, c, 1, groups=c)
    scale, shift = parts(norm)
    conv.weight, conv.bias = nn.Parameter(scale.reshape(c, 1, 1, 1)), nn.Parameter(shift)
    return conv


def merged(conv, norm):
    """A convolution and the batch norm behind it."""
    new = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                    conv.groups)
    scale, shift = parts(norm)
    new.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
    new.bias = nn.Parameter(shift if conv.bias is None else shift + conv.bias * scale)
    return new


def fresh(module):
    """A module for one call; weights are shared."""
    for kind in (nn.ReLU, nn.ReLU6):
        if type(module) is kind:
            return kind()
    return module


def modules(model):
    """The net as a graph in which each call is a module of its own, without batch norms."""
    traced = torch.fx.symbolic_trace(model)
    graph, own = traced.graph, dict(traced.named_modules())
    for node in list(graph.nodes):
        module = None
        if node.op == "call_module":
            module = fresh(own[node.target])
            before = node.args[0]
            if isinstance(module, nn.BatchNorm2d):
                conv = own.get(before.target) if before.op == "call_module" and len(before.users) == 1 else None
                if isinstance(conv, nn.Conv2d):
                    traced.add_submodule(before.target.replace(".", "_"), merged(conv, module))
                    node.replace_all_uses_with(before)
                    graph.erase_node(node)
                    before.target = before.target.replace(".", "_")
                    continue
                module = depthwise(module)
        elif node.op in ("call_function", "call_method"):
            module = as_module(node)
        if module is not None:
            key = f"call_of_{node.name}"
            traced.add_submodule(key, module)
            own[key] = module
            inputs = [a for a in node.args if isinstance(a, torch.fx.Node)]
            with graph.inserting_before(node):
                new = graph.call_module(key, tuple(inputs))
            if isinstance(module, nn.AdaptiveAvgPool2d) and node.target == "mean":
                with graph.inserting_before(node):
                    flat = graph.call_function(torch.flatten, (new, 1))
                node.replace_all_uses_with(flat)
            else:
                node.replace_all_uses_with(new)
            graph.erase_node(node)
    graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.double().eval()


BASE = [(Activation, Pass()), (AvgPool, Norm()), (nn.AdaptiveAvgPool2d, Norm()), (StackSum, Norm())]
LRP = {
    "lrp_epsilon": [(Convolution, Epsilon(1e-2)), (Linear, Epsilon(1e-2))],
    "lrp_epsilon_plus": [(Convolution, ZPlus()), (Linear, Epsilon(1e-6))],
    "lrp_alpha2_beta1": [(Convolution, AlphaBeta(2, 1)), (Linear, Epsilon(1e-6))],
    "lrp_gamma": [(Convolution, Gamma(0.25)), (Linear, Epsilon(1e-6))],
}


def case(name, size):
    aux = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = ResNet8() if name == "resnet8" else getattr(torchvision.models, name)(weights=None, **aux)
    model = model.double().eval()
    model.load_state_dict({key: t if key.endswith("num_batches_tracked") else drawn(key, tuple(t.shape))
                           for key, t in model.state_dict().items()})
    x = drawn("input", (2, 3, *size))
    with torch.no_grad():
        logits = model(x)
    t = logits.argmax(1)
    model = modules(model)
    assert (model(x) - logits).abs().max() <= 1e-11 * logits.abs().max(), name
    start = F.one_hot(t, logits.shape[1]).to(x) * logits
    rows = {}
    for row, layers in LRP.items():
        with Gradient(model=model, composite=LayerMapComposite(BASE + layers)) as attributor:
            rows[row] = attributor(x, start)[1].detach()
    rows["deep_lift_rescale"] = DeepLift(model).attribute(x.clone().requires_grad_(True), target=t).detach()
    picked = logits.gather(1, t[:, None])[:, 0]
    with torch.no_grad():
        difference = picked - model(torch.zeros_like(x)).gather(1, t[:, None])[:, 0]
    missed = (rows["deep_lift_rescale"].flatten(1).sum(1) - difference).abs() / difference.abs()
    print(name, "misses of DeepLIFT", missed.tolist(), "sizes", {k: v.abs().max().item() for k, v in rows.items()})
    if missed.max() > 1e-9:  # Captum's rule for max-pools does not sum to the difference where windows overlap
        del rows["deep_lift_rescale"]
    at = torch.arange(256) * 7919 % x[0].numel()
    found = {"input_size": torch.tensor(size), "classes": t, "logits": picked}
    for row, values in rows.items():
        found[row] = values.flatten(1)[:, at]
        found[f"{row}.norm"] = values.flatten(1).norm(dim=1)
    return found


def main():
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(SIZES)
    found = load_file(out) if out.exists() else {}
    for name in names:
        found |= {f"{name}.{key}": t.contiguous() for key, t in case(name, SIZES[name]).items()}
        save_file(found, out)


if __name__ == "__main__":
    main()
