#!/usr/bin/env python3
"""What Python costs: beside the program, with two threads, and until Ctrl-C is heard.

    python bindings/python/benches/overhead.py                    all three, on a quiet machine of two cores or more
    python bindings/python/benches/overhead.py --maps 40 --rounds 2 --only program

What is compared
    program    Grad-CAM of the embedded net on the same pictures, one thread, maps written as `.npy`: `Model.explain` of the
               list of paths and `numpy.save` of each map, beside the package's `verilume explain --format npy`. Both are a new
               process of the same interpreter, from its start to its end. Wanted: at most 1.05 times the program's time.
    threads    the same maps with `threads=1` by two threads of Python, half of them each, beside one thread. Wanted: 1.7
               times as fast.
    interrupt  SmoothGrad on VGG-16 (drawn weights, 224×224, all threads): from the signal to KeyboardInterrupt. Wanted: 0.3 s.

The sides take turns; what is shown are medians over the rounds, and the ratio of each round: median, least and greatest; then
the median ratio of the CPU time, which other processes disturb less. The first round counts for nothing: it fills caches. Needs
the package, and Linux for `interrupt`.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np

import verilume

EXPLAIN = """
import pathlib, sys, numpy, verilume
folder, out = map(pathlib.Path, sys.argv[1:])
out.mkdir()
model = verilume.load(threads=1, device="cpu")
for e in model.explain(sorted(folder.iterdir()), "grad_cam", progress=False):
    numpy.save(out / (pathlib.Path(e.input).stem + ".grad_cam.npy"), e.map)
"""
INTERRUPTED = """
import signal, sys, time, verilume
model = verilume.load(sys.argv[1], device="cpu")
model.explain(sys.argv[2], "gradient")
for _ in range(int(sys.argv[3])):
    print("ready", flush=True)
    try:
        model.explain(sys.argv[2], "smoothgrad:n=100000")
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
"""


def pictures(folder: pathlib.Path, n: int) -> list[pathlib.Path]:
    """``n`` pictures of 224×224: smooth noise, each another."""
    made = []
    folder.mkdir()
    for at in range(n):
        coarse = np.random.default_rng(at).integers(0, 256, (14, 14, 3), dtype=np.uint8)
        path = folder / f"{at:05}.png"
        path.write_bytes(verilume._native.png(np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1))))
        made.append(path)
    return made


# Seconds on the clock and of the CPU.
Time = tuple[float, float]


def taken(work: Callable[[], object]) -> Time:
    """What work takes, with the processes that it ends."""
    before = os.times()
    start = time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def process(*words: object) -> Time:
    """What a process takes."""
    line = [sys.executable, *map(str, words)]
    return taken(lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL))


def show(name: str, sides: tuple[str, str], rounds: list[tuple[Time, Time]], wanted: str) -> None:
    """One line of the table: the first side over the second."""
    middle = ", ".join(f"{side} {statistics.median(r[at][0] for r in rounds):.2f} s" for at, side in enumerate(sides))
    wall, cpu = ([a[kind] / b[kind] for a, b in rounds] for kind in (0, 1))
    ratio = f"{statistics.median(wall):.3f} ({min(wall):.3f} – {max(wall):.3f})"
    print(f"{name:<10} {middle:<40} {ratio:<24} {wanted:<7} CPU {statistics.median(cpu):.3f}", flush=True)


def program(folder: pathlib.Path, n: int, rounds: int) -> None:
    """Python beside the program."""
    inputs = folder / "pictures"
    pictures(inputs, n)
    options = ["-m", "grad_cam", "--format", "npy", "--threads", "1", "--device", "cpu", "--quiet"]
    times = []
    for turn in range(rounds + 1):
        ours, theirs = folder / f"ours-{turn}", folder / f"theirs-{turn}"
        times.append((process("-c", EXPLAIN, inputs, ours), process("-m", "verilume", "explain", inputs, *options, "-o", theirs)))
        names = sorted(path.name for path in ours.iterdir())
        if len(names) != n or any(not np.array_equal(np.load(ours / k), np.load(theirs / k)) for k in names):
            raise SystemExit("the two sides do not write the same maps")
        shutil.rmtree(ours)
        shutil.rmtree(theirs)
    show("program", ("python", "program"), times[1:], "≤ 1.05")


def threads(folder: pathlib.Path, n: int, rounds: int) -> None:
    """Two threads beside one."""
    each = pictures(folder / "for-threads", n)
    model = verilume.load(threads=1, device="cpu")

    def run(parts: list[list[pathlib.Path]]) -> None:
        workers = [threading.Thread(target=lambda part=part: model.explain(part, "grad_cam", progress=False)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    times = [(taken(lambda: run([each])), taken(lambda: run([each[::2], each[1::2]]))) for _ in range(rounds + 1)]
    show("threads", ("one", "two"), times[1:], "≥ 1.7")


def vgg16(path: pathlib.Path) -> None:
    """Drawn weights in half precision, with torchvision's names."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    at, width = 0, 3
    for what in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        if what:
            shapes[f"features.{at}.weight"], shapes[f"features.{at}.bias"] = (what, width, 3, 3), (what,)
            width = what
        at += 2 if what else 1
    for at, (o, i) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        shapes[f"classifier.{at}.weight"], shapes[f"classifier.{at}.bias"] = (o, i), (o,)
    header, start = {}, 0
    for name, shape in shapes.items():
        end = start + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            scale = np.float32((2 / float(np.prod(shape[1:]))) ** 0.5)
            file.write((rng.standard_normal(shape, dtype=np.float32) * scale).astype(np.float16).tobytes())


def interrupt(folder: pathlib.Path, _: int, rounds: int) -> None:
    """From the signal to the exception."""
    vgg16(folder / "vgg16.safetensors")
    picture = pictures(folder / "for-interrupt", 1)[0]
    # A shell's background jobs ignore the signal, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = [sys.executable, "-c", INTERRUPTED, str(folder / "vgg16.safetensors"), str(picture), str(2 * rounds)]
    waits = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(2 * rounds):
            if child.stdout.readline() != "ready\n":
                raise SystemExit("the child did not get ready")
            time.sleep(0.7 + random.random())
            sent = time.monotonic()
            os.kill(child.pid, signal.SIGINT)
            waits.append(float(child.stdout.readline()) - sent)
    print(f"{'interrupt':<10} {statistics.median(waits):.3f} s, {max(waits):.3f} s at most of {len(waits)}{'':<27} ≤ 0.3 s")


def main() -> None:
    """Runs what is asked for."""
    known = {"program": program, "threads": threads, "interrupt": interrupt}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=1000, help="pictures of a turn (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (5)")
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), help="what to measure")
    args = parser.parse_args()
    print(f"verilume {verilume.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.maps} maps")
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="verilume-") as folder:
            known[name](pathlib.Path(folder), args.maps, args.rounds)


if __name__ == "__main__":
    main()
