// What is taken for granted of a device: which lane holds which number of a product, how numbers are rounded on the way to
// the tensor cores, and how their sums are.
#include "mma.cuh"

// One product of one warp: `a` four words a lane, `b` two, `c` and the result four numbers.
KERNEL(fragments, 32, 1, FragmentArgs) {
    const int lane = threadIdx.x;
    u32 x[4], y[2];
    float d[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[i] = a.a[lane * 4 + i];
        d[i] = a.c[lane * 4 + i];
    }
    y[0] = a.b[lane * 2];
    y[1] = a.b[lane * 2 + 1];
    if (a.kind == 0) {
        mma_tf32(d, x, y);
    } else if (a.kind == 1) {
        mma_f16(d, x, y);
    } else {
        mma_bf16(d, x, y);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) a.out[lane * 4 + i] = d[i];
}

// Each of `n` numbers as TF32, and with its neighbour as two halves and two bfloat16s: three words a number.
KERNEL(conversions, 128, 1, ConversionArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.n) return;
    const float v = a.x[i], next = a.x[(i + 1) % a.n];
    a.out[3 * i] = to_tf32(v);
    a.out[3 * i + 1] = pack_f16(v, next);
    a.out[3 * i + 2] = pack_bf16(v, next);
}

// A sum of `steps` products of eight terms: all of `a` are one number, all of `b` another.
KERNEL(long_sum, 32, 1, LongSumArgs) {
    const u32 x = to_tf32(a.a), y = to_tf32(a.b);
    const u32 left[4] = {x, x, x, x}, right[2] = {y, y};
    float d[4] = {};
    for (int s = 0; s < a.steps; ++s) mma_tf32(d, left, right);
    a.out[threadIdx.x] = d[0];
}
