// Counts: what runtimes are tested with.
#include "dialect.cuh"

KERNEL(count, 128, 1, CountArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.n) a.out[i] = i * a.factor;
}
