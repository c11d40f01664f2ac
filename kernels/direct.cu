// Convolutions and their adjoints as plain sums, one output a thread: depthwise layers and narrow groups.
//
// Weights are [tap][c][out channel]: neighbouring threads read neighbouring numbers.
#include "dialect.cuh"

KERNEL(conv_direct, 128, 8, ConvArgs) {
    const EpilogueArgs& e = a.epilogue;
    const int words = (a.out_channels + 31) / 32;
    const int positions = a.grid[0] * a.grid[1];
    const i64 index = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    // Whole warps have one position, so that a warp's answers make one word of bits.
    const int channel = (int)(index % (words * 32));
    const i64 m = index / (words * 32);
    const bool there = channel < a.out_channels && m < (i64)a.copies * positions;
    const int copy = (int)(m / positions), p = (int)(m % positions);
    const int q[2] = {p / a.grid[1], p % a.grid[1]};
    const int pixel = (q[0] * a.out_mul[0] + a.out_add[0]) * a.out_extent[1] + q[1] * a.out_mul[1] + a.out_add[1];
    float v = 0.0f;
    if (there) {
        const float* x = a.x + (i64)copy * a.x_stride + channel / a.k * a.c;
        for (int i = 0; i < a.taps[0]; ++i) {
            const int y = q[0] * a.mul[0] + a.add[0] + i * a.step[0];
            if ((u32)y >= (u32)a.extent[0]) continue;
            for (int j = 0; j < a.taps[1]; ++j) {
                const int column = q[1] * a.mul[1] + a.add[1] + j * a.step[1];
                if ((u32)column >= (u32)a.extent[1]) continue;
                const int tap = (a.first[0] + i * a.every[0]) * a.kernel[1] + a.first[1] + j * a.every[1];
                const float* from = x + (y * a.extent[1] + column) * a.channels;
                const float* weight = a.weight + (i64)tap * a.c * a.out_channels + channel;
                for (int c = 0; c < a.c; ++c) v = fmaf(weight[(i64)c * a.out_channels], from[c], v);
            }
        }
        const int element = pixel * a.out_channels + channel;
        if (e.bias) v += e.bias[e.bias_elements ? element : channel];
        if (e.add) v += e.add[(i64)copy * e.add_stride + element];
    }
    if (e.bits) {
        const u32 bits = ballot(there && v > e.inside[0] && v < e.inside[1]);
        if (channel % 32 == 0 && m < (i64)a.copies * positions) {
            e.bits[(i64)copy * e.bits_stride + pixel * words + channel / 32] = bits;
        }
    }
    if (!there) return;
    if (e.clamps) {
        v = v < e.clamp[0] ? e.clamp[0] : v;
        v = v > e.clamp[1] ? e.clamp[1] : v;
    }
    if (e.gate) {
        const u32 word = e.gate[(i64)copy * e.gate_stride + pixel * words + channel / 32];
        v = word >> (channel % 32) & 1 ? v : 0.0f;
    }
    const int element = pixel * a.out_channels + channel;
    if (e.times) v *= e.times[(i64)copy * e.times_stride + element];
    a.out[(i64)copy * a.out_stride + element] = v;
}
