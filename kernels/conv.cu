// Convolutions and their adjoints as implicit matrix products on tensor cores, for every GPU from sm_80 on.
//
//   out[m][k] = sum over taps and c of x[position(m, tap)][c] weight[tap][k][c]
//
// A block of four warps, two by two, makes a tile of positions by output channels; a warp's part of it is ROWS fragments
// of 16 positions by COLUMNS fragments of 8 channels: 64 by 64 in all, or 128 by 128, which reads each number half as
// often from shared memory. Sixteen channels of one tap at a time travel through three stages. The order of every sum
// depends on the layer alone, whatever the tile.
//
// PRODUCTS   operands                                    relative error of a product
//  3         two TF32 parts each, three products          3 * 2^-22
//  1         TF32                                         2^-10
//  16        half precision, overflows beyond 65504       2^-10
//  17        bfloat16                                     2^-7
#include "mma.cuh"

// Positions and channels of the tile.
#define TILE_M (2 * 16 * ROWS)
#define TILE_K (2 * 8 * COLUMNS)
#define DEPTH 16
#define PITCH (DEPTH + 4)
#define STAGES 3
#define STAGE ((TILE_M + TILE_K) * PITCH)
// Depths after which sums on the tensor core, which may truncate, move to registers that round.
#define PROMOTE 8

// One row of the tile as a thread reads it.
struct Row {
    const float* at;
    int y, x;
    bool there;
};

// Which sixteen channels of which tap come next.
struct Walk {
    int y, x, c;

    DEVICE void next(const ConvArgs& a) {
        c += DEPTH;
        if (c < a.c_padded) return;
        c = 0;
        if (++x < a.taps[1]) return;
        x = 0;
        ++y;
    }
};

DEVICE void load(const ConvArgs& a, const Row (&rows)[TILE_M / 32], const Walk& walk, float* stage, int first_k) {
    const int row = threadIdx.x >> 2, part = (threadIdx.x & 3) * 4;
    const int c = walk.c + part;
    const int tap = (a.first[0] + walk.y * a.every[0]) * a.kernel[1] + a.first[1] + walk.x * a.every[1];
    const float* weight =
        a.weight + (((i64)blockIdx.z * a.kernel[0] * a.kernel[1] + tap) * a.k_padded + first_k) * a.c_padded + c;
#pragma unroll
    for (int i = 0; i < TILE_M / 32; ++i) {
        const int y = rows[i].y + walk.y * a.step[0], x = rows[i].x + walk.x * a.step[1];
        const bool inside = rows[i].there && (u32)y < (u32)a.extent[0] && (u32)x < (u32)a.extent[1];
        const float* from = rows[i].at + ((y * a.extent[1] + x) * a.channels + c);
        float* to = stage + (row + 32 * i) * PITCH + part;
        if (a.aligned) {
            const bool there = inside && c < a.c;
            copy16(to, there ? from : a.x, there);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool there = inside && c + e < a.c;
                copy4(to + e, there ? from + e : a.x, there);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < TILE_K / 32; ++i) {
        copy16(stage + (TILE_M + row + 32 * i) * PITCH + part, weight + (row + 32 * i) * a.c_padded, true);
    }
}

// Products of one stage, added to `sums`.
DEVICE void multiply(const float* rows, const float* columns, float (&sums)[ROWS][COLUMNS][4]) {
    const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#if PRODUCTS == 16 || PRODUCTS == 17
#if PRODUCTS == 16
#define PACK pack_f16
#define MMA mma_f16
#else
#define PACK pack_bf16
#define MMA mma_bf16
#endif
    u32 a[ROWS][4], b[COLUMNS][2];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float* from = rows + (i * 16 + g + (e & 1) * 8) * PITCH + 2 * t + (e >> 1) * 8;
            a[i][e] = PACK(from[0], from[1]);
        }
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const float* from = columns + (j * 8 + g) * PITCH + 2 * t + e * 8;
            b[j][e] = PACK(from[0], from[1]);
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) MMA(sums[i][j], a[i], b[j]);
    }
#else
#pragma unroll
    for (int depth = 0; depth < DEPTH; depth += 8) {
        float af[ROWS][4], bf[COLUMNS][2];
        u32 a[ROWS][4], b[COLUMNS][2];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                af[i][e] = rows[(i * 16 + g + (e & 1) * 8) * PITCH + depth + t + (e >> 1) * 4];
                a[i][e] = to_tf32(af[i][e]);
            }
        }
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                bf[j][e] = columns[(j * 8 + g) * PITCH + depth + t + e * 4];
                b[j][e] = to_tf32(bf[j][e]);
            }
        }
#if PRODUCTS == 3
        u32 al[ROWS][4], bl[COLUMNS][2];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) al[i][e] = to_tf32(af[i][e] - float_of(a[i][e]));
        }
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
            for (int e = 0; e < 2; ++e) bl[j][e] = to_tf32(bf[j][e] - float_of(b[j][e]));
        }
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                mma_tf32(sums[i][j], al[i], b[j]);
                mma_tf32(sums[i][j], a[i], bl[j]);
            }
        }
#endif
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) mma_tf32(sums[i][j], a[i], b[j]);
        }
    }
#endif
}

// Bias, other value, bits, clamp, gate and factor for one position's part of a word: eight channels of the lane's four columns.
DEVICE void store(const ConvArgs& a, int m, int first_k, const float (&sums)[4][2]) {
    const EpilogueArgs& e = a.epilogue;
    const int t = threadIdx.x & 3;
    const int positions = a.grid[0] * a.grid[1];
    const bool there = m < a.copies * positions;
    const int copy = m / positions, p = m % positions;
    const int y = p / a.grid[1] * a.out_mul[0] + a.out_add[0], x = p % a.grid[1] * a.out_mul[1] + a.out_add[1];
    const int pixel = y * a.out_extent[1] + x;
    const int words = (a.out_channels + 31) / 32;
    u32 bits = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int k = first_k + j * 8 + 2 * t + h;
            if (!there || k >= a.k) continue;
            const int channel = blockIdx.z * a.k + k;
            const int element = pixel * a.out_channels + channel;
            float v = sums[j][h];
            if (e.bias) v += e.bias[e.bias_elements ? element : channel];
            if (e.add) v += e.add[(i64)copy * e.add_stride + element];
            if (e.bits) bits |= (u32)(v > e.inside[0] && v < e.inside[1]) << (j * 8 + 2 * t + h);
            if (e.clamps) {
                v = v < e.clamp[0] ? e.clamp[0] : v;
                v = v > e.clamp[1] ? e.clamp[1] : v;
            }
            if (e.gate) {
                const u32 word = e.gate[(i64)copy * e.gate_stride + pixel * words + channel / 32];
                v = word >> (channel % 32) & 1 ? v : 0.0f;
            }
            if (e.times) v *= e.times[(i64)copy * e.times_stride + element];
            a.out[(i64)copy * a.out_stride + element] = v;
        }
    }
    if (e.bits) {
        // The four lanes of a row hold eight channels each of the same word.
        bits |= shuffle_xor(bits, 1);
        bits |= shuffle_xor(bits, 2);
        if (t == 0 && there && first_k < a.k) {
            e.bits[(i64)copy * e.bits_stride + pixel * words + (blockIdx.z * a.k + first_k) / 32] = bits;
        }
    }
}

KERNEL(NAME, 128, BLOCKS, ConvArgs) {
    SHARED(shared);
    float* stages = (float*)shared;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int warp_m = (warp & 1) * (TILE_M / 2), warp_k = (warp >> 1) * (TILE_K / 2);
    const int first_m = blockIdx.x * TILE_M, first_k = blockIdx.y * TILE_K;
    const int positions = a.grid[0] * a.grid[1];

    Row rows[TILE_M / 32];
#pragma unroll
    for (int i = 0; i < TILE_M / 32; ++i) {
        const int m = first_m + (threadIdx.x >> 2) + 32 * i;
        const int copy = m / positions, p = m % positions;
        rows[i].there = m < a.copies * positions;
        rows[i].at = a.x + (rows[i].there ? (i64)copy * a.x_stride : 0) + blockIdx.z * a.c;
        rows[i].y = p / a.grid[1] * a.mul[0] + a.add[0];
        rows[i].x = p % a.grid[1] * a.mul[1] + a.add[1];
    }

    float sums[ROWS][COLUMNS][4] = {};
#if PRODUCTS == 3
    float totals[ROWS][COLUMNS][4] = {};
#endif
    const int depths = a.taps[0] * a.taps[1] * (a.c_padded / DEPTH);
    Walk walk = {0, 0, 0};
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < depths) {
            load(a, rows, walk, stages + s * STAGE, first_k);
            walk.next(a);
        }
        copies_commit();
    }
    for (int d = 0; d < depths; ++d) {
        copies_wait<STAGES - 2>();
        // What arrived is seen by all, and nobody reads the stage any more that is filled next.
        sync();
        if (d + STAGES - 1 < depths) {
            load(a, rows, walk, stages + (d + STAGES - 1) % STAGES * STAGE, first_k);
            walk.next(a);
        }
        copies_commit();
        const float* stage = stages + d % STAGES * STAGE;
        multiply(stage + warp_m * PITCH, stage + (TILE_M + warp_k) * PITCH, sums);
#if PRODUCTS == 3
        if (d % PROMOTE == PROMOTE - 1 || d == depths - 1) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
#pragma unroll
                for (int j = 0; j < COLUMNS; ++j) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        totals[i][j][e] += sums[i][j][e];
                        sums[i][j][e] = 0.0f;
                    }
                }
            }
        }
#endif
    }
#if PRODUCTS == 3
#define RESULT totals
#else
#define RESULT sums
#endif
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int word = 0; word < COLUMNS / 4; ++word) {
                float row[4][2];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    row[j][0] = RESULT[i][word * 4 + j][2 * half];
                    row[j][1] = RESULT[i][word * 4 + j][2 * half + 1];
                }
                store(a, first_m + warp_m + i * 16 + half * 8 + (lane >> 2), first_k + warp_k + word * 32, row);
            }
        }
    }
}
