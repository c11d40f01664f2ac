#!/usr/bin/env python3
"""Nets under the names that different projects give to their tensors, with logits and gradients in float64, on the CPU.

    python -m venv v && v/bin/pip install torch torchvision timm transformers numpy safetensors
    v/bin/python names.py [CASE ...]

Writes `names.json`. Weights and inputs are drawn from the names of the tensors, see `torchvision_nets.py`, so that only
names and shapes are kept. Of a case: `tensors` (name and shape of each), `input` [C,H,W], `logits`, the highest `class`,
256 numbers of its `gradient` at the flat positions 7919 i modulo its size, and the gradient's `norm`; `arch` is what must
be given to read it.
"""
import json
import pathlib
import sys

import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.nn.utils import prune
from torch.nn import functional as F

from torchvision_nets import drawn, exact

OUT = pathlib.Path(__file__).with_name("names.json")


class HardSwish(nn.Module):
    """PyTorch's own takes a sixth in single precision on the way back (2.15), also in float64."""

    def forward(self, x):
        return x * F.relu6(x + 3) / 6


def precise(model):
    for parent in list(exact(model).modules()):
        for key, child in parent.named_children():
            if isinstance(child, nn.Hardswish):
                setattr(parent, key, HardSwish())
    return model


class Block(nn.Module):
    def __init__(self, c, k, stride, shortcut):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k)
        self.of = shortcut if stride != 1 or c != k else None
        if self.of:
            setattr(self, shortcut, nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k)))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (getattr(self, self.of)(x) if self.of else x))


class SmallResNet(nn.Module):
    """For small pictures: names of kuangliu's and akamaster's (`shortcut`, `linear`) or chenyaofo's (`downsample`, `fc`)."""

    def __init__(self, widths, shortcut, head):
        super().__init__()
        self.conv1, self.bn1, c = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), widths[0]
        self.layers = len(widths)
        for i, k in enumerate(widths):
            blocks = [Block(c, k, 2 if i else 1, shortcut), Block(k, k, 1, shortcut)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            c = k
        self.end = head
        setattr(self, head, nn.Linear(c, 10))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(self.layers):
            x = getattr(self, f"layer{i + 1}")(x)
        return getattr(self, self.end)(x.mean((2, 3)))


class Residual(nn.Module):
    """weiaicunzai's pytorch-cifar100."""

    def __init__(self, c, k, stride):
        super().__init__()
        self.residual_function = nn.Sequential(
            nn.Conv2d(c, k, 3, stride, 1, bias=False), nn.BatchNorm2d(k), nn.ReLU(),
            nn.Conv2d(k, k, 3, 1, 1, bias=False), nn.BatchNorm2d(k))
        self.shortcut = nn.Sequential()
        if stride != 1 or c != k:
            self.shortcut = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x):
        return F.relu(self.residual_function(x) + self.shortcut(x))


class Cifar100(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, c = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()), 8
        for i, k in enumerate([8, 16, 16, 24]):
            setattr(self, f"conv{i + 2}_x", nn.Sequential(Residual(c, k, 2 if i else 1)))
            c = k
        self.fc = nn.Linear(c, 10)

    def forward(self, x):
        x = self.conv1(x)
        for i in range(2, 6):
            x = getattr(self, f"conv{i}_x")(x)
        return self.fc(x.mean((2, 3)))


class LeNet(nn.Module):
    def __init__(self, channels, inputs):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(inputs, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Mnist(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


def resnet(head=None, **more):
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5, **more)
    if head:
        model.fc = head
    return model


def pruned():
    model = resnet()
    prune.random_unstructured(model.layer1[0].conv1, "weight", 0.5)
    return model


def of_timm(name, **more):
    return lambda: timm.create_model(name, num_classes=7, **more)


def of_transformers(name, **more):
    def make():
        config = getattr(transformers, f"{name}Config")(num_labels=5, **more)
        return getattr(transformers, f"{name}ForImageClassification")(config)
    return make


def linears(*widths):
    return [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]


def norm_layers():
    a, b = linears(784, 24, 10)
    return a, nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(), b


def dropout_head():
    a, b = linears(512, 24, 5)
    return resnet(nn.Sequential(a, nn.ReLU(), nn.Dropout(), b))


def norm_head():
    a, b = linears(512, 24, 5)
    return resnet(nn.Sequential(a, nn.BatchNorm1d(24), nn.ReLU(), b))


STEPS = dict(depths=[1, 2, 1, 1])
NARROW = dict(
    stem_chs=[8, 8, 16], stage_conv_chs=[8, 8, 16, 16], stage_out_chs=[16, 24, 32, 40], layer_per_block=2,
    block_per_stage=[1, 1, 2, 2])
SMALL = dict(embedding_size=16, hidden_sizes=[16, 24, 32, 40], **STEPS)

# Case: net, input, and what a file does to the names; the option `--arch` where a file needs it.
CASES = {
    "prefix": (resnet, (3, 49, 64), lambda name: f"module._orig_mod.{name}"),
    "outer head": (resnet, (3, 49, 64), lambda name: name.replace("fc.", "head.") if "fc." in name else f"encoder.{name}"),
    "children": (resnet, (3, 49, 64), lambda name: ".".join([
        {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7", "fc": "fc"}[name.split(".")[0]],
        *name.split(".")[1:]])),
    "two linear layers": (dropout_head, (3, 49, 64)),
    "norm in the head": (norm_head, (3, 49, 64)),
    "no bias": (lambda: resnet(nn.Linear(512, 5, bias=False)), (3, 49, 64)),
    "weight norm": (lambda: resnet(nn.utils.parametrizations.weight_norm(nn.Linear(512, 5))), (3, 49, 64)),
    "old weight norm": (lambda: resnet(nn.utils.weight_norm(nn.Linear(512, 5))), (3, 49, 64)),
    "pruned": (pruned, (3, 49, 64)),
    "kuangliu": (lambda: SmallResNet([8, 16, 16, 24], "shortcut", "linear"), (3, 32, 32)),
    "option B": (lambda: SmallResNet([8, 16, 24], "shortcut", "linear"), (3, 32, 32)),
    "chenyaofo": (lambda: SmallResNet([8, 16, 24], "downsample", "fc"), (3, 32, 32)),
    "weiaicunzai": (Cifar100, (3, 32, 32)),
    "timm resnet10t": (of_timm("resnet10t"), (3, 49, 64)),
    "timm resnet14t": (of_timm("resnet14t"), (3, 65, 47)),
    "timm seresnet": (of_timm("seresnet18", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm resnetrs": (of_timm("resnetrs50", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm ecaresnet": (of_timm("ecaresnet26t", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm skresnet": (of_timm("skresnet18", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm skresnext": (of_timm("skresnext50_32x4d", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm res2net": (of_timm("res2net50_14w_8s", layers=(2, 1, 1, 1)), (3, 49, 64)),
    "timm res2next": (of_timm("res2next50", layers=(1, 2, 1, 1)), (3, 49, 64)),
    "timm resnest": (of_timm("resnest14d"), (3, 49, 64)),
    "timm resnest of groups": (of_timm("resnest50d_4s2x40d", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm resnest of one part": (of_timm("resnest50d_1s4x24d", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm ese_vovnet": (of_timm("ese_vovnet39b", **NARROW), (3, 49, 64)),
    "timm ese_vovnet dw": (of_timm("ese_vovnet19b_slim_dw"), (3, 49, 64)),
    "timm eca_vovnet": (of_timm("eca_vovnet39b", **NARROW), (3, 49, 64)),
    "timm vovnet": (of_timm("vovnet39a", **NARROW), (3, 49, 64)),
    "senet basic": (of_timm("legacy_seresnet18", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "senet bottleneck": (of_timm("legacy_seresnet50", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "senet of groups": (of_timm("legacy_seresnext26_32x4d", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "senet 154": (of_timm("legacy_senet154", layers=(1, 1, 1, 1)), (3, 49, 64)),
    "timm mobilenetv2": (of_timm("mobilenetv2_035"), (3, 65, 71)),
    "timm mnasnet": (of_timm("mnasnet_050"), (3, 65, 71)),
    "timm semnasnet": (of_timm("semnasnet_075"), (3, 65, 71)),
    "timm spnasnet": (of_timm("spnasnet_100"), (3, 65, 71)),
    "timm fbnetc": (of_timm("fbnetc_100"), (3, 65, 71)),
    "timm tinynet": (of_timm("tinynet_e"), (3, 65, 71)),
    "timm efficientnet_es": (of_timm("efficientnet_es"), (3, 65, 71)),
    "timm mobilenetv3": (of_timm("mobilenetv3_small_050"), (3, 65, 71)),
    "timm mobilenetv3 large": (of_timm("mobilenetv3_large_075"), (3, 65, 71)),
    "tf mobilenetv3": (of_timm("tf_mobilenetv3_small_075"), (3, 65, 70), None, "tf-mobile"),
    "timm efficientnet pruned": (of_timm("efficientnet_b1_pruned"), (3, 65, 70), None, "tf-mobile"),
    "tf efficientnet": (of_timm("tf_efficientnet_b0"), (3, 65, 70), None, "tf-mobile"),
    "torchvision mnasnet": (lambda: torchvision.models.mnasnet0_5(num_classes=5), (3, 65, 71)),
    "timm regnetx": (of_timm("regnetx_002"), (3, 49, 64)),
    "timm regnety": (of_timm("regnety_002"), (3, 49, 64)),
    "timm repvgg": (of_timm("repvgg_a0"), (3, 49, 64)),
    "timm convnext": (of_timm("convnext_atto"), (3, 65, 71)),
    "transformers resnet": (of_transformers("ResNet", layer_type="basic", **SMALL), (3, 49, 64)),
    "transformers resnet bottleneck": (of_transformers("ResNet", **SMALL), (3, 49, 64)),
    "transformers regnet x": (of_transformers("RegNet", layer_type="x", groups_width=8, **SMALL), (3, 49, 64)),
    "transformers regnet y": (of_transformers("RegNet", layer_type="y", groups_width=8, **SMALL), (3, 49, 64)),
    "transformers mobilenet v1": (of_transformers("MobileNetV1", depth_multiplier=0.25), (3, 65, 71)),
    "transformers mobilenet v2": (of_transformers("MobileNetV2", depth_multiplier=0.35), (3, 65, 71)),
    "transformers convnext": (of_transformers("ConvNext", hidden_sizes=[8, 16, 24, 32], **STEPS), (3, 65, 71)),
    "timm hardcorenas": (of_timm("hardcorenas_a"), (3, 65, 71)),
    "timm lcnet": (of_timm("lcnet_035"), (3, 65, 71)),
    "timm mobilenetv4": (of_timm("mobilenetv4_conv_small_035"), (3, 65, 71)),
    "timm mobilenetv4 medium": (
        lambda: timm.models.mobilenetv3._gen_mobilenet_v4("mobilenetv4_conv_medium", 0.25, num_classes=7), (3, 65, 71)),
    "timm ghostnet": (of_timm("ghostnet_050"), (3, 65, 71)),
    "timm dla": (of_timm("dla46_c"), (3, 64, 96)),
    "timm dla102": (of_timm("dla102", channels=[8, 8, 16, 16, 24, 32]), (3, 64, 96)),
    "timm convnextv2": (of_timm("convnextv2_atto", dims=(8, 16, 24, 32), depths=(1, 2, 1, 1)), (3, 65, 71)),
    "timm convnext ols": (of_timm("convnext_atto_ols", dims=(8, 16, 24, 32), depths=(1, 2, 1, 1)), (3, 65, 71)),
    "transformers convnextv2": (of_transformers("ConvNextV2", hidden_sizes=[8, 16, 24, 32], **STEPS), (3, 65, 71)),
    "transformers efficientnet": (
        of_transformers("EfficientNet", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280), (3, 65, 71)),
    "lenet of 28": (lambda: LeNet(1, 256), (1, 28, 28)),
    "lenet of colours": (lambda: LeNet(3, 400), (3, 32, 32)),
    "mlp with norms": (lambda: nn.Sequential(nn.Flatten(), *norm_layers()), (1, 28, 28)),
    "mnist": (Mnist, (1, 28, 28)),
}


def case(make, size, rename=None, arch=None):
    model = precise(make()).double().eval()
    rename = rename or (lambda name: name)
    counter = lambda name: name.endswith("num_batches_tracked")
    state = {name: t if counter(name) else drawn(rename(name), tuple(t.shape)) for name, t in model.state_dict().items()}
    with torch.no_grad():
        for name, t in model.state_dict().items():
            t.copy_(state[name])
    x = drawn("input", (1, *size)).requires_grad_(True)
    logits = model(x)
    logits = getattr(logits, "logits", logits)[0]
    k = int(logits.argmax())
    gradient = torch.autograd.grad(logits[k], x)[0].flatten()
    at = torch.arange(256) * 7919 % gradient.numel()
    return {
        "arch": arch,
        "tensors": {rename(name): list(t.shape) for name, t in state.items() if not counter(name)},
        "input": list(size),
        "logits": logits.tolist(),
        "class": k,
        "gradient": gradient[at].tolist(),
        "norm": gradient.norm().item(),
    }


def main():
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in sys.argv[1:] or CASES:
        found[name] = case(*CASES[name])
        print(f"{name}: logits {found[name]['logits'][:2]}, gradient {found[name]['norm']:.3e}", flush=True)
        known = (name for name in CASES if name in found)
        lines = (f"{json.dumps(name)}: {json.dumps(found[name], separators=(',', ':'))}" for name in known)
        OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
