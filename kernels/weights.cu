// Gradients of weights: what a layer read times the signal at its output, summed over positions, one number a thread.
#include "dialect.cuh"

KERNEL(weight_adjoint, 128, 8, WeightArgs) {
    const int taps = a.kernel[0] * a.kernel[1];
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (i64)a.c * taps * a.out_channels) return;
    const int k = (int)(i % a.out_channels), c = (int)(i / a.out_channels / taps), tap = (int)(i / a.out_channels % taps);
    const int ky = tap / a.kernel[1], kx = tap % a.kernel[1];
    const float* x = a.x + (i64)blockIdx.y * a.x_stride + k / a.k * a.c + c;
    const float* s = a.s + (i64)blockIdx.y * a.s_stride + k;
    float sum = 0.0f;
    for (int y = 0; y < a.out_extent[0]; ++y) {
        const int row = y * a.stride[0] + ky * a.dilation[0] - a.pad[0];
        if ((u32)row >= (u32)a.extent[0]) continue;
        for (int column = 0; column < a.out_extent[1]; ++column) {
            const int from = column * a.stride[1] + kx * a.dilation[1] - a.pad[1];
            if ((u32)from >= (u32)a.extent[1]) continue;
            sum = fmaf(x[(row * a.extent[1] + from) * a.channels], s[(y * a.out_extent[1] + column) * a.out_channels], sum);
        }
    }
    a.out[(i64)blockIdx.y * a.out_stride + i] = sum;
}
