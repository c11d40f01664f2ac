// Patches of pictures moved as far as the first layer lets them, a block each, and that layer's largest outputs.
//
// Every step is that of src/device/patch.rs: pixels in double precision, the layer's sums in single precision, each in
// one order. What a patch needs lies in its own part of two scratch arrays.
#include "dialect.cuh"

#include "functions.cuh"

#define WARPS 4

DEVICE float clamped(const StemArgs& s, float v) {
    const float low = (float)s.range[0], high = (float)s.range[1];
    v = v < low ? low : v;
    return v > high ? high : v;
}

DEVICE double clamped(const StemArgs& s, double v) {
    v = v < s.range[0] ? s.range[0] : v;
    return v > s.range[1] ? s.range[1] : v;
}

// The larger; a NaN stays.
template <class T> DEVICE T larger(T a, T b) { return b <= a || a != a ? a : b; }

// One more product of a sum: rounded once in single precision, twice in double.
DEVICE float plus_product(float v, float w, float x) { return fmaf(w, x, v); }
DEVICE double plus_product(double v, double w, double x) { return v + w * x; }

// Row or column of the picture under a tap; may lie outside.
DEVICE int under(const StemArgs& s, int axis, int position, int tap) {
    return position * s.stride[axis] + tap * s.dilation[axis] - s.pad[axis];
}

// The layer's sum at one position, before the clamp.
template <class T> DEVICE T layer_sum(const StemArgs& s, const T* weights, T v, const float* picture, int y, int x, int k) {
    const int channels = s.extent[0], outputs = s.out_extent[0], plane = s.extent[1] * s.extent[2];
    for (int i = 0; i < s.kernel[0]; ++i) {
        const int row = under(s, 0, y, i);
        if ((u32)row >= (u32)s.extent[1]) continue;
        for (int j = 0; j < s.kernel[1]; ++j) {
            const int column = under(s, 1, x, j);
            if ((u32)column >= (u32)s.extent[2]) continue;
            const float* from = picture + row * s.extent[2] + column;
            const T* weight = weights + (i64)(i * s.kernel[1] + j) * channels * outputs + k;
            for (int c = 0; c < channels; ++c) v = plus_product(v, weight[c * outputs], (T)from[c * plane]);
        }
    }
    return v;
}

// One number of each block: the largest magnitude among its outputs of one picture.
KERNEL(largest_output, 128, 8, LargestArgs) {
    SHARED(shared);
    float* slots = (float*)shared;
    const StemArgs& s = a.stem;
    const int outputs = s.out_extent[0], count = outputs * s.out_extent[1] * s.out_extent[2];
    const float* picture = s.pictures + (i64)blockIdx.y * s.extent[0] * s.extent[1] * s.extent[2];
    float most = 0.0f;
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < count; e += gridDim.x * blockDim.x) {
        const int k = e % outputs, p = e / outputs;
        const float start = s.bias ? s.bias[k] : 0.0f;
        const float v = clamped(s, layer_sum(s, s.weight, start, picture, p / s.out_extent[2], p % s.out_extent[2], k));
        most = larger(most, v < 0.0f ? 0.0f - v : v);
    }
    slots[threadIdx.x] = most;
    sync();
#pragma unroll
    for (int half = 64; half > 0; half >>= 1) {
        if (threadIdx.x < half) slots[threadIdx.x] = larger(slots[threadIdx.x], slots[threadIdx.x + half]);
        sync();
    }
    if (threadIdx.x == 0) a.out[(i64)blockIdx.y * gridDim.x + blockIdx.x] = slots[0];
}

// Hyperbolic tangent, as on the host.
DEVICE double tangent(double x) {
    x = x < -20.0 ? -20.0 : x;
    x = 2.0 * (x > 20.0 ? 20.0 : x);
    const double round = 6755399441055744.0;
    const double k = (x * 1.4426950408889634 + round) - round;
    const double r = (x - k * 6.931471803691238e-1) - k * 1.9082149292705877e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const double e = p * double_of((u64)((i64)k + 1023) << 52);
    return (e - 1.0) / (e + 1.0);
}

// The part of the layer that sees one patch.
struct Field {
    const StemArgs& stem;
    const PlaceArgs& place;
    const float* picture;
    // First position of each axis, positions of a row, all.
    int y, x, across, elements;

    DEVICE int first(int axis, int start) const {
        const int reach = (stem.kernel[axis] - 1) * stem.dilation[axis], at = start + stem.pad[axis] - reach;
        const int from = at > 0 ? (at + stem.stride[axis] - 1) / stem.stride[axis] : 0;
        return min(from, stem.out_extent[1 + axis]);
    }
    DEVICE int end(int axis, int stop) const {
        return min((stop - 1 + stem.pad[axis]) / stem.stride[axis] + 1, stem.out_extent[1 + axis]);
    }
    DEVICE Field(const StemArgs& stem, const PlaceArgs& place)
        : stem(stem), place(place),
          picture(stem.pictures + (i64)place.item * stem.extent[0] * stem.extent[1] * stem.extent[2]) {
        y = first(0, place.rows[0]);
        x = first(1, place.columns[0]);
        across = max(end(1, place.columns[0] + place.columns[1]) - x, 0);
        elements = max(end(0, place.rows[0] + place.rows[1]) - y, 0) * across * stem.out_extent[0];
    }

    // Picture number of the patch's i-th, which go by row, column, channel.
    DEVICE float pixel(int i) const {
        const int c = i % stem.extent[0], p = i / stem.extent[0];
        const int row = place.rows[0] + p / place.columns[1], column = place.columns[0] + p % place.columns[1];
        return picture[(c * stem.extent[1] + row) * stem.extent[2] + column];
    }

    // The layer's sum at element e without a move.
    template <class T> DEVICE T still(const T* weights, T start, int e) const {
        const int k = e % stem.out_extent[0], p = e / stem.out_extent[0];
        return layer_sum(stem, weights, start, picture, y + p / across, x + p % across, k);
    }

    // `v` and what the moves add to it.
    template <class T> DEVICE T moved(const T* weights, const T* moves, T v, int e) const {
        const int channels = stem.extent[0], outputs = stem.out_extent[0];
        const int k = e % outputs, p = e / outputs;
        for (int i = 0; i < stem.kernel[0]; ++i) {
            const int row = under(stem, 0, y + p / across, i) - place.rows[0];
            if ((u32)row >= (u32)place.rows[1]) continue;
            for (int j = 0; j < stem.kernel[1]; ++j) {
                const int column = under(stem, 1, x + p % across, j) - place.columns[0];
                if ((u32)column >= (u32)place.columns[1]) continue;
                const T* move = moves + (row * place.columns[1] + column) * channels;
                const T* weight = weights + (i64)(i * stem.kernel[1] + j) * channels * outputs + k;
                for (int c = 0; c < channels; ++c) v = plus_product(v, weight[c * outputs], move[c]);
            }
        }
        return v;
    }

    // A lane's part of what the signals come to at the patch's i-th number.
    DEVICE float pulled(const float* signals, int i, int lane) const {
        const int channels = stem.extent[0], outputs = stem.out_extent[0];
        const int c = i % channels, p = i / channels;
        const int row = place.rows[0] + p / place.columns[1], column = place.columns[0] + p % place.columns[1];
        float sum = 0.0f;
        for (int ky = 0; ky < stem.kernel[0]; ++ky) {
            const int up = row + stem.pad[0] - ky * stem.dilation[0];
            if (up < 0 || up % stem.stride[0] || up / stem.stride[0] >= stem.out_extent[1]) continue;
            for (int kx = 0; kx < stem.kernel[1]; ++kx) {
                const int left = column + stem.pad[1] - kx * stem.dilation[1];
                if (left < 0 || left % stem.stride[1] || left / stem.stride[1] >= stem.out_extent[2]) continue;
                const float* signal = signals + ((up / stem.stride[0] - y) * across + left / stem.stride[1] - x) * outputs;
                const float* weight = stem.weight + ((i64)(ky * stem.kernel[1] + kx) * channels + c) * outputs;
                for (int k = lane; k < outputs; k += 32) sum = fmaf(weight[k], signal[k], sum);
            }
        }
        return sum;
    }
};

// Whether any thread of the block says so; what was written before is seen by all after.
DEVICE bool any_of_block(bool p, u32* votes) {
    const u32 mine = ballot(p);
    if ((threadIdx.x & 31) == 0) votes[threadIdx.x >> 5] = mine;
    sync();
    const u32 all = votes[0] | votes[1] | votes[2] | votes[3];
    sync();
    return all != 0;
}

// 1 above the limit, -1 below its opposite, 0 within.
DEVICE float beyond(float change, float limit) {
    const float infinity = float_of(0x7F800000u);
    if (change > limit && change < infinity) return 1.0f;
    return change < -limit && change > -infinity ? -1.0f : 0.0f;
}

// Whether every output keeps within its limit when `share` of the move is made.
DEVICE bool holds(const Field& f, const float* before, const float* slopes, float share, float limit, u32* votes) {
    bool violated = false;
    for (int e = threadIdx.x; e < f.elements; e += blockDim.x) {
        const float after = fmaf(slopes[e], share, before[e]);
        violated |= beyond(clamped(f.stem, after) - clamped(f.stem, before[e]), limit) != 0.0f;
    }
    return !any_of_block(violated, votes);
}

KERNEL(move_patches, 128, 4, PatchArgs) {
    SHARED(shared);
    double* slots = (double*)shared;
    u32* votes = (u32*)(shared + 128 * sizeof(double));
    const StemArgs& s = a.stem;
    const PlaceArgs& place = a.places[blockIdx.x];
    const Field f(s, place);
    const int channels = s.extent[0], outputs = s.out_extent[0];
    const int pixels = place.rows[1] * place.columns[1], numbers = pixels * channels;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    float* before = a.singles + (i64)blockIdx.x * (2 * a.elements + a.numbers);
    float* signals = before + a.elements;
    float* moves = signals + a.elements;
    double* w = a.doubles + (i64)blockIdx.x * 7 * a.numbers;
    double *mean = w + a.numbers, *square = mean + a.numbers, *delta = square + a.numbers;
    double *start = delta + a.numbers, *offset = start + a.numbers, *gradient = offset + a.numbers;

    for (int e = threadIdx.x; e < f.elements; e += blockDim.x) {
        before[e] = f.still(s.weight, s.bias ? s.bias[e % outputs] : 0.0f, e);
    }
    for (int i = threadIdx.x; i < numbers; i += blockDim.x) {
        const double low = a.low[i % channels], range = a.high[i % channels] - low, x = (double)f.pixel(i);
        const double share = (x - low) / range;
        double inside = share < a.inside ? a.inside : share;
        inside = inside > 1.0 - a.inside ? 1.0 - a.inside : inside;
        offset[i] = inside == share ? 0.0 : low + inside * range - x;
        const double y = 2.0 * inside - 1.0;
        w[i] = 0.5 * own_log((1.0 + y) / (1.0 - y));
        start[i] = tangent(w[i]);
        mean[i] = square[i] = 0.0;
        delta[i] = offset[i];
        moves[i] = (float)delta[i];
    }
    sync();

    const float limit = (float)place.limit;
    double penalty = 1.0, decay[2] = {1.0, 1.0};
    for (int step = 0; step < a.iterations; ++step) {
        bool mine = false;
        for (int e = threadIdx.x; e < f.elements; e += blockDim.x) {
            const float sum = f.moved(s.weight, moves, before[e], e);
            const float side = beyond(clamped(s, sum) - clamped(s, before[e]), limit);
            const bool active = sum > (float)s.range[0] && sum < (float)s.range[1];
            signals[e] = active ? side : 0.0f;
            mine |= side != 0.0f;
        }
        const bool violated = any_of_block(mine, votes);
        if (violated) {
            for (int i = warp; i < numbers; i += WARPS) {
                double sum = (double)f.pulled(signals, i, lane);
#pragma unroll
                for (int mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
                if (lane == 0) gradient[i] = sum;
            }
        }
        sync();
        decay[0] *= a.beta[0];
        decay[1] *= a.beta[1];
        const double correct[2] = {1.0 / (1.0 - decay[0]), 1.0 / (1.0 - decay[1])};
        for (int i = threadIdx.x; i < numbers; i += blockDim.x) {
            const double half = 0.5 * (a.high[i % channels] - a.low[i % channels]);
            const double t = tangent(w[i]);
            const double gain = delta[i] * place.sign >= 0.0 ? place.sign : 0.0;
            const double g = (penalty * (violated ? gradient[i] : 0.0) - gain) * half * (1.0 - t * t);
            mean[i] = a.beta[0] * mean[i] + (1.0 - a.beta[0]) * g;
            square[i] = a.beta[1] * square[i] + (1.0 - a.beta[1]) * g * g;
            w[i] -= a.lr * (mean[i] * correct[0]) / (sqrt(square[i] * correct[1]) + a.epsilon);
            delta[i] = offset[i] + half * (tangent(w[i]) - start[i]);
            moves[i] = (float)delta[i];
        }
        if (violated) penalty = penalty * a.penalty[0] < a.penalty[1] ? penalty * a.penalty[0] : a.penalty[1];
        sync();
    }

    // The largest share of the move that keeps every output within its limit: what holds at one holds at every smaller one.
    for (int e = threadIdx.x; e < f.elements; e += blockDim.x) signals[e] = f.moved(s.weight, moves, 0.0f, e);
    const float used = (float)(place.limit * a.used);
    double share = 1.0;
    if (!holds(f, before, signals, 1.0f, used, votes)) {
        double good = 0.0, bad = 1.0;
        for (int n = 0; n < a.halvings; ++n) {
            const double middle = 0.5 * (good + bad);
            const bool kept = holds(f, before, signals, (float)middle, used, votes);
            good = kept ? middle : good;
            bad = kept ? bad : middle;
        }
        share = good;
    }
    double change = 0.0;
    for (;;) {
        for (int i = threadIdx.x; i < numbers; i += blockDim.x) {
            const double x = (double)f.pixel(i), to = x + share * delta[i];
            const double low = a.low[i % channels] < x ? a.low[i % channels] : x;
            const double high = a.high[i % channels] > x ? a.high[i % channels] : x;
            const float kept = (float)(to < low ? low : to > high ? high : to);
            gradient[i] = (double)kept - x;
            a.pixels[(i64)blockIdx.x * a.numbers + i % channels * pixels + i / channels] = kept;
        }
        sync();
        double most = 0.0;
        for (int e = threadIdx.x; e < f.elements; e += blockDim.x) {
            const double from = f.still(a.exact, a.exact_bias[e % outputs], e);
            const double d = clamped(s, f.moved(a.exact, gradient, from, e)) - clamped(s, from);
            most = larger(most, d < 0.0 ? -d : d);
        }
        slots[threadIdx.x] = most;
        sync();
#pragma unroll
        for (int half = 64; half > 0; half >>= 1) {
            if (threadIdx.x < half) slots[threadIdx.x] = larger(slots[threadIdx.x], slots[threadIdx.x + half]);
            sync();
        }
        change = slots[0];
        sync();
        if (change <= place.limit || share == 0.0) break;
        share = share > 1e-6 ? 0.9 * share : 0.0;
    }
    if (threadIdx.x == 0) {
        a.changes[blockIdx.x] = change;
        a.shrunk[blockIdx.x] = share < 1.0;
    }
}
