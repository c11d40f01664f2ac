"""Correctly rounded values of the functions of src/tensor/functions.rs: table.txt, one line a value.

A line is: function, f32 or f64, the bits of x, the bits of the value nearest to the function of x. Needs mpmath.
"""
import random
import struct
from pathlib import Path

import mpmath as mp

mp.mp.prec = 2400

FUNCTIONS = {
    "exp": mp.exp,
    "expm1": mp.expm1,
    "log": mp.log,
    "log1p": mp.log1p,
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "sigmoid_slope": lambda x: mp.exp(-abs(x)) / (1 + mp.exp(-abs(x))) ** 2,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "normal": mp.ncdf,
    "bell": lambda x: mp.exp(-x * x / 2),
}
FORMATS = {"f32": ("<f", "<I", 24, -149, 128), "f64": ("<d", "<Q", 53, -1074, 1024)}


def bits(x, width):
    number, integer, *_ = FORMATS[width]
    return struct.unpack(integer, struct.pack(number, x))[0]


def rounded(y, width):
    """The bits of the number nearest to y, ties to even."""
    _, _, precision, lowest, highest = FORMATS[width]
    sign = 1 << (31 if width == "f32" else 63) if y < 0 else 0
    y = abs(y)
    if y == 0:
        return sign
    exponent = max(mp.frexp(y)[1] - precision, lowest)
    whole = int(mp.nint(y * mp.mpf(2) ** -exponent))
    value = mp.mpf(whole) * mp.mpf(2) ** exponent
    if value >= mp.mpf(2) ** highest:
        return sign | bits(float("inf"), width)
    return sign | bits(float(value), width)


def points(name, width):
    """Where the function is interesting, and draws over its whole range."""
    draw = random.Random(name + width)
    _, _, _, lowest, highest = FORMATS[width]
    end = highest * 0.6931471805599453
    out = [0.0, 1.0, 0.5, 0.34657, 0.34658, 1.5, 2.0, 2.0**lowest, 3 * 2.0**lowest, 2.0 ** (lowest + 30), 1e-20, 1e-5]
    out += [2.0 ** draw.uniform(-40, 7) for _ in range(16)] + [draw.uniform(0, end) for _ in range(6)]
    out += [end * 0.9999, end * 1.0001, end + 16, end + 21, 37.5, 38.4, 12.9, 13.9, 14.2]
    if name in ("log", "log1p"):
        out += [2.0 ** draw.uniform(lowest, highest - 0.01) for _ in range(16)] + [0.70710678, 1.41421356, 1 + 2.0**-20]
    out += [-x for x in out]
    if name == "log":
        out = [x for x in out if x > 0]
    if name == "log1p":
        out = [x if x > -1 else -1 / (1 - x) for x in out]
    out = [struct.unpack(FORMATS[width][0], struct.pack(FORMATS[width][0], x))[0] for x in out]
    return sorted(set(x for x in out if name != "log1p" or x > -1))


def main():
    lines = []
    for name, f in FUNCTIONS.items():
        for width in FORMATS:
            digits = 8 if width == "f32" else 16
            for x in points(name, width):
                if abs(x) > 1e4 and name in ("exp", "expm1", "softplus", "bell", "normal", "sigmoid", "sigmoid_slope", "tanh"):
                    continue
                lines.append(f"{name} {width} {bits(x, width):0{digits}x} {rounded(f(mp.mpf(x)), width):0{digits}x}\n")
    Path(__file__).with_name("table.txt").write_text("".join(lines))


main()
