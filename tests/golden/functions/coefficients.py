"""The coefficients of src/tensor/functions.rs and kernels/functions.cuh: polynomials through Chebyshev nodes.

Needs mpmath. Prints each list for f32 and f64, and the relative error that it adds to the function.
"""
import struct

import mpmath as mp

mp.mp.dps = 60


def polynomial(f, low, high, degree):
    """Coefficients, the constant first, of the polynomial that meets f in the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    matrix, values = mp.matrix(n, n), mp.matrix(n, 1)
    for i, x in enumerate(nodes):
        values[i] = f(x)
        for j in range(n):
            matrix[i, j] = x**j
    return list(mp.lu_solve(matrix, values))


def evaluate(coefficients, x):
    y = mp.mpf(0)
    for c in reversed(coefficients):
        y = y * x + c
    return y


def error(f, coefficients, low, high, weight):
    points = [low + (high - low) * k / 500 for k in range(501)]
    return max(abs((evaluate(coefficients, x) - f(x)) * weight(x, f(x))) for x in points)


def exponential(r):
    """(e^r - 1 - r) / r^2."""
    return mp.mpf(1) / 2 + r / 6 if abs(r) < mp.mpf(10) ** -25 else (mp.expm1(r) - r) / r**2


def logarithm(z):
    """(2 atanh(s) / s - 2) / z with s^2 = z, where log((1 + s) / (1 - s)) = 2 atanh(s)."""
    s = mp.sqrt(z)
    return mp.mpf(2) / 3 if z == 0 else (2 * mp.atanh(s) / s - 2) / z


HALF_WAY = mp.mpf(4)


def normal(t):
    """e^(x^2/2) P(Z > x) / u with u = 4 / (4 + x) and t = 2 u - 1, for x >= 0."""
    u = (t + 1) / 2
    x = HALF_WAY / u - HALF_WAY
    return mp.exp(x * x / 2) * mp.erfc(x / mp.sqrt(2)) / 2 / u


def single(x):
    return struct.unpack("f", struct.pack("f", float(x)))[0]


def show(name, coefficients, width, added):
    print(f"{name} f{width}, adds {mp.nstr(added, 2)}:")
    for c in coefficients:
        # The shortest decimal that rounds to the number.
        digits = next(d for d in range(1, 18) if (single if width == 32 else float)(f"{float(c):.{d}e}") == (single(c) if width == 32 else float(c)))
        print(f"    {float(c):.{digits}e},")


def main():
    half = mp.mpf("0.347")
    largest = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.001")
    for width, degrees, end in [(32, (5, 2, 9), mp.mpf("14.5")), (64, (10, 6, 23), mp.mpf("38.7"))]:
        c = polynomial(exponential, -half, half, degrees[0])
        show("EXP", c, width, error(exponential, c, -half, half, lambda x, y: abs(x)))
        c = polynomial(logarithm, mp.mpf(0), largest, degrees[1])
        show("LOG", c, width, error(logarithm, c, mp.mpf(0), largest, lambda x, y: x / 2))
        low = 2 * HALF_WAY / (HALF_WAY + end) - 1
        c = polynomial(normal, low, mp.mpf(1), degrees[2])
        show("NORMAL", c, width, error(normal, c, low, mp.mpf(1), lambda x, y: 1 / y))


main()
