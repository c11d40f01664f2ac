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

// Source of element `o` of an axis, or -1.
DEVICE int source_of(const MoveArgs& a, int axis, int o) {
    const int at = o * a.step[axis] + a.first[axis], every = a.every[axis];
    return at >= 0 && at % every == 0 && at / every < a.from[axis] ? at / every : -1;
}

// Numbers at other places, zeros in between.
MOVE(move) {
    const int pixel = i / a.to[0], c = source_of(a, 0, i % a.to[0]);
    const int row = source_of(a, 1, pixel / a.to[2]), column = source_of(a, 2, pixel % a.to[2]);
    const int channel = c % a.groups * (a.from[0] / a.groups) + c / a.groups;
    const bool there = c >= 0 && row >= 0 && column >= 0;
    out[i] = there ? x[(row * a.from[2] + column) * a.from[0] + channel] : 0.0f;
}

// All channels of a source into the result's channels from `at` on.
KERNEL(append, 128, 8, MoveArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size_of(a.from)) return;
    a.out[(i64)blockIdx.y * a.out_stride + i / a.from[0] * a.to[0] + a.at + i % a.from[0]] =
        a.x[(i64)blockIdx.y * a.x_stride + i];
}
