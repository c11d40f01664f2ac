// What the dialect means on the host: a CUDA thread is a fibre, and an OS thread works on one block at a time.
//
// Mistakes that hardware forgives by luck are made to show. Shared memory starts as NaN in every block. A copy lands
// only when its group is waited for, or, in some blocks, at once. Blocks, warps and lanes run in an order drawn from a
// seed. A barrier or collective that some thread never reaches, or reaches elsewhere, is an error, as is a write beyond
// the shared memory, an access that the host's memory refuses and, on Linux, a block that does not end.
#pragma once

#include <math.h>
#include <stddef.h>
#include <string.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

namespace emu {

// Where in a kernel's text something is called.
struct Place {
    const char* file;
    int line;
};

struct Axis {
    u32 x;
};
struct Axes {
    u32 x, y, z;
};
// What the threads of a block have in common.
struct Surroundings {
    Axes block, grid;
    Axis threads;
    u8* shared;
};
// What a thread knows of itself.
struct Here {
    Axis thread;
    const Surroundings* around;
};
extern __thread Here* here;

// A kernel that can be launched by its name.
struct Kernel {
    const char* name;
    void (*body)(const void* arguments);
    size_t argument_bytes;
    u32 most_threads;
    const Kernel* next;

    Kernel(const char* name, void (*body)(const void*), size_t argument_bytes, u32 most_threads);
};

enum class Shape : u32 { tf32, f16, bf16 };

void barrier(Place at);
u64 exchange(u64 value, int mask, Place at);
u32 vote(bool p, Place at);
void product(Shape shape, float* d, const u32* a, const u32* b, Place at);
void copy(void* to, const void* from, u32 bytes, Place at);
void commit();
void await(u32 groups);
u32 add(u32* at, u32 v, Place place);

} // namespace emu

#define threadIdx (emu::here->thread)
#define blockIdx (emu::here->around->block)
#define blockDim (emu::here->around->threads)
#define gridDim (emu::here->around->grid)

#define DEVICE inline __attribute__((always_inline))
#define KERNEL(name, threads, blocks, Arguments) EMU_KERNEL(name, threads, Arguments)
#define EMU_KERNEL(name, threads, Arguments)                                                                     \
    static void name##_body(const Arguments& a);                                                                 \
    static void name##_untyped(const void* a) { name##_body(*static_cast<const Arguments*>(a)); }                \
    static const emu::Kernel name##_kernel(#name, name##_untyped, sizeof(Arguments), threads);                   \
    static void name##_body(const Arguments& a)
#define SHARED(name) unsigned char* const name = emu::here->around->shared
// Last parameters of what is called from kernels: the place of the call.
#define EMU_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

DEVICE u32 bits_of(float v) {
    u32 r;
    memcpy(&r, &v, sizeof r);
    return r;
}
DEVICE float float_of(u32 v) {
    float r;
    memcpy(&r, &v, sizeof r);
    return r;
}
DEVICE u64 bits_of(double v) {
    u64 r;
    memcpy(&r, &v, sizeof r);
    return r;
}
DEVICE double double_of(u64 v) {
    double r;
    memcpy(&r, &v, sizeof r);
    return r;
}
DEVICE u32 high_product(u32 a, u32 b) { return u32(u64(a) * b >> 32); }

DEVICE void sync(EMU_PLACE) { emu::barrier({file, line}); }
DEVICE u32 shuffle_xor(u32 v, int mask, EMU_PLACE) { return u32(emu::exchange(v, mask, {file, line})); }
DEVICE float shuffle_xor(float v, int mask, EMU_PLACE) { return float_of(u32(emu::exchange(bits_of(v), mask, {file, line}))); }
DEVICE double shuffle_xor(double v, int mask, EMU_PLACE) {
    u64 bits;
    memcpy(&bits, &v, sizeof bits);
    bits = emu::exchange(bits, mask, {file, line});
    memcpy(&v, &bits, sizeof v);
    return v;
}
DEVICE u32 ballot(bool p, EMU_PLACE) { return emu::vote(p, {file, line}); }

DEVICE void copy16(void* to, const void* from, bool there, EMU_PLACE) { emu::copy(to, there ? from : nullptr, 16, {file, line}); }
DEVICE void copy4(void* to, const void* from, bool there, EMU_PLACE) { emu::copy(to, there ? from : nullptr, 4, {file, line}); }
DEVICE void copies_commit() { emu::commit(); }
template <int N> DEVICE void copies_wait() { emu::await(N); }

DEVICE u32 add_to_shared(u32* to, u32 v, EMU_PLACE) { return emu::add(to, v, {file, line}); }
// Blocks run on several OS threads.
DEVICE void or_into(u32* to, u32 v) { __atomic_fetch_or(to, v, __ATOMIC_RELAXED); }

// CUDA knows these everywhere.
DEVICE int min(int a, int b) { return b < a ? b : a; }
DEVICE int max(int a, int b) { return a < b ? b : a; }
DEVICE u32 min(u32 a, u32 b) { return b < a ? b : a; }
DEVICE u32 max(u32 a, u32 b) { return a < b ? b : a; }
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }
