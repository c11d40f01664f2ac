// Numbers moved from one shape to another, one number written a thread.
#include "dialect.cuh"

// Position in `[row][column][channel]` of the i-th number in order of channel, row, column.
DEVICE int place_of(const int (&shape)[3], int i) {
    const int plane = shape[1] * shape[2];
    return i % plane * shape[0] + i / plane;
}

DEVICE int size_of(const int (&shape)[3]) { return shape[0] * shape[1] * shape[2]; }

#define MOVE(name)                                                             \
    DEVICE void name##_one(const MoveArgs& a, const float* x, float* out, int i); \
    KERNEL(name, 128, 8, MoveArgs) {                                           \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                   \
        if (i >= size_of(a.to)) return;                                        \
        name##_one(a, a.x + (i64)blockIdx.y * a.x_stride, a.out + (i64)blockIdx.y * a.out_stride, i); \
    }                                                                          \
    DEVICE void name##_one(const MoveArgs& a, const float* x, float* out, int i)

// Feature map to vector.
MOVE(flatten) { out[i] = x[place_of(a.from, i)]; }

// Vector to feature map.
MOVE(unflatten) { out[place_of(a.to, i)] = x[i]; }

// Channels from `first` on; zero where there are none.
MOVE(channels) {
    const int c = i % a.to[0] + a.first, pixel = i / a.to[0];
    out[i] = (u32)c < (u32)a.from[0] ? x[pixel * a.from[0] + c] : 0.0f;
}

// Every stride-th row and column.
MOVE(subsample) {
    const int c = i % a.to[0], pixel = i / a.to[0];
    const int y = pixel / a.to[2] * a.stride[0], column = pixel % a.to[2] * a.stride[1];
    out[i] = x[(y * a.from[2] + column) * a.from[0] + c];
}

// Its adjoint.
MOVE(spread) {
    const int c = i % a.to[0], pixel = i / a.to[0];
    const int y = pixel / a.to[2], column = pixel % a.to[2];
    const int row = y / a.stride[0], from = column / a.stride[1];
    const bool kept = y % a.stride[0] == 0 && column % a.stride[1] == 0 && row < a.from[1] && from < a.from[2];
    out[i] = kept ? x[(row * a.from[2] + from) * a.from[0] + c] : 0.0f;
}

// All channels of a source into the result's channels from `at` on.
KERNEL(append, 128, 8, MoveArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size_of(a.from)) return;
    a.out[(i64)blockIdx.y * a.out_stride + i / a.from[0] * a.to[0] + a.at + i % a.from[0]] =
        a.x[(i64)blockIdx.y * a.x_stride + i];
}
