// A block: its threads, their warps, and what they wait for.
#pragma once

#include <stdarg.h>

#include <vector>

#include "emu.h"
#include "fibre.h"

namespace emu {

constexpr u32 LANES = 32;
constexpr u32 MOST_THREADS = 1024;
constexpr u32 MOST_SHARED_BYTES = 227 * 1024;
constexpr u32 GUARD_BYTES = 4096;
constexpr size_t STACK_BYTES = 64 * 1024;
// Stacks whose memory an idle block keeps.
constexpr size_t KEPT_STACKS = 128;
// Copies of a thread that may be on their way.
constexpr size_t MOST_COPIES = 1 << 16;
constexpr u8 POISON = 0xff;

enum class State : u32 { ready, at_barrier, in_collective, ended };

// A copy to shared memory that has not landed; zeros if from nowhere.
struct Copy {
    void* to;
    const void* from;
    u32 bytes, group;
};

struct Block;
struct Warp;

struct Thread : Here {
    Block* block;
    Warp* warp;
    u32 lane;
    // Place in its warp's order, as a bit.
    u32 bit;
    bool started;
    State state;
    Place at;
    Context context;
    // The copies from `landed` on have not landed; `group` is the one that is open.
    std::vector<Copy> copies;
    size_t landed;
    u32 group;
};

struct Warp {
    // The positions that can run, and those that there are.
    u32 ready, all;
    // Place in the block's order, as a bit.
    u32 bit;
    Thread* threads;
    u32 size;
    // Of the collective that lanes are arriving at; operands of two in turn, as a lane may be one ahead.
    const char* operation;
    Place at;
    u32 arrived, turn;
    u32 votes[2];
    u64 values[2][LANES];
    struct {
        float* d;
        const u32 *a, *b;
    } operands[LANES];
};

// SplitMix64.
struct Random {
    u64 state;
    u64 next() {
        u64 z = state += 0x9e3779b97f4a7c15ull;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
    }
    u32 below(u32 n) { return u32((next() >> 32) * n >> 32); }
    // An order of `n` things.
    void shuffle(u8* order, u32 n) {
        for (u32 i = n; i > 1; i--) {
            const u32 j = below(i);
            const u8 other = order[j];
            order[j] = order[i - 1];
            order[i - 1] = other;
        }
    }
};

// One OS thread's place of work.
struct Block {
    Surroundings around;
    const Kernel* kernel;
    const void* arguments;
    u32 shared_bytes;
    u32 size;
    // Warps that have lanes to run, by their place in the order.
    u32 ready;
    u8 warp_order[LANES], lane_order[LANES];
    u32 at_barrier, ended;
    Place barrier;
    bool copies_land_at_once;
    bool failed;
    // What the clock sees: how often it ticked, whether it ended the block, and whether memory is being allocated.
    volatile u32 ticks;
    bool endless;
    volatile bool allocates;
    Context host;
    char* stacks;
    char* starting;
    std::vector<char*> free_stacks;
    u8* memory;
    Warp warps[LANES];
    Thread threads[MOST_THREADS];
    char message[512];

    Block();
    void prepare(const Kernel& kernel, const void* arguments, const u32 grid[3], u32 size, u32 shared_bytes);
    bool run(u64 number, u64 seed);
    void check_guards();
    void complain(const Thread* thread, const char* format, va_list values);
    void rest();
};

} // namespace emu
