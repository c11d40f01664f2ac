// The language in which kernels are written: types, shared memory, warp and block operations, asynchronous copies.
// Under NVRTC these are CUDA's own; on the host (EMULATED) the shim in emu/ gives them the same meaning.
//
// Kernels use threads of a block along x only (the grid has three axes), one argument structure by value, dynamic shared memory, full-warp collectives, and no
// contraction: a product and a sum round twice unless `fmaf` or `fma` says otherwise.
#pragma once

#ifdef EMULATED
#include "emu.h"
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
#define KERNEL(name, threads, blocks, Arguments) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments a)
// The block's shared memory as bytes, aligned to 128.
#define SHARED(name) extern __shared__ __align__(128) unsigned char name[]

DEVICE void sync() { __syncthreads(); }
DEVICE u32 shuffle_xor(u32 v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
DEVICE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
DEVICE double shuffle_xor(double v, int mask) { return __shfl_xor_sync(~0u, v, mask); }
// Bit i: what lane i says.
DEVICE u32 ballot(bool p) { return __ballot_sync(~0u, p); }

DEVICE u32 bits_of(float v) { return __float_as_uint(v); }
DEVICE float float_of(u32 v) { return __uint_as_float(v); }
DEVICE u64 bits_of(double v) { return (u64)__double_as_longlong(v); }
DEVICE double double_of(u64 v) { return __longlong_as_double((i64)v); }
DEVICE u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
// Copies to shared memory that land at the latest when their group is waited for; zeros where `there` is false.
DEVICE void copy16(void* to, const void* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}
DEVICE void copy4(void* to, const void* from, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(there ? 4 : 0)
                 : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N of the groups committed last are on their way.
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

DEVICE u32 add_to_shared(u32* at, u32 v) { return atomicAdd(at, v); }
DEVICE void or_into(u32* at, u32 v) { atomicOr(at, v); }

#endif

#include "arguments.cuh"
