// Functions of one, two or three numbers, element by element.
#include "dialect.cuh"

#define POINTWISE(name, expression)                                        \
    KERNEL(name, 128, 8, PointwiseArgs) {                                  \
        const int i = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y; \
        if (i >= a.count) return;                                          \
        const float x = a.x[(i64)n * a.x_stride + place(a, 0, i)];                      \
        a.out[(i64)n * a.out_stride + i] = (expression);                   \
    }

#define SECOND a.y[(i64)n * a.y_stride + place(a, 1, i)]
#define THIRD a.z[(i64)n * a.z_stride + place(a, 2, i)]

// Where the number of operand `k` for element `i` lies: operands with fewer channels or one position are repeated.
DEVICE int place(const PointwiseArgs& a, int k, int i) {
    const int group = a.group[k];
    if (group == 0) return i;
    return (a.positions[k] ? i / a.channels * (a.channels / group) : 0) + i % a.channels / group;
}

DEVICE float clamped(float x, float low, float high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// r / (z + delta sign(z)), sign(0) = 1; zero where that divides by zero, NaN where it divides by infinity.
DEVICE float divided(float r, float z, float delta) {
    z = z < 0.0f ? z - delta : z + delta;
    z = z - z == 0.0f ? z : z - z;
    return z == 0.0f ? 0.0f : r / z;
}

DEVICE float ratio_or(float x, float y, float other, float threshold) {
    return y < threshold && y > -threshold ? other : x / y;
}

POINTWISE(add, x + SECOND)
POINTWISE(mul, x * SECOND)
POINTWISE(sub, x - SECOND)
POINTWISE(divide, divided(x, SECOND, (float)a.p[0]))
POINTWISE(quotient, x / SECOND)
POINTWISE(ratio, ratio_or(x, SECOND, THIRD, (float)a.p[0]))
POINTWISE(scale, (float)a.p[0] * x)
POINTWISE(clamp, clamped(x, (float)a.p[0], (float)a.p[1]))
POINTWISE(gate,
          a.gate[(i64)n * a.gate_stride + i / a.channels * ((a.channels + 31) / 32) + i % a.channels / 32] >>
                      (i % a.channels % 32) & 1
              ? x
              : 0.0f)

// Numbers that are the same for all copies.
KERNEL(fill, 128, 8, PointwiseArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.count) a.out[(i64)blockIdx.y * a.out_stride + i] = a.x[i];
}

// Bits of numbers strictly inside a range: a warp makes a word.
KERNEL(inside, 128, 8, PointwiseArgs) {
    const int words = (a.channels + 31) / 32, n = blockIdx.y;
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    const int c = index % (words * 32), pixel = index / (words * 32);
    const bool there = c < a.channels && pixel < a.count / a.channels;
    const float x = there ? a.x[(i64)n * a.x_stride + pixel * a.channels + c] : 0.0f;
    const u32 bits = ballot(there && x > (float)a.p[0] && x < (float)a.p[1]);
    if (c % 32 == 0 && pixel < a.count / a.channels) {
        a.bits[(i64)n * a.bits_stride + pixel * words + c / 32] = bits;
    }
}
