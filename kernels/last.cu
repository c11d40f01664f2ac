// What copies leave in their picture's map: running statistics in double precision, and the first layer's adjoint folded
// into them without being stored.
#include "dialect.cuh"

// Takes one more number of a picture in (variance: Welford 1962).
DEVICE void fold(const SumArgs& s, const CopyArgs& copy, double g, double& first, double& second) {
    if (s.statistic == 0) {
        first += copy.weight * g;
    } else if (s.statistic == 1) {
        first += copy.weight * g * g;
    } else if (s.statistic == 2) {
        const double delta = g - first;
        first += delta / copy.count;
        second += delta * (g - first);
    } else {
        // The largest and the smallest; a NaN stays.
        if (copy.count == 1 || g > first || g != g) first = g;
        if (copy.count == 1 || g < second || g != g) second = g;
    }
}

// Whether a statistic is computed from two running numbers.
DEVICE bool has_two(const SumArgs& s) { return s.statistic >= 2; }

KERNEL(aggregate, 128, 8, AggregateArgs) {
    const int e = blockIdx.x * blockDim.x + threadIdx.x;
    const int size = a.channels * a.plane;
    if (e >= size) return;
    const int c = e % a.channels, pixel = e / a.channels;
    const i64 at = (i64)c * a.plane + pixel;
    double first = 0.0, second = 0.0;
    for (int n = 0; n < a.sum.count; ++n) {
        const CopyArgs& copy = a.sum.copies[n];
        const i64 place = (i64)copy.item * size + at;
        if (n == 0 || a.sum.copies[n - 1].item != copy.item) {
            first = a.sum.sums[place];
            second = has_two(a.sum) ? a.sum.squares[place] : 0.0;
        }
        fold(a.sum, copy, (double)a.x[(i64)n * a.x_stride + e], first, second);
        if (n + 1 == a.sum.count || a.sum.copies[n + 1].item != copy.item) {
            a.sum.sums[place] = first;
            if (has_two(a.sum)) a.sum.squares[place] = second;
        }
    }
}

// The first layer's adjoint at one pixel a warp, for at most four channels: lanes share the signal's channels.
KERNEL(last, 128, 8, LastArgs) {
    const int lane = threadIdx.x & 31;
    const int plane = a.out_extent[0] * a.out_extent[1];
    const int pixel = blockIdx.x * (blockDim.x / 32) + (threadIdx.x >> 5);
    // Stored: one copy a block row. Folded: all copies, one after the other.
    const int begin = a.out ? blockIdx.y : 0, end = a.out ? blockIdx.y + 1 : a.sum.count;
    const int y = pixel / a.out_extent[1], x = pixel % a.out_extent[1];
    double first = 0.0, second = 0.0;
    for (int n = begin; n < end; ++n) {
        float sums[4] = {};
        if (pixel < plane) {
            for (int i = 0; i < a.kernel[0]; ++i) {
                const int row = y + a.pad[0] - i * a.dilation[0];
                if (row < 0 || row % a.stride[0] || row / a.stride[0] >= a.extent[0]) continue;
                for (int j = 0; j < a.kernel[1]; ++j) {
                    const int column = x + a.pad[1] - j * a.dilation[1];
                    if (column < 0 || column % a.stride[1] || column / a.stride[1] >= a.extent[1]) continue;
                    const float* s = a.s + (i64)n * a.s_stride +
                                     (row / a.stride[0] * a.extent[1] + column / a.stride[1]) * a.k;
                    const float* weight = a.weight + (i64)(i * a.kernel[1] + j) * a.c * a.k;
                    for (int k = lane; k < a.k; k += 32) {
                        const float signal = s[k];
#pragma unroll
                        for (int c = 0; c < 4; ++c) {
                            if (c < a.c) sums[c] = fmaf(weight[c * a.k + k], signal, sums[c]);
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
#pragma unroll
            for (int mask = 16; mask > 0; mask >>= 1) sums[c] += shuffle_xor(sums[c], mask);
        }
        if (pixel >= plane || lane >= a.c) continue;
        const float g = lane == 0 ? sums[0] : lane == 1 ? sums[1] : lane == 2 ? sums[2] : sums[3];
        if (a.out) {
            a.out[(i64)n * a.out_stride + pixel * a.c + lane] = g;
            continue;
        }
        const CopyArgs& copy = a.sum.copies[n];
        const i64 place = ((i64)copy.item * a.c + lane) * plane + pixel;
        if (n == 0 || a.sum.copies[n - 1].item != copy.item) {
            first = a.sum.sums[place];
            second = has_two(a.sum) ? a.sum.squares[place] : 0.0;
        }
        fold(a.sum, copy, (double)g, first, second);
        if (n + 1 == a.sum.count || a.sum.copies[n + 1].item != copy.item) {
            a.sum.sums[place] = first;
            if (has_two(a.sum)) a.sum.squares[place] = second;
        }
    }
}
