#!/usr/bin/env python3
"""Values and gradients of single operations by PyTorch in double precision, for tests/ops_golden.rs.

    python -m venv v && v/bin/pip install torch numpy
    v/bin/python ops.py ops.safetensors

Inputs, weights and signals are numbers that the test makes by the same rule (`numbers`); for each case the file has
`CASE.SHAPE.y`, the output, and `CASE.SHAPE.g`, the gradient of its product with the signal. A case is one function of one
picture, where operands with other shapes are made of the picture.
"""
import json
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F


def numbers(salt, *shape):
    n = int(np.prod(shape))
    return torch.tensor([((i * 37 + salt * 53 + 11) % 101 - 50) / 32 for i in range(n)], dtype=torch.float64).reshape(shape)


def mean(x):
    return x.mean((2, 3), keepdim=True)


def shuffle(x, groups):
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def layer_norm(x):
    c = x.shape[1]
    y = F.layer_norm(x.permute(0, 2, 3, 1), (c,), numbers(3, c), numbers(4, c), 1e-6)
    return y.permute(0, 3, 1, 2)


def weight(k, c, *kernel):
    return numbers(3, k, c, *kernel), numbers(4, k)


CASES = {
    "mul_channels": lambda x: x * mean(x),
    "mul_positions": lambda x: x * x[:, :1],
    "mul_equal": lambda x: x * x.relu(),
    "mul_both": lambda x: x[:, :1] * mean(x),
    "mul_one": lambda x: x * mean(x)[:, :1],
    "add_channels": lambda x: x + mean(x),
    "add_positions": lambda x: x[:, :1] + x,
    "add_both": lambda x: mean(x) + x[:, :1],
    "divide_channels": lambda x: x / (mean(x) * mean(x) + 0.5),
    "divide_positions": lambda x: x[:, :1] / (x.relu() + 0.25),
    "softmax": lambda x: x.softmax(1),
    "softmax_groups": lambda x: torch.cat([part.softmax(1) for part in x.split(3 if x.shape[1] % 3 == 0 else 1, 1)], 1),
    "reduce_channels": lambda x: x.sum(1, keepdim=True),
    "reduce_positions": lambda x: x.mean((2, 3), keepdim=True),
    "reduce_everything": lambda x: x.mean((1, 2, 3), keepdim=True),
    "power_positions": lambda x: (x.relu() + 0.5) ** x[:, :1],
    "power_channels": lambda x: (mean(x) * mean(x) + 0.25) ** x,
    "norm_channels": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "norm_positions": lambda x: torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True),
    "norm_everything": lambda x: torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True),
    "norm_of_zeros": lambda x: torch.linalg.vector_norm((x - 1.25).relu(), dim=1, keepdim=True),
    "channel_max": lambda x: x.max(1, keepdim=True)[0],
    "lrn": lambda x: F.local_response_norm(x, 5, 0.7),
    "lrn_even": lambda x: F.local_response_norm(x, 4, 0.3, 0.5, 2.0),
    "lrn_one": lambda x: F.local_response_norm(x, 1, 0.3, 1.3, 0.5),
    "lrn_of_all": lambda x: F.local_response_norm(x, 40, 9.0, 1.0, 1.0),
    "affine": lambda x: x * numbers(3, x.shape[1], 1, 1) + numbers(4, x.shape[1], 1, 1),
    "affine_scalars": lambda x: x * 0.75 - 0.5,
    "affine_elements": lambda x: x * 0.75 + numbers(4, *x.shape[1:]),
    "slice": lambda x: x[:, x.shape[1] // 2 :],
    "split": lambda x: torch.cat(list(torch.split(x, 1, 1))[::-1], 1),
    "shuffle": lambda x: shuffle(x, 3 if x.shape[1] % 3 == 0 else 1),
    "pad": lambda x: F.pad(x, (2, 0, 1, 3)),
    "crop": lambda x: F.pad(F.pad(x, (1, 2, 2, 1)), (-1, 1, 1, -2)),
    "global_max": lambda x: F.adaptive_max_pool2d(x, 1),
    "resize_nearest": lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"),
    "resize_nearest_smaller": lambda x: F.interpolate(x, size=(2, 4), mode="nearest"),
    "resize_linear": lambda x: F.interpolate(x, size=(4, 7), mode="bilinear"),
    "resize_linear_smaller": lambda x: F.interpolate(x, size=(2, 2), mode="bilinear"),
    "resize_aligned": lambda x: F.interpolate(x, size=(5, 2), mode="bilinear", align_corners=True),
    "layer_norm": layer_norm,
    "layer_norm_all": lambda x: F.layer_norm(x, x.shape[1:], eps=1e-3),
    "group_norm": lambda x: F.group_norm(x, 3 if x.shape[1] % 3 == 0 else 1, numbers(3, x.shape[1]), numbers(4, x.shape[1])),
    "instance_norm": lambda x: F.group_norm(x, x.shape[1], eps=1e-2),
    "avg_pool_1x1": lambda x: F.avg_pool2d(x, 1),
    "avg_pool_flags": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=True),
    "avg_pool_inside": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "conv_asymmetric": lambda x: F.conv2d(F.pad(x, (2, 0, 1, 3)), *weight(4, x.shape[1], 2, 3), dilation=(1, 1)),
    "conv_dilated": lambda x: F.conv2d(x, *weight(5, x.shape[1], 3, 3), padding=2, dilation=2, stride=(2, 1)),
    "conv_grouped": lambda x: F.conv2d(x, *weight(2 * x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1]),
    "linear_last": lambda x: F.linear(x.permute(0, 2, 3, 1), *weight(7, x.shape[1])).permute(0, 3, 1, 2),
    "pool_conv_head": lambda x: F.conv2d(F.adaptive_avg_pool2d(x, 1), *weight(7, x.shape[1], 1, 1)),
}

SHAPES = [(5, 6, 3, 5), (1, 9, 5, 3), (1, 1, 3, 5), (5, 3, 1, 1), (1, 17, 3, 3)]


def main():
    tensors = {}
    for name, f in CASES.items():
        for shape in SHAPES:
            x = numbers(1, *shape).requires_grad_(True)
            y = f(x)
            up = numbers(2, *y.shape)
            (g,) = torch.autograd.grad((y * up).sum(), x)
            key = f"{name}.{'x'.join(map(str, shape))}"
            tensors[f"{key}.y"] = y.detach().contiguous().numpy()
            tensors[f"{key}.g"] = g.contiguous().numpy()
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f8").tobytes()
        header[name] = {"dtype": "F64", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(sys.argv[1], "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


main()
