// Runs kernels on the host: fibres, the order in which they run, and what they find out about each other.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
#endif

#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "block.h"
#include "product.h"

namespace emu {

__thread Here* here;
static const Kernel* kernels;

Kernel::Kernel(const char* name, void (*body)(const void*), size_t argument_bytes, u32 most_threads)
    : name(name), body(body), argument_bytes(argument_bytes), most_threads(most_threads), next(kernels) {
    kernels = this;
}

static Thread& self() { return *static_cast<Thread*>(here); }

[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* format, ...) {
    Thread& t = self();
    va_list values;
    va_start(values, format);
    t.block->complain(&t, format, values);
    va_end(values);
    // The block's threads are left where they are.
    here = nullptr;
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
            here = nullptr;
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

void product(Shape shape, float* d, const u32* a, const u32* b, Place at) {
    static const char* const NAMES[] = {"mma_tf32", "mma_f16", "mma_bf16"};
    Thread& t = self();
    Warp& w = *t.warp;
    arrive(t, w, NAMES[u32(shape)], at);
    w.operands[t.lane] = {d, a, b};
    if (w.arrived < LANES) return suspend(t, State::in_collective);
    switch (shape) {
    case Shape::tf32: multiply<Tf32>(w); break;
    case Shape::f16: multiply<F16>(w); break;
    case Shape::bf16: multiply<Bf16>(w); break;
    }
    complete(t, w);
}

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
    if (t.copies.size() == MOST_COPIES) fail("has %zu copies that it never waited for", MOST_COPIES);
    t.block->allocates = true;
    t.copies.push_back(c);
    t.block->allocates = false;
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
    copies_land_at_once = failed = endless = allocates = false;
    ticks = 0;
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
    for (u32 i = size; i-- > 0;) free_stacks.push_back(stacks + i * STACK_BYTES);
    Thread* first = next_of(*this, &warps[warp_order[0]]);
    here = first;
    change(host, context_of(first));
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

static const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
static const int FAULT_COUNT = sizeof(FAULTS) / sizeof(*FAULTS);
static struct sigaction handled_before[FAULT_COUNT];

// A fault of a kernel is an error of its launch; any other goes where it went before.
static void handle_fault(int signal, siginfo_t* info, void* context) {
    if (here) {
        if (signal == SIGFPE) fail("divides an integer by zero");
        if (signal == SIGILL || signal == SIGTRAP) fail("runs into a trap");
        fail("reads or writes what is no memory, or is not aligned (%p)", info->si_addr);
    }
    for (int i = 0; i < FAULT_COUNT; i++) {
        if (FAULTS[i] != signal) continue;
        const struct sigaction& before = handled_before[i];
        if (before.sa_flags & SA_SIGINFO) {
            before.sa_sigaction(signal, info, context);
        } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
            before.sa_handler(signal);
        } else {
            // The instruction runs again, and then ends the process.
            sigaction(signal, &before, nullptr);
        }
    }
}

static void handle_faults() {
    struct sigaction action = {};
    action.sa_sigaction = handle_fault;
    // Not held back while it is handled: a kernel's fault is never returned from.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    for (int i = 0; i < FAULT_COUNT; i++) sigaction(FAULTS[i], &action, &handled_before[i]);
}

// A clock that ticks each time the thread that made it has computed for so long. A block that hears two ticks is
// taken to be endless. Time in which the system runs others does not count. Only Linux has such clocks.
struct Clock {
#ifdef __linux__
    timer_t timer;
    bool runs;

    explicit Clock(u32 ms) {
        sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGURG;
        event.sigev_value.sival_ptr = &kernels;
        event.sigev_notify_thread_id = pid_t(syscall(SYS_gettid));
        runs = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
        const timespec tick = {time_t(ms / 1000), long(ms % 1000) * 1000000};
        const itimerspec times = {tick, tick};
        if (runs) timer_settime(timer, 0, &times, nullptr);
    }
    ~Clock() {
        if (runs) timer_delete(timer);
    }

    // SIGURG is ignored where nobody asks for it, so that a late tick does no harm.
    static struct sigaction before;

    static void tick(int signal, siginfo_t* info, void* context) {
        if (info->si_code != SI_TIMER || info->si_value.sival_ptr != &kernels) {
            if (before.sa_flags & SA_SIGINFO) {
                before.sa_sigaction(signal, info, context);
            } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
                before.sa_handler(signal);
            }
            return;
        }
        if (!here || ++self().block->ticks < 2) return;
        Block& b = *self().block;
        // The allocator must not be left in the middle: the next tick will do.
        if (b.allocates || b.failed) return;
        b.endless = true;
        fail("does not end");
    }

    static void handle() {
        struct sigaction action = {};
        action.sa_sigaction = tick;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART;
        sigaction(SIGURG, &action, &before);
    }
#else
    explicit Clock(u32) {}
    static void handle() {}
#endif
};
#ifdef __linux__
struct sigaction Clock::before;
#endif

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
    u32 tick_ms;
    Order order;
    std::atomic<u64> next{0};
    std::mutex lock;
    // The first in order that failed, whichever thread ran it, and what it said.
    std::atomic<u64> failed{~0ull};
    bool endless = false;
    char message[sizeof Block::message] = "";

    void work() {
        Block* b = take();
        b->prepare(kernel, arguments, grid, threads, shared_bytes);
        const Clock clock(tick_ms);
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
                endless = b->endless;
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

// Runs all blocks of a launch. `seed` 0 is the natural order. `tick_ms` is what a block may take at least. 0 if all went
// well, else `message` says what did not; 2 if a block did not end.
extern "C" __attribute__((visibility("default"))) int
emulated_launch(const char* kernel, const u32 grid[3], u32 threads, u32 shared_bytes, const void* arguments,
                size_t argument_bytes, u32 os_threads, u64 seed, u32 tick_ms, char* message, size_t message_bytes) {
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
    static std::once_flag once;
    std::call_once(once, [] {
        emu::handle_faults();
        emu::Clock::handle();
    });
    const emu::Order order(u64(grid[0]) * grid[1] * grid[2], seed);
    emu::Launch l{*k, arguments, grid, threads, shared_bytes, seed, tick_ms, order};
    emu::launch(l, os_threads);
    if (l.failed == ~0ull) return 0;
    snprintf(message, message_bytes, "%s", l.message);
    return l.endless ? 2 : 1;
}
