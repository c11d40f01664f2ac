// The products of `emu_mma.h`, once all lanes of a warp have brought their operands.
#pragma once

#include "block.h"

namespace emu {

// Eight columns.
typedef float Row __attribute__((vector_size(32)));

struct Tf32 {
    using Bits = u32;
    static float wide(u32 v) { return float_of(v & ~0x1fffu); }
};
struct F16 {
    using Bits = u16;
    static float wide(u32 v) {
        // Exponents of halves start 112 lower; by the product, subnormal ones come out right as well.
        const float size = float_of((v & 0x7fffu) << 13) * 0x1p112f;
        return float_of(bits_of(size) | (size >= 65536.0f ? 0x7f800000u : 0u) | (v & 0x8000u) << 16);
    }
};
struct Bf16 {
    using Bits = u16;
    static float wide(u32 v) { return float_of(v << 16); }
};

// Fragments are those of `mma.cuh`: of K = 8 with one number in a word, or of K = 16 with two.
template <typename Type> static void multiply(Warp& w) {
    using Bits = typename Type::Bits;
    constexpr int EACH = sizeof(u32) / sizeof(Bits), K = 8 * EACH;
    Bits a_bits[16 * K], b_bits[8 * K]; // 16 rows of a, 8 columns of b
    for (u32 lane = 0; lane < LANES; lane++) {
        const u32 at = lane / 4 * K + lane % 4 * EACH;
        const u32 *a = w.operands[lane].a, *b = w.operands[lane].b;
        memcpy(&a_bits[at], &a[0], sizeof(u32));
        memcpy(&a_bits[at + 8 * K], &a[1], sizeof(u32));
        memcpy(&a_bits[at + K / 2], &a[2], sizeof(u32));
        memcpy(&a_bits[at + 8 * K + K / 2], &a[3], sizeof(u32));
        memcpy(&b_bits[at], &b[0], sizeof(u32));
        memcpy(&b_bits[at + K / 2], &b[1], sizeof(u32));
    }
    float a[16 * K], b[8 * K];
    for (int i = 0; i < 16 * K; i++) a[i] = Type::wide(a_bits[i]);
    for (int i = 0; i < 8 * K; i++) b[i] = Type::wide(b_bits[i]);
    Row rows[K]; // of b
    for (int k = 0; k < K; k++) {
        for (int j = 0; j < 8; j++) rows[k][j] = b[j * K + k];
    }
    for (u32 row = 0; row < 16; row++) {
        // Lane (row % 8) * 4 + t holds columns 2t and 2t + 1.
        auto* const lanes = &w.operands[row % 8 * 4];
        const u32 pair = row / 8 * 2;
        Row sum;
        for (u32 j = 0; j < 8; j++) sum[j] = lanes[j / 2].d[pair + j % 2];
        for (int k = 0; k < K; k++) sum += a[row * K + k] * rows[k];
        for (u32 j = 0; j < 8; j++) lanes[j / 2].d[pair + j % 2] = sum[j];
    }
}

} // namespace emu
