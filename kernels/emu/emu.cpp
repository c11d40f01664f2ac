// Runs kernels on the host: fibres, the order in which they run, and what they find out about each other.
#include "emu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if !defined(EMU_PORTABLE) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_PORTABLE
#endif
#ifdef EMU_PORTABLE
#include <ucontext.h>
#endif

// --- Contexts: a place on a stack where execution can go on ---------------------------------------------------------

namespace emu {
using Entry = void (*)();
}

#ifdef EMU_PORTABLE

namespace emu {
struct Context {
    ucontext_t state;
};
static void change(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
static void begin_at(Context& context, char* stack, size_t bytes, Entry entry) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}
} // namespace emu

#else

// Keeps the registers that a call preserves on the stack, its pointer at `from`, and takes those of `to`.
extern "C" __attribute__((visibility("hidden"))) void emu_change(void** from, void* to) __asm__("emu_change");

#ifdef __APPLE__
#define EMU_FUNCTION ".private_extern emu_change\n"
#else
#define EMU_FUNCTION ".hidden emu_change\n.type emu_change, %function\n"
#endif

namespace emu {
struct Context {
    void* stack_pointer;
};
static void change(Context& from, Context& to) { emu_change(&from.stack_pointer, to.stack_pointer); }
} // namespace emu

#ifdef __x86_64__

__asm__(".text\n.globl emu_change\n" EMU_FUNCTION R"(
emu_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

namespace emu {
static void begin_at(Context& context, char* stack, size_t bytes, Entry entry) {
    // Above the entry's address the caller's, which is nowhere: a function starts 8 bytes off an address of 16.
    void** top = reinterpret_cast<void**>(stack + bytes) - 8;
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void*>(entry);
    for (int i = 3; i <= 8; i++) top[-i] = nullptr;
    context.stack_pointer = top - 8;
}
} // namespace emu

#else

__asm__(".text\n.globl emu_change\n.p2align 2\n" EMU_FUNCTION R"(
emu_change:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");

namespace emu {
static void begin_at(Context& context, char* stack, size_t bytes, Entry entry) {
    void** bottom = reinterpret_cast<void**>(stack + bytes - 64 - 160);
    for (int i = 0; i < 20; i++) bottom[i] = nullptr;
    // x30: where `ret` goes.
    bottom[11] = reinterpret_cast<void*>(entry);
    context.stack_pointer = bottom;
}
} // namespace emu

#endif
#endif

namespace emu {

// --- What there is of a block --------------------------------------------------------------------------------------

constexpr u32 LANES = 32;
constexpr u32 MOST_THREADS = 1024;
constexpr u32 MOST_SHARED_BYTES = 227 * 1024;
constexpr u32 GUARD_BYTES = 4096;
constexpr size_t STACK_BYTES = 64 * 1024;
// Stacks whose memory an idle block keeps.
constexpr size_t KEPT_STACKS = 128;
constexpr u8 POISON = 0xff;

__thread Here* here;
static const Kernel* kernels;

Kernel::Kernel(const char* name, void (*body)(const void*), size_t argument_bytes, u32 most_threads)
    : name(name), body(body), argument_bytes(argument_bytes), most_threads(most_threads), next(kernels) {
    kernels = this;
}

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

static Thread& self() { return *static_cast<Thread*>(here); }

[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* format, ...) {
    Thread& t = self();
    va_list values;
    va_start(values, format);
    t.block->complain(&t, format, values);
    va_end(values);
    // The block's threads are left where they are.
    change(t.context, t.block->host);
    __builtin_unreachable();
}

void Block::complain(const Thread* thread, const char* format, va_list values) {
    failed = true;
    int n = snprintf(message, sizeof message, "kernel %s, block (%u, %u, %u)", kernel->name, around.block.x,
                     around.block.y, around.block.z);
    if (thread) n += snprintf(message + n, sizeof message - n, ", thread %u", thread->thread.x);
    n += snprintf(message + n, sizeof message - n, ": ");
    vsnprintf(message + n, sizeof message - n, format, values);
}

static const char* file_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// --- Who runs next -------------------------------------------------------------------------------------------------

static Thread* next_of(Block& b, Warp* w) {
    if (!w->ready) {
        b.ready &= ~w->bit;
        if (!b.ready) return nullptr;
        w = &b.warps[b.warp_order[__builtin_ctz(b.ready)]];
    }
    const u32 position = __builtin_ctz(w->ready);
    Thread* t = &w->threads[b.lane_order[position]];
    t->bit = 1u << position;
    w->ready &= ~t->bit;
    return t;
}

static void run_threads();

// A thread that has not started gets a stack.
static Context& context_of(Thread* t) {
    if (!t->started) {
        Block& b = *t->block;
        t->started = true;
        b.starting = b.free_stacks.back();
        b.free_stacks.pop_back();
        begin_at(t->context, b.starting, STACK_BYTES, run_threads);
    }
    return t->context;
}

[[noreturn]] static void fail_for_good(Block& b) {
    const Thread *waits = nullptr, *other = nullptr;
    for (u32 i = 0; i < b.size; i++) {
        const Thread& t = b.threads[i];
        if (t.state == State::in_collective) {
            waits = &t;
            break;
        }
        if (t.state == State::at_barrier && !waits) waits = &t;
    }
    const bool collective = waits->state == State::in_collective;
    const Thread* first = collective ? waits->warp->threads : b.threads;
    const u32 n = collective ? waits->warp->size : b.size;
    for (u32 i = 0; i < n && !other; i++) {
        if (first[i].state != waits->state) other = &first[i];
    }
    here = const_cast<Thread*>(waits);
    const char* what = collective ? waits->warp->operation : "sync";
    const char* where = file_name(waits->at.file);
    if (!other) fail("%s (%s:%d) never ends", what, where, waits->at.line);
    if (other->state == State::ended) {
        fail("%s (%s:%d) waits for thread %u, which has ended", what, where, waits->at.line, other->thread.x);
    }
    fail("%s (%s:%d) waits for thread %u, which is in %s (%s:%d)", what, where, waits->at.line, other->thread.x,
         other->state == State::at_barrier ? "sync" : other->warp->operation, file_name(other->at.file),
         other->at.line);
}

// Lets others run until somebody wakes this thread.
static void suspend(Thread& t, State state) {
    t.state = state;
    Thread* next = next_of(*t.block, t.warp);
    if (!next) fail_for_good(*t.block);
    here = next;
    next->state = State::ready;
    change(t.context, context_of(next));
}

// What runs on a stack: threads from start to end, until one goes on that has its own.
static void run_threads() {
    Block& b = *self().block;
    char* const stack = b.starting;
    for (;;) {
        b.kernel->body(b.arguments);
        Thread& t = self();
        t.state = State::ended;
        t.started = false;
        if (t.group || !t.copies.empty()) {
            t.copies.clear();
            t.landed = t.group = 0;
        }
        b.ended++;
        Thread* next = next_of(b, t.warp);
        if (!next) {
            if (b.ended < b.size) fail_for_good(b);
            change(t.context, b.host);
        }
        here = next;
        next->state = State::ready;
        if (next->started) {
            b.free_stacks.push_back(stack);
            change(t.context, next->context);
        }
        next->started = true;
    }
}

// --- What threads do together --------------------------------------------------------------------------------------

void barrier(Place at) {
    Thread& t = self();
    Block& b = *t.block;
    t.at = at;
    if (b.at_barrier == 0) {
        b.barrier = at;
    } else if (b.barrier.line != at.line) {
        fail("is in sync (%s:%d) while others are in another (%s:%d)", file_name(at.file), at.line,
             file_name(b.barrier.file), b.barrier.line);
    }
    if (++b.at_barrier < b.size) return suspend(t, State::at_barrier);
    b.at_barrier = 0;
    for (u32 i = 0; i * LANES < b.size; i++) {
        b.warps[i].ready = b.warps[i].all;
        b.ready |= b.warps[i].bit;
    }
    t.warp->ready &= ~t.bit;
}

// Comes to a collective; true for the last lane. Operands are in place before.
static inline void arrive(Thread& t, Warp& w, const char* operation, Place at) {
    t.at = at;
    if (w.arrived == 0) {
        if (w.size < LANES) fail("%s in a warp of %u threads (%s:%d)", operation, w.size, file_name(at.file), at.line);
        w.operation = operation;
        w.at = at;
    } else if (w.operation != operation || w.at.line != at.line) {
        fail("is in %s (%s:%d) while its warp is in %s (%s:%d)", operation, file_name(at.file), at.line, w.operation,
             file_name(w.at.file), w.at.line);
    }
    w.arrived++;
}

static inline void complete(Thread& t, Warp& w) {
    w.arrived = 0;
    w.turn ^= 1;
    w.ready = w.all & ~t.bit;
    t.block->ready |= w.bit;
}

static const char SHUFFLE[] = "shuffle_xor", BALLOT[] = "ballot";

u64 exchange(u64 value, int mask, Place at) {
    Thread& t = self();
    Warp& w = *t.warp;
    const u32 turn = w.turn, other = t.lane ^ u32(mask);
    if (other >= LANES) fail("shuffle_xor with mask %d (%s:%d)", mask, file_name(at.file), at.line);
    arrive(t, w, SHUFFLE, at);
    w.values[turn][t.lane] = value;
    if (w.arrived < LANES) {
        suspend(t, State::in_collective);
    } else {
        complete(t, w);
    }
    return w.values[turn][other];
}

u32 vote(bool p, Place at) {
    Thread& t = self();
    Warp& w = *t.warp;
    const u32 turn = w.turn;
    if (w.arrived == 0) w.votes[turn] = 0;
    arrive(t, w, BALLOT, at);
    w.votes[turn] |= u32(p) << t.lane;
    if (w.arrived < LANES) {
        suspend(t, State::in_collective);
    } else {
        complete(t, w);
    }
    return w.votes[turn];
}

// --- Products ------------------------------------------------------------------------------------------------------

// Eight columns.
typedef float Row __attribute__((vector_size(32)));

// Numbers of 16 bits, as single precision.
static inline float wide_f16(u32 half) {
    // Exponents of halves start 112 lower; subnormal ones come out right by the product.
    const float size = float_of((half & 0x7fffu) << 13) * 0x1p112f;
    const u32 bits = bits_of(size) | (size >= 65536.0f ? 0x7f800000u : 0u);
    return float_of(bits | (half & 0x8000u) << 16);
}
static inline float wide_bf16(u32 v) { return float_of(v << 16); }
static inline float cut_tf32(u32 v) { return float_of(v & ~0x1fffu); }

template <int K, typename Wide> static void multiply(Warp& w, Wide wide) {
    constexpr int EACH = K / 8; // numbers in a word
    float a[16][K];
    float b[K][8];
    for (u32 lane = 0; lane < LANES; lane++) {
        const u32 g = lane / 4, t = lane % 4;
        const u32 *x = w.operands[lane].a, *y = w.operands[lane].b;
        for (int i = 0; i < EACH; i++) {
            const u32 k = t * EACH + i, half = K / 2;
            a[g][k] = wide(x[0], i);
            a[g + 8][k] = wide(x[1], i);
            a[g][k + half] = wide(x[2], i);
            a[g + 8][k + half] = wide(x[3], i);
            b[k][g] = wide(y[0], i);
            b[k + half][g] = wide(y[1], i);
        }
    }
    for (u32 row = 0; row < 16; row++) {
        float sums[8];
        for (u32 t = 0; t < 4; t++) memcpy(sums + 2 * t, w.operands[row % 8 * 4 + t].d + row / 8 * 2, 8);
        Row sum;
        memcpy(&sum, sums, sizeof sum);
        for (int k = 0; k < K; k++) {
            Row other;
            memcpy(&other, b[k], sizeof other);
            sum += a[row][k] * other;
        }
        memcpy(sums, &sum, sizeof sum);
        for (u32 t = 0; t < 4; t++) memcpy(w.operands[row % 8 * 4 + t].d + row / 8 * 2, sums + 2 * t, 8);
    }
}

void product(Shape shape, float* d, const u32* a, const u32* b, Place at) {
    static const char* const NAMES[] = {"mma_tf32", "mma_f16", "mma_bf16"};
    Thread& t = self();
    Warp& w = *t.warp;
    arrive(t, w, NAMES[u32(shape)], at);
    w.operands[t.lane] = {d, a, b};
    if (w.arrived < LANES) return suspend(t, State::in_collective);
    switch (shape) {
    case Shape::tf32: multiply<8>(w, [](u32 v, int) { return cut_tf32(v); }); break;
    case Shape::f16: multiply<16>(w, [](u32 v, int i) { return wide_f16(v >> 16 * i & 0xffffu); }); break;
    case Shape::bf16: multiply<16>(w, [](u32 v, int i) { return wide_bf16(v >> 16 * i & 0xffffu); }); break;
    }
    complete(t, w);
}

// --- Shared memory -------------------------------------------------------------------------------------------------

static void check_place(const Block& b, const void* to, u32 bytes, const char* operation, Place at) {
    const u8* p = static_cast<const u8*>(to);
    const u8* shared = b.around.shared;
    if (p < shared || p + bytes > shared + b.shared_bytes) {
        fail("%s to byte %lld of %u bytes of shared memory (%s:%d)", operation, (long long)(p - shared),
             b.shared_bytes, file_name(at.file), at.line);
    }
    if (reinterpret_cast<size_t>(to) % bytes) {
        fail("%s to byte %lld of shared memory, which is not aligned (%s:%d)", operation, (long long)(p - shared),
             file_name(at.file), at.line);
    }
}

static inline void land(const Copy& c) {
    if (c.from) {
        memcpy(c.to, c.from, c.bytes);
    } else {
        memset(c.to, 0, c.bytes);
    }
}

void copy(void* to, const void* from, u32 bytes, Place at) {
    Thread& t = self();
    const char* operation = bytes == 16 ? "copy16" : "copy4";
    check_place(*t.block, to, bytes, operation, at);
    if (reinterpret_cast<size_t>(from) % bytes) {
        fail("%s from %p, which is not aligned (%s:%d)", operation, from, file_name(at.file), at.line);
    }
    const Copy c{to, from, bytes, t.group};
    if (t.block->copies_land_at_once) return land(c);
    t.copies.push_back(c);
}

void commit() { self().group++; }

void await(u32 groups) {
    Thread& t = self();
    while (t.landed < t.copies.size() && t.copies[t.landed].group + groups < t.group) land(t.copies[t.landed++]);
    if (t.landed == t.copies.size()) {
        t.copies.clear();
        t.landed = 0;
    }
}

u32 add(u32* to, u32 v, Place at) {
    check_place(*self().block, to, sizeof *to, "add_to_shared", at);
    const u32 before = *to;
    *to += v;
    return before;
}

// --- Blocks --------------------------------------------------------------------------------------------------------

Block::Block() {
    const size_t bytes = MOST_THREADS * STACK_BYTES;
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    stacks = static_cast<char*>(at);
    if (posix_memalign(&at, 128, MOST_SHARED_BYTES + 2 * GUARD_BYTES)) throw std::bad_alloc();
    memory = static_cast<u8*>(at);
    around.shared = memory + GUARD_BYTES;
    free_stacks.reserve(MOST_THREADS);
    for (u32 i = 0; i < MOST_THREADS; i++) {
        Thread& t = threads[i];
        t.thread.x = i;
        t.around = &around;
        t.block = this;
        t.warp = &warps[i / LANES];
        t.lane = i % LANES;
        t.started = false;
        t.landed = t.group = 0;
        warps[i / LANES].threads = &threads[i / LANES * LANES];
    }
}

// For a launch.
void Block::prepare(const Kernel& of, const void* with, const u32 grid[3], u32 n, u32 bytes) {
    kernel = &of;
    arguments = with;
    around.grid = {grid[0], grid[1], grid[2]};
    around.threads = {n};
    size = n;
    shared_bytes = bytes;
    memset(memory, POISON, GUARD_BYTES);
    memset(around.shared + bytes, POISON, GUARD_BYTES);
    for (u32 i = 0; i * LANES < n; i++) warps[i].size = n - i * LANES < LANES ? n - i * LANES : LANES;
}

bool Block::run(u64 number, u64 seed) {
    const Axes g = around.grid;
    around.block = {u32(number % g.x), u32(number / g.x % g.y), u32(number / g.x / g.y)};
    memset(around.shared, POISON, shared_bytes);
    const u32 n = (size + LANES - 1) / LANES;
    for (u32 i = 0; i < LANES; i++) warp_order[i] = lane_order[i] = u8(i);
    copies_land_at_once = failed = false;
    if (seed) {
        Random random{seed ^ number * 0xd1342543de82ef95ull};
        random.shuffle(warp_order, n);
        random.shuffle(lane_order, LANES);
        copies_land_at_once = random.below(4) == 0;
    }
    for (u32 i = 0; i < n; i++) {
        Warp& w = warps[warp_order[i]];
        w.bit = 1u << i;
        w.arrived = w.turn = w.all = 0;
        for (u32 j = 0; j < LANES; j++) w.all |= u32(lane_order[j] < w.size) << j;
        w.ready = w.all;
    }
    ready = n < LANES ? (1u << n) - 1 : ~0u;
    at_barrier = ended = 0;
    free_stacks.clear();
    // Stacks start at different places of the cache's sets.
    for (u32 i = size; i-- > 0;) free_stacks.push_back(stacks + i * STACK_BYTES);
    Thread* first = next_of(*this, &warps[warp_order[0]]);
    here = first;
    change(host, context_of(first));
    here = nullptr;
    if (!failed) check_guards();
    return !failed;
}

__attribute__((format(printf, 2, 3))) static void complain(Block& b, const char* format, ...) {
    va_list values;
    va_start(values, format);
    b.complain(nullptr, format, values);
    va_end(values);
}

void Block::check_guards() {
    // Equal to itself one byte on: every byte is the first.
    const u8* after = around.shared + shared_bytes;
    if (after[0] != POISON || memcmp(after, after + 1, GUARD_BYTES - 1)) {
        u32 i = 0;
        while (after[i] == POISON) i++;
        emu::complain(*this, "byte %u was written of %u bytes of shared memory", shared_bytes + i, shared_bytes);
    } else if (memory[0] != POISON || memcmp(memory, memory + 1, GUARD_BYTES - 1)) {
        emu::complain(*this, "what is before the shared memory was written");
    }
}

// The memory of many libraries' idle blocks should not add up.
void Block::rest() {
    if (size > KEPT_STACKS) madvise(stacks + KEPT_STACKS * STACK_BYTES, (size - KEPT_STACKS) * STACK_BYTES, MADV_DONTNEED);
}

// --- Launches ------------------------------------------------------------------------------------------------------

static std::mutex idle_lock;
static std::vector<Block*> idle;

static Block* take() {
    {
        const std::lock_guard<std::mutex> guard(idle_lock);
        if (!idle.empty()) {
            Block* b = idle.back();
            idle.pop_back();
            return b;
        }
    }
    return new Block();
}

static void give(Block* b) {
    b->rest();
    const std::lock_guard<std::mutex> guard(idle_lock);
    idle.push_back(b);
}

// All numbers below `n`, once each, in an order drawn from a seed.
struct Order {
    u64 n, factor, first;

    Order(u64 n, u64 seed) : n(n), factor(1), first(0) {
        if (seed == 0 || n >> 32 || n < 2) return;
        Random random{seed};
        first = random.next() % n;
        do {
            factor = 1 + random.next() % (n - 1);
        } while (divisor(factor, n) != 1);
    }
    static u64 divisor(u64 a, u64 b) {
        while (b) {
            const u64 rest = a % b;
            a = b;
            b = rest;
        }
        return a;
    }
    u64 at(u64 i) const { return factor == 1 ? (i + first) % n : (i * factor + first) % n; }
};

struct Launch {
    const Kernel& kernel;
    const void* arguments;
    const u32* grid;
    u32 threads, shared_bytes;
    u64 seed;
    Order order;
    std::atomic<u64> next{0};
    std::mutex lock;
    // The first in order that failed, whichever thread ran it, and what it said.
    std::atomic<u64> failed{~0ull};
    char message[sizeof Block::message] = "";

    void work() {
        Block* b = take();
        b->prepare(kernel, arguments, grid, threads, shared_bytes);
        for (u64 i; (i = next++) < order.n && i < failed;) {
            if (b->run(order.at(i), seed)) continue;
            // The stacks are given up as they are.
            for (u32 t = 0; t < b->size; t++) {
                b->threads[t].started = false;
                b->threads[t].copies.clear();
                b->threads[t].landed = b->threads[t].group = 0;
            }
            const std::lock_guard<std::mutex> guard(lock);
            if (i < failed) {
                failed = i;
                memcpy(message, b->message, sizeof message);
            }
        }
        give(b);
    }
};

static void launch(Launch& l, u32 os_threads) {
    std::vector<std::thread> others;
    const u64 useful = l.order.n < os_threads ? l.order.n : os_threads;
    try {
        for (u64 i = 1; i < useful; i++) {
            others.emplace_back([&l] {
                try {
                    l.work();
                } catch (const std::exception&) {
                    // Those that have memory do its blocks.
                }
            });
        }
    } catch (const std::exception&) {
        // Fewer do it, too.
    }
    try {
        l.work();
    } catch (const std::exception& e) {
        const std::lock_guard<std::mutex> guard(l.lock);
        l.failed = 0;
        snprintf(l.message, sizeof l.message, "kernel %s: %s", l.kernel.name, e.what());
    }
    for (std::thread& t : others) t.join();
}

} // namespace emu

// Runs all blocks of a launch. `seed` 0 is the natural order. 0 if all went well, else `message` says what did not.
extern "C" __attribute__((visibility("default"))) int
emulated_launch(const char* kernel, const u32 grid[3], u32 threads, u32 shared_bytes, const void* arguments,
                size_t argument_bytes, u32 os_threads, u64 seed, char* message, size_t message_bytes) {
    const emu::Kernel* k = emu::kernels;
    while (k && strcmp(k->name, kernel) != 0) k = k->next;
    const char* problem = nullptr;
    if (!k) {
        problem = "there is no such kernel in this unit";
    } else if (argument_bytes != k->argument_bytes) {
        problem = "its arguments have another size";
    } else if (threads == 0 || threads > k->most_threads || threads > emu::MOST_THREADS) {
        problem = "it was not made for so many threads";
    } else if (shared_bytes > emu::MOST_SHARED_BYTES) {
        problem = "a block has no more than 227 KiB of shared memory";
    } else if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
        problem = "there can be no such grid";
    }
    if (problem) {
        snprintf(message, message_bytes, "kernel %s: %s", kernel, problem);
        return 1;
    }
    emu::Launch l{*k, arguments, grid, threads, shared_bytes, seed, emu::Order(u64(grid[0]) * grid[1] * grid[2], seed)};
    emu::launch(l, os_threads);
    if (l.failed == ~0ull) return 0;
    snprintf(message, message_bytes, "%s", l.message);
    return 1;
}
