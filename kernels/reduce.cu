// Sums over channels or positions by fixed trees, quantiles, scores, and the search for numbers that are not finite.
#include "dialect.cuh"

#include "functions.cuh"

// Sums of a block's threads, for all of them; `slots` holds one number a thread.
template <class T, int threads = 256> DEVICE T block_sum(T v, T* slots) {
    slots[threadIdx.x] = v;
    sync();
#pragma unroll
    for (int half = threads / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half) slots[threadIdx.x] += slots[threadIdx.x + half];
        sync();
    }
    const T sum = slots[0];
    sync();
    return sum;
}

// Mean over each channel's plane: 32 channels a block, eight rows of threads share the positions.
KERNEL(spatial_mean, 256, 4, ReduceArgs) {
    SHARED(shared);
    float* slots = (float*)shared;
    const int lane = threadIdx.x & 31, part = threadIdx.x >> 5, c = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (c < a.channels) {
        const float* x = a.x + (i64)blockIdx.y * a.x_stride + c;
        for (int p = part; p < a.plane; p += 8) sum += x[(i64)p * a.channels];
    }
    slots[threadIdx.x] = sum;
    sync();
#pragma unroll
    for (int half = 128; half >= 32; half >>= 1) {
        if (threadIdx.x < half) slots[threadIdx.x] += slots[threadIdx.x + half];
        sync();
    }
    if (part == 0 && c < a.channels) {
        a.out[(i64)blockIdx.y * a.out_stride + c] = slots[lane] * (float)(1.0 / (double)a.plane);
    }
}

// Sum over a group of channels and over positions, of numbers or of products of two; one sum a block.
KERNEL(contract, 128, 8, ContractArgs) {
    SHARED(shared);
    float* slots = (float*)shared;
    const int c = blockIdx.x % a.out_channels * a.group, pixel = blockIdx.x / a.out_channels;
    const float* x = a.x + (i64)blockIdx.y * a.x_stride + (i64)pixel * a.channels + c;
    const float* y = a.y + (i64)blockIdx.y * a.y_stride + (i64)pixel * a.channels + c;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < a.group * a.plane; i += 128) {
        const i64 at = (i64)(i / a.group) * a.channels + i % a.group;
        sum = a.y ? fmaf(x[at], y[at], sum) : sum + x[at];
    }
    sum = block_sum<float, 128>(sum, slots);
    if (threadIdx.x == 0) a.out[(i64)blockIdx.y * a.out_stride + blockIdx.x] = sum;
}

// Place of number `i` of the block's group, without the copy's.
DEVICE i64 of_group(const NormArgs& a, int i) {
    const int c = blockIdx.x % a.groups * a.group + i % a.group;
    return (i64)(blockIdx.x / a.groups + i / a.group) * a.channels + c;
}

// Softmax over a group at a position, in double precision; one group a thread.
KERNEL(softmax, 128, 8, NormArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.means) return;
    const i64 at = (i64)(i / a.groups) * a.channels + i % a.groups * a.group;
    const float* x = a.x + (i64)blockIdx.y * a.x_stride + at;
    float* out = a.out + (i64)blockIdx.y * a.out_stride + at;
    double top = (double)x[0];
    for (int c = 1; c < a.group; ++c) top = (double)x[c] <= top ? top : (double)x[c];
    double total = 0.0;
    for (int c = 0; c < a.group; ++c) total += own_exp((double)x[c] - top);
    for (int c = 0; c < a.group; ++c) out[c] = (float)(own_exp((double)x[c] - top) / total);
}

// Numbers less their group's mean, over its deviation; one group a block.
KERNEL(standardise, 128, 8, NormArgs) {
    SHARED(shared);
    float* slots = (float*)shared;
    const float* x = a.x + (i64)blockIdx.y * a.x_stride;
    const int count = a.group * a.plane;
    const float share = (float)(1.0 / (double)count);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < count; i += 128) sum += x[of_group(a, i)];
    const float mean = block_sum<float, 128>(sum, slots) * share;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < count; i += 128) {
        const float d = x[of_group(a, i)] - mean;
        squares = fmaf(d, d, squares);
    }
    const double variance = (double)block_sum<float, 128>(squares, slots) / (double)count;
    // Squares that overflow would be hidden by a factor of 0.
    const float scale = isfinite(variance) ? (float)(1.0 / sqrt(variance + a.eps)) : float_of(0x7FC00000u);
    if (a.scales && threadIdx.x == 0) a.scales[(i64)blockIdx.y * a.scale_stride + blockIdx.x] = scale;
    float* out = a.out + (i64)blockIdx.y * a.out_stride;
    for (int i = threadIdx.x; i < count; i += 128) out[of_group(a, i)] = (x[of_group(a, i)] - mean) * scale;
}

// Its adjoint.
KERNEL(standardise_adjoint, 128, 8, NormArgs) {
    SHARED(shared);
    float* slots = (float*)shared;
    const float* s = a.x + (i64)blockIdx.y * a.x_stride;
    const float* y = a.y + (i64)blockIdx.y * a.y_stride;
    const int count = a.group * a.plane;
    const float share = (float)(1.0 / (double)count);
    float sum = 0.0f, products = 0.0f;
    for (int i = threadIdx.x; i < count; i += 128) {
        const i64 at = of_group(a, i);
        sum += s[at];
        if (a.y) products = fmaf(s[at], y[at], products);
    }
    const float mean = block_sum<float, 128>(sum, slots) * share;
    const float along = block_sum<float, 128>(products, slots) * share;
    const float scale = a.scale[(i64)blockIdx.y * a.scale_stride + blockIdx.x];
    float* out = a.out + (i64)blockIdx.y * a.out_stride;
    for (int i = threadIdx.x; i < count; i += 128) {
        const i64 at = of_group(a, i);
        float d = s[at] - mean;
        if (a.y) d = d - y[at] * along;
        out[at] = d * scale;
    }
}

// Sum over channels of weight times number, one position a warp.
KERNEL(weighted_channel_sum, 128, 8, ReduceArgs) {
    const int lane = threadIdx.x & 31, pixel = blockIdx.x * 4 + (threadIdx.x >> 5);
    const float* weights = a.weights + (i64)blockIdx.y * a.weights_stride;
    const float* x = a.x + (i64)blockIdx.y * a.x_stride + (i64)pixel * a.channels;
    float sum = 0.0f;
    if (pixel < a.plane) {
        for (int c = lane; c < a.channels; c += 32) sum = fmaf(weights[c], x[c], sum);
    }
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
    if (pixel < a.plane && lane == 0) a.out[(i64)blockIdx.y * a.out_stride + pixel] = sum;
}

// Order of numbers as unsigned integers, NaN beyond infinity.
DEVICE u32 order_of(float v) {
    const u32 b = bits_of(v);
    return b >> 31 ? ~b : b | 0x80000000u;
}
DEVICE float number_of(u32 order) { return float_of(order >> 31 ? order & 0x7FFFFFFFu : ~order); }

// The number of a copy with exactly `rank` numbers before it in order.
DEVICE u32 select(const float* x, int count, int rank, u32* bins) {
    u32 prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        bins[threadIdx.x] = 0;
        sync();
        for (int i = threadIdx.x; i < count; i += 256) {
            const u32 v = order_of(x[i]);
            const bool alike = shift == 24 || v >> (shift + 8) == prefix >> (shift + 8);
            if (alike) add_to_shared(bins + (v >> shift & 255), 1);
        }
        sync();
        u32 before = 0;
        int bin = 0;
        // Every thread walks the same bins.
        while (bin < 255 && before + bins[bin] <= (u32)rank) before += bins[bin++];
        rank -= (int)before;
        prefix |= (u32)bin << shift;
        sync();
    }
    return prefix;
}

// Bits of numbers above the q-quantile of their copy (between two numbers linearly), one copy a block.
KERNEL(above_quantile, 256, 4, ReduceArgs) {
    SHARED(shared);
    u32* bins = (u32*)shared;
    const int count = a.channels * a.plane, last = count - 1;
    const float* x = a.x + (i64)blockIdx.y * a.x_stride;
    const double rank = a.q * (double)last;
    const int below = rank < (double)last ? (int)rank : last;
    double threshold = (double)number_of(select(x, count, below, bins));
    if (below < last) {
        const double high = (double)number_of(select(x, count, below + 1, bins));
        if (high > threshold) threshold = threshold + (high - threshold) * (rank - (double)below);
    }
    const int words = (a.channels + 31) / 32;
    for (int i = threadIdx.x; i < a.plane * words; i += 256) {
        u32 bits = 0;
        for (int b = 0; b < 32; ++b) {
            const int c = i % words * 32 + b;
            if (c < a.channels && !((double)x[(i64)(i / words) * a.channels + c] <= threshold)) bits |= 1u << b;
        }
        a.bits[(i64)blockIdx.y * a.bits_stride + i] = bits;
    }
}

// Score of a copy's logits in double precision and its gradient, one copy a block.
KERNEL(head, 256, 4, HeadArgs) {
    SHARED(shared);
    double* slots = (double*)shared;
    const int n = blockIdx.x, target = a.copies[n].target;
    const float* logits = a.logits + (i64)n * a.logits_stride;
    for (int i = threadIdx.x; i < a.classes; i += 256) a.all[(i64)n * a.classes + i] = (double)logits[i];
    double top, total, others;
    if (a.sigmoid) {
        // The softmax of the target's logit beside 0.
        top = logits[target] > 0.0f ? (double)logits[target] : 0.0;
        total = own_exp((double)logits[target] - top) + own_exp(-top);
        others = own_exp(-top) / total;
    } else {
        // The largest; a NaN is found by the host.
        top = -1.0 / 0.0;
        for (int i = threadIdx.x; i < a.classes; i += 256) top = logits[i] > top ? (double)logits[i] : top;
        slots[threadIdx.x] = top;
        sync();
#pragma unroll
        for (int half = 128; half > 0; half >>= 1) {
            if (threadIdx.x < half && slots[threadIdx.x + half] > slots[threadIdx.x]) {
                slots[threadIdx.x] = slots[threadIdx.x + half];
            }
            sync();
        }
        top = slots[0];
        sync();
        double part = 0.0, part_others = 0.0;
        for (int i = threadIdx.x; i < a.classes; i += 256) {
            const double e = own_exp((double)logits[i] - top);
            part += e;
            if (i != target) part_others += e;
        }
        total = block_sum(part, slots);
        // Summed from its parts: a difference from 1 would lose all digits of a certain answer.
        others = block_sum(part_others, slots) / total;
    }
    const double own = own_exp((double)logits[target] - top) / total;
    const double certain = 1e-7;
    if (threadIdx.x == 0) {
        double score = (double)logits[target];
        if (a.score == 1) score = own;
        if (a.score == 2) score = (double)logits[target] - top - own_log(total);
        if (a.score == 3) score = own_log(others + certain);
        a.scores[n] = score;
    }
    if (!a.seed) return;
    const double factor = a.score == 1 ? own : a.score == 3 ? -own / (others + certain) : 1.0;
    for (int i = threadIdx.x; i < a.classes; i += 256) {
        double g = i == target ? 1.0 : 0.0;
        if (a.score != 0 && i == target) g = factor * others;
        if (a.score != 0 && i != target && !a.sigmoid) g = factor * -(own_exp((double)logits[i] - top) / total);
        a.seed[(i64)n * a.seed_stride + i] = (float)g;
    }
}

// Sets the flag where a number is not finite.
KERNEL(not_finite, 128, 8, ReduceArgs) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= a.channels * a.plane) return;
    if (!isfinite(a.x[(i64)blockIdx.y * a.x_stride + i])) or_into(a.bits, 1);
}
