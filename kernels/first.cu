// Pixels of perturbed copies, and the first layer on copies that exist nowhere but in its tiles.
//
// Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011). Element e of a sample is number e % 4 of the block
// whose key is the seed and whose counter is (e / 4, sample, image low, image high). Normal deviates (Box and Muller) use
// correctly rounded operations only, in a fixed order, so every device draws the same bits.
#include "dialect.cuh"

struct Four {
    u32 v[4];
};

DEVICE Four philox(Four c, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = high_product(c.v[0], 0xD2511F53u), low0 = c.v[0] * 0xD2511F53u;
        const u32 high1 = high_product(c.v[2], 0xCD9E8D57u), low1 = c.v[2] * 0xCD9E8D57u;
        c = {{high1 ^ c.v[1] ^ k0, low1, high0 ^ c.v[3] ^ k1, low0}};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// An odd number below 2^24: the upper 23 bits, plus one half.
DEVICE int odd24(u32 word) { return (int)((word >> 8) | 1); }
// An odd multiple of 2^-24 in (0, 1).
DEVICE float uniform(u32 word) { return (float)odd24(word) * (1.0f / 16777216.0f); }

// Natural logarithm of a normal number in (0, 1].
DEVICE float logarithm(float x) {
    const u32 root_half = 0x3F3504F3u;
    const u32 ix = bits_of(x) + (0x3F800000u - root_half);
    const float e = (float)((int)(ix >> 23) - 127);
    const float f = float_of((ix & 0x007FFFFFu) + root_half) - 1.0f;
    const float z = f * f;
    float p = float_of(0xBD9C5531u);
    p = fmaf(p, f, float_of(0x3E02AC96u));
    p = fmaf(p, f, float_of(0xBE06C327u));
    p = fmaf(p, f, float_of(0x3E116D3Fu));
    p = fmaf(p, f, float_of(0xBE2A3919u));
    p = fmaf(p, f, float_of(0x3E4CD002u));
    p = fmaf(p, f, float_of(0xBE800114u));
    p = fmaf(p, f, float_of(0x3EAAAAAAu));
    p = fmaf(p, f, -0.5f);
    const float low = fmaf(z, p, e * float_of(0xB95E8083u));
    return fmaf(e, float_of(0x3F318000u), f + low);
}

// Two deviates from two words.
DEVICE void normal_pair(u32 u, u32 w, float* out) {
    const float radius = sqrtf(-2.0f * logarithm(uniform(u)));
    const int v = odd24(w);
    const int quarter = (v + (1 << 21)) >> 22;
    const float d = (float)(v - (quarter << 22)) * (1.0f / 4194304.0f);
    const float t = d * d;
    float s = float_of(0xBB96C981u);
    s = fmaf(s, t, float_of(0x3DA32F49u));
    s = fmaf(s, t, float_of(0xBF255DDDu));
    s = fmaf(s, t, float_of(0x3FC90FDBu));
    s = s * d;
    float c = float_of(0x3A6CFBDAu);
    c = fmaf(c, t, float_of(0xBCAAE332u));
    c = fmaf(c, t, float_of(0x3E81E0EFu));
    c = fmaf(c, t, float_of(0xBF9DE9E6u));
    c = fmaf(c, t, 1.0f);
    const u32 sine = bits_of(quarter & 1 ? c : s) ^ (u32)(quarter & 2) << 30;
    const u32 cosine = bits_of(quarter & 1 ? s : c) ^ (u32)((quarter + 1) & 2) << 30;
    out[0] = radius * float_of(cosine);
    out[1] = radius * float_of(sine);
}

// The deviates of elements 4 block .. 4 block + 4.
DEVICE void normals(u64 seed, u64 image, u32 sample, u32 block, float* out) {
    const Four words = philox({{block, sample, (u32)image, (u32)(image >> 32)}}, (u32)seed, (u32)(seed >> 32));
    normal_pair(words.v[0], words.v[1], out);
    normal_pair(words.v[2], words.v[3], out + 2);
}

// Elements 4 block .. 4 block + 4 of a copy, of which `count` exist.
DEVICE void pixels_of(const PerturbArgs& p, int n, int block, int count, float* out) {
    const CopyArgs& copy = p.copies[n];
    const int plane = p.extent[1] * p.extent[2];
    const i64 start = (i64)copy.item * p.extent[0] * plane + 4 * (i64)block;
    float z[4];
    if (p.kind == 1) normals(p.seed, copy.image, copy.sample, (u32)block, z);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (i >= count) break;
        float v = p.pictures[start + i];
        const int pixel = (4 * block + i) % plane, y = pixel / p.extent[2], x = pixel % p.extent[2];
        if (p.kind == 1) {
            v = fmaf(copy.amount, z[i], v);
        } else if (p.kind == 2) {
            const float b = p.others[start + i];
            v = fmaf(copy.amount, v - b, b);
        } else if (p.kind == 3) {
            const bool within = (u32)(y - copy.corner[0]) < (u32)copy.size[0] && (u32)(x - copy.corner[1]) < (u32)copy.size[1];
            if (within) v = p.others[start + i];
        } else if (p.kind == 4) {
            const int row = y + copy.corner[0], column = p.mask_rows + x + copy.corner[1];
            const float* grid = p.masks + (i64)n * p.mask_grid[0] * p.mask_grid[1];
            const float fy = p.shares[row], fx = p.shares[column];
            const float* upper = grid + p.neighbours[2 * row] * p.mask_grid[1];
            const float* lower = grid + p.neighbours[2 * row + 1] * p.mask_grid[1];
            const int left = p.neighbours[2 * column], right = p.neighbours[2 * column + 1];
            const float above = (1.0f - fx) * upper[left] + fx * upper[right];
            const float below = (1.0f - fx) * lower[left] + fx * lower[right];
            v = ((1.0f - fy) * above + fy * below) * v;
        } else if (p.kind == 5) {
            v = p.others[(i64)n * p.extent[0] * plane + 4 * block + i];
        }
        out[i] = v;
    }
}

KERNEL(pixels, 128, 4, PixelsArgs) {
    const PerturbArgs& p = a.perturb;
    const int plane = p.extent[1] * p.extent[2], count = p.extent[0] * plane;
    const int block = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
    if (4 * block >= count) return;
    const int these = count - 4 * block < 4 ? count - 4 * block : 4;
    float v[4];
    pixels_of(p, n, block, these, v);
    for (int i = 0; i < these; ++i) {
        const int e = 4 * block + i;
        a.out[(i64)n * a.out_stride + e % plane * p.extent[0] + e / plane] = v[i];
    }
}

// The first layer: a tile of 8 by 8 positions and 64 channels a block, eight positions of a row and four channels a
// thread. The tile's pixels are made, or read, once.
#define SIDE 8

KERNEL(conv_first, 128, 4, FirstArgs) {
    SHARED(shared);
    float* tile = (float*)shared;  // [c][row][column]
    const ConvArgs& v = a.conv;
    const PerturbArgs& p = a.perturb;
    const EpilogueArgs& e = v.epilogue;
    const int across = (v.grid[1] + SIDE - 1) / SIDE;
    const int n = blockIdx.z, first_k = blockIdx.y * 64;
    const int top = blockIdx.x / across * SIDE, left = blockIdx.x % across * SIDE;
    const int rows = (SIDE - 1) * v.mul[0] + (v.taps[0] - 1) * v.step[0] + 1;
    const int columns = (SIDE - 1) * v.mul[1] + (v.taps[1] - 1) * v.step[1] + 1;
    const int y0 = top * v.mul[0] + v.add[0], x0 = left * v.mul[1] + v.add[1];

    if (v.x) {
        for (int i = threadIdx.x; i < v.c * rows * columns; i += blockDim.x) {
            const int c = i % v.c, y = y0 + i / v.c / columns, x = x0 + i / v.c % columns;
            const bool inside = (u32)y < (u32)v.extent[0] && (u32)x < (u32)v.extent[1];
            tile[(c * rows + y - y0) * columns + x - x0] =
                inside ? v.x[(i64)n * v.x_stride + (y * v.extent[1] + x) * v.channels + c] : 0.0f;
        }
    } else {
        const int start = x0 < 0 ? 0 : x0, end = x0 + columns < v.extent[1] ? x0 + columns : v.extent[1];
        // Four numbers are drawn together: a row is covered by whole blocks of four.
        const int blocks = end > start ? (end - start + 6) / 4 : 0;
        for (int i = threadIdx.x; i < v.c * rows * columns; i += blockDim.x) tile[i] = 0.0f;
        sync();
        for (int i = threadIdx.x; i < v.c * rows * blocks; i += blockDim.x) {
            const int row = i / blocks, c = row / rows, y = y0 + row % rows;
            if ((u32)y >= (u32)v.extent[0]) continue;
            const int line = (c * v.extent[0] + y) * v.extent[1];
            const int block = (line + start) / 4 + i % blocks;
            const int count = v.c * v.extent[0] * v.extent[1] - 4 * block;
            if (4 * block >= line + end) continue;
            float four[4];
            pixels_of(p, n, block, count < 4 ? count : 4, four);
            for (int j = 0; j < 4; ++j) {
                const int x = 4 * block + j - line;
                if (x >= start && x < end) tile[(c * rows + y - y0) * columns + x - x0] = four[j];
            }
        }
    }
    sync();

    const int row = threadIdx.x >> 4, k = first_k + (threadIdx.x & 15) * 4;
    float sums[SIDE][4] = {};
    for (int i = 0; i < v.taps[0]; ++i) {
        for (int j = 0; j < v.taps[1]; ++j) {
            const float* weight = v.weight + (i64)(i * v.kernel[1] + j) * v.c * v.out_channels + k;
            for (int c = 0; c < v.c; ++c) {
                float w[4];
#pragma unroll
                for (int h = 0; h < 4; ++h) w[h] = k + h < v.out_channels ? weight[c * v.out_channels + h] : 0.0f;
                const float* from = tile + (c * rows + row * v.mul[0] + i * v.step[0]) * columns + j * v.step[1];
#pragma unroll
                for (int q = 0; q < SIDE; ++q) {
                    const float x = from[q * v.mul[1]];
#pragma unroll
                    for (int h = 0; h < 4; ++h) sums[q][h] = fmaf(w[h], x, sums[q][h]);
                }
            }
        }
    }

    const int words = (v.out_channels + 31) / 32, y = top + row;
#pragma unroll
    for (int q = 0; q < SIDE; ++q) {
        const int x = left + q;
        const bool there = y < v.grid[0] && x < v.grid[1];
        const int pixel = y * v.out_extent[1] + x;
        u32 bits = 0;
#pragma unroll
        for (int h = 0; h < 4; ++h) {
            if (!there || k + h >= v.out_channels) continue;
            const int element = pixel * v.out_channels + k + h;
            float s = sums[q][h];
            if (e.bias) s += e.bias[e.bias_elements ? element : k + h];
            if (e.add) s += e.add[(i64)n * e.add_stride + element];
            if (e.bits) bits |= (u32)(s > e.inside[0] && s < e.inside[1]) << ((k + h) % 32);
            if (e.clamps) {
                s = s < e.clamp[0] ? e.clamp[0] : s;
                s = s > e.clamp[1] ? e.clamp[1] : s;
            }
            if (e.gate) {
                const u32 word = e.gate[(i64)n * e.gate_stride + pixel * words + (k + h) / 32];
                s = word >> ((k + h) % 32) & 1 ? s : 0.0f;
            }
            v.out[(i64)n * v.out_stride + element] = s;
        }
        if (e.bits) {
            // Eight neighbouring lanes hold four channels each of one word.
            bits |= shuffle_xor(bits, 1);
            bits |= shuffle_xor(bits, 2);
            bits |= shuffle_xor(bits, 4);
            if (there && (threadIdx.x & 7) == 0 && k < v.out_channels) {
                e.bits[(i64)n * e.bits_stride + pixel * words + k / 32] = bits;
            }
        }
    }
}
