// What mma.cuh means on the host.
//
// Operands are cut to their type and multiplied exactly; to d the products are added one by one, k ascending, each sum
// rounded to single precision. Hardware adds them in another order and cuts where this rounds: equal are results whose
// sums are all exact, others are close.
#pragma once

#include "emu.h"

namespace emu {

// Half precision, ties to even; what is too large becomes infinite, NaN the one that hardware gives.
DEVICE u32 to_f16(float v) {
    const u32 bits = bits_of(v), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fffu;
    // From 65520 = (65504 + 65536) / 2 on.
    if (size >= 0x477ff000u) return sign | 0x7c00u;
    // Below the least normal half 2^-14: the sum's last bit is worth 2^-24.
    if (size < 0x38800000u) return sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000u);
    return sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
}
DEVICE u32 to_bf16(float v) {
    const u32 bits = bits_of(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

} // namespace emu

DEVICE u32 to_tf32(float v) {
    const u32 bits = bits_of(v), size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return 0x7fffffffu;
    return size == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}
DEVICE u32 pack_f16(float low, float high) { return emu::to_f16(low) | emu::to_f16(high) << 16; }
DEVICE u32 pack_bf16(float low, float high) { return emu::to_bf16(low) | emu::to_bf16(high) << 16; }

DEVICE void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_PLACE) {
    emu::product(emu::Shape::tf32, d, a, b, {file, line});
}
DEVICE void mma_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_PLACE) {
    emu::product(emu::Shape::f16, d, a, b, {file, line});
}
DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_PLACE) {
    emu::product(emu::Shape::bf16, d, a, b, {file, line});
}
