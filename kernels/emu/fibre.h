// Fibres: places on stacks between which execution changes without the system's help.
//
// `Context` is such a place; `begin_at` makes one of a fresh stack, `change` leaves one and goes on at another. In
// assembly for x86-64 and AArch64; with EMU_PORTABLE, or elsewhere, by the slow functions of POSIX.
#pragma once

#include <stddef.h>

#if !defined(EMU_PORTABLE) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_PORTABLE
#endif
#ifdef EMU_PORTABLE
#include <ucontext.h>
#endif

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
