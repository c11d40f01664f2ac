#!/usr/bin/env python3
"""Insertion, deletion, fidelity and sensitivity-n once more, in plain double precision, from the same inputs and maps.

    cargo run --release --example metrics -- MODEL DATA 20 target/metrics
    scripts/recompute_metrics.py MODEL target/metrics

MODEL is the safetensors file of a ResNet for CIFAR pictures (ResNet-20 with parameter-free shortcuts; any depth). The net,
the metrics and the generator of random subsets are written down here again, straight from their definitions; nothing but
files comes from the library. Fails when any number is more than 1e-3 off. Needs numpy.
"""
import hashlib
import json
import pathlib
import sys

import numpy as np

STEP, N, SUBSETS, SEED, BLUR = 16, 64, 64, 1, 5.0
NAMES = ["insertion", "deletion", "fidelity", "sensitivity_n"]
TOLERANCE = 1e-3
TOGETHER = 64


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    kinds = {"F32": np.float32, "F64": np.float64, "F16": np.float16}
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + at for at in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"]).astype(np.float64)
    return tensors


class ResNet:
    """ResNet for small pictures (He 2016, section 4.2), option A shortcuts, in evaluation mode."""

    def __init__(self, path):
        self.t = read_safetensors(path)

    def conv_norm(self, x, conv, norm, stride):
        w = self.t[f"{conv}.weight"]
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
        y = np.tensordot(windows, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        mean, var, scale, shift = (
            self.t[f"{norm}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (y - mean) / np.sqrt(var + 1e-5) * scale + shift

    def logits(self, x):
        x = np.maximum(self.conv_norm(x, "conv1", "bn1", 1), 0)
        for layer in (1, 2, 3):
            block = 0
            while f"layer{layer}.{block}.conv1.weight" in self.t:
                name = f"layer{layer}.{block}"
                stride = 2 if layer > 1 and block == 0 else 1
                y = np.maximum(self.conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride), 0)
                y = self.conv_norm(y, f"{name}.conv2", f"{name}.bn2", 1)
                if stride == 2:
                    pad = (y.shape[1] - x.shape[1]) // 2
                    x = np.pad(x[:, :, ::2, ::2], ((0, 0), (pad, pad), (0, 0), (0, 0)))
                x = np.maximum(x + y, 0)
                block += 1
        return x.mean((2, 3)) @ self.t["linear.weight"].T + self.t["linear.bias"]

    def all_logits(self, pictures):
        return np.concatenate([self.logits(np.stack(pictures[i : i + TOGETHER])) for i in range(0, len(pictures), TOGETHER)])


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011) of many counters at once."""
    c, k, low = [np.asarray(w, np.uint64) for w in counter], [int(w) for w in key], np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [p1 >> np.uint64(32) ^ c[1] ^ np.uint64(k[0]), p1 & low, p0 >> np.uint64(32) ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, -1)


def uniforms(seed, image, sample, count):
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    constant = [np.full_like(blocks, w) for w in (sample, image & 0xFFFFFFFF, image >> 32)]
    words = philox([blocks, *constant], [seed & 0xFFFFFFFF, seed >> 32]).reshape(-1)[:count]
    return (words >> np.uint64(8) | np.uint64(1)).astype(np.float64) / 2**24


def seed_of(metric):
    """The metric's name, by FNV-1a, mixed into the seed."""
    mixed = 0xCBF29CE484222325
    for byte in metric.encode():
        mixed = (mixed ^ byte) * 0x100000001B3 % 2**64
    return SEED ^ mixed


def blurred(x):
    radius = int(np.ceil(4 * BLUR))
    kernel = np.exp(-np.arange(-radius, radius + 1) ** 2 / (2 * BLUR**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, pad, mode="edge"), 2 * radius + 1, axis=axis)
        x = windows @ kernel
    return x


def walk(net, start, end, order, target):
    """Area under the target's probability while pixels of `start` become those of `end`."""
    pictures, now = [start.copy()], start.copy()
    for i in range(0, len(order), STEP):
        y, x = np.unravel_index(order[i : i + STEP], start.shape[1:])
        now[:, y, x] = end[:, y, x]
        pictures.append(now.copy())
    heights = np.exp(log_softmax(net.all_logits(pictures))[:, target])
    return ((heights[1:] + heights[:-1]) / 2).mean()


def fidelity(net, x, map_, target):
    e = np.abs(map_).max(0)
    e = np.minimum(e, np.percentile(e, 95))
    e = (e - e.min()) / (e.max() - e.min()) if e.max() > e.min() else np.zeros_like(e)
    logs = log_softmax(net.all_logits([e * x, e.mean() * x]))[:, target]
    return logs[1] - logs[0]


def sensitivity_n(net, x, map_, target):
    key = int.from_bytes(hashlib.sha256(x.astype("<f4").tobytes()).digest()[:8], "big")
    sums, pictures = [], []
    for sample in range(SUBSETS):
        draws = uniforms(seed_of("sensitivity_n"), key, sample, x[0].size)
        chosen = np.unravel_index(np.argsort(draws, kind="stable")[:N], x.shape[1:])
        moved = x.copy()
        moved[:, chosen[0], chosen[1]] = 0
        pictures.append(moved)
        sums.append(map_[:, chosen[0], chosen[1]].sum())
    logits = net.all_logits([x, *pictures])[:, target]
    return np.corrcoef(sums, logits[0] - logits[1:])[0, 1]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    net, folder = ResNet(sys.argv[1]), pathlib.Path(sys.argv[2])
    inputs, maps, targets, theirs = (np.load(folder / f"{n}.npy") for n in ("inputs", "maps", "targets", "values"))
    ours = np.zeros_like(theirs)
    for i, (x, map_, target) in enumerate(zip(inputs.astype(np.float64), maps.astype(np.float64), targets.astype(int))):
        order = np.argsort(-map_.sum(0).reshape(-1), kind="stable")
        ours[i] = [
            walk(net, blurred(x), x, order, target),
            walk(net, x, np.zeros_like(x), order, target),
            fidelity(net, x, map_, target),
            sensitivity_n(net, x, map_, target),
        ]
    print(f"{len(ours)} pictures\n{'metric':14} {'library mean':>13} {'here mean':>13} {'largest difference':>19}")
    worst = np.abs(ours - theirs).max(0)
    for k, name in enumerate(NAMES):
        print(f"{name:14} {theirs[:, k].mean():13.6f} {ours[:, k].mean():13.6f} {worst[k]:19.2e}")
    if not (worst <= TOLERANCE).all():
        sys.exit(f"more than {TOLERANCE} apart")


if __name__ == "__main__":
    main()
