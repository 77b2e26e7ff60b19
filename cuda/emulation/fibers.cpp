/* SPDX-License-Identifier: Apache-2.0 */
/* fibers.cpp - runs a kernel on the CPU: one fiber per CUDA thread, one block after another.
 *
 * A barrier opens when every thread of the block has reached it; a warp operation is computed by
 * its last lane for all (warp.cpp). What would be undefined on a device stops the program and names
 * both places. Never built with a sanitizer (the kernels are): the sanitizers are told about fibers
 * and about the memory order that barriers give, so ThreadSanitizer finds races by happens-before,
 * not by luck. */
#include "cuda/emulation/emu.h"

#include <algorithm>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
void *hy3_emu_dynamic_shared;

/* Hooks of the sanitizers: weak, present only in a program that is built with one. */
extern "C" {
void __sanitizer_start_switch_fiber(void **, const void *, size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) __attribute__((weak));
void __asan_poison_memory_region(const volatile void *, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *, size_t) __attribute__((weak));
void *__tsan_get_current_fiber() __attribute__((weak));
void *__tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_destroy_fiber(void *) __attribute__((weak));
void __tsan_switch_to_fiber(void *, unsigned) __attribute__((weak));
void __tsan_acquire(void *) __attribute__((weak));
void __tsan_release(void *) __attribute__((weak));
void hy3_emu_swap(void **save, void *to);
void hy3_emu_entry();
}

#ifndef __x86_64__
#    error "fibers are switched by x86-64 code; other processors need their own hy3_emu_swap"
#endif
asm(".text\n.globl hy3_emu_swap\n.type hy3_emu_swap,@function\nhy3_emu_swap:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size hy3_emu_swap,.-hy3_emu_swap\n");

namespace
{

enum state { READY, AT_BARRIER, AT_WARP, DONE };

enum { MAX_COPIES = 256, MAX_SHARED = 64, WARP = HY3_EMU_WARP };

const size_t STACK = 256 << 10, POOL = 512 << 10, RED_ZONE = 128;

struct copy {
    void *shared;
    const void *global;
    void (*run)(void *, const void *);
    int group;
};

struct fiber {
    void *stack_pointer, *tsan;
    int number, state, op, line, group;
    uint3 thread;
    const char *file;
    unsigned mask;
    void *slot;
    int copies, barriers, warp_syncs;
};

struct shared_variable {
    const void *key;
    void *place;
};

char *stacks;
std::vector<fiber> fibers;
std::vector<copy> pending; /* [threads][MAX_COPIES] */

/* Lanes that wait. As long as all of them named the same operation, counting is enough. */
struct warp_state {
    unsigned alive; /* lanes that exist and have not exited */
    int waiting, op, line;
    unsigned mask;
    bool is_mixed;
} warps[WARP];

fiber *current;
void *scheduler_sp, *scheduler_fake, *scheduler_tsan;
const void *scheduler_stack;
size_t scheduler_stack_size;
int thread_count, done_count;
const std::function<void()> *body;
const char *kernel_name = "?";
uint64_t generator = 0x9e3779b97f4a7c15ull;
int seed;
/* used alternately: a thread that wakes late must not see the releases of the next round */
char barrier_token[2], warp_token[WARP][3], kernel_token;
/* no heap inside fibers: ThreadSanitizer would see it */
shared_variable shared_variables[MAX_SHARED];
int shared_count;
char *pool; /* shared memory of the block */
size_t pool_used;

copy *pending_of(const fiber *f)
{
    return &pending[(size_t)f->number * MAX_COPIES];
}

void to_scheduler()
{
    void *fake = nullptr;
    fiber *me = current;

    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_stack_size);
    if (__tsan_switch_to_fiber)
        __tsan_switch_to_fiber(scheduler_tsan, 1);
    hy3_emu_swap(&me->stack_pointer, scheduler_sp);
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void to_fiber(fiber *f)
{
    current = f;
    threadIdx = f->thread;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(&scheduler_fake, stacks + f->number * STACK, STACK);
    if (__tsan_switch_to_fiber)
        __tsan_switch_to_fiber(f->tsan, 1);
    hy3_emu_swap(&scheduler_sp, f->stack_pointer);
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
}

void *new_shared(size_t bytes)
{
    size_t step = (bytes + 127) / 128 * 128 + (__asan_poison_memory_region ? RED_ZONE : 0);
    char *place = pool + pool_used, *to = place;

    if (pool_used + step > POOL)
        hy3_emu_stop("out of shared memory");
    pool_used += step;
    if (__asan_unpoison_memory_region)
        __asan_unpoison_memory_region(place, bytes);
    /* NaNs; no memset, which ThreadSanitizer would count as a write of this thread */
    asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(0xff) : "memory");
    return place;
}

void new_stacks()
{
    static size_t have;
    size_t total = (size_t)thread_count * STACK;

    if (total <= have && !__tsan_create_fiber)
        return;
    if (have)
        munmap(stacks, have);
    stacks = (char *)mmap(nullptr, total, PROT_READ | PROT_WRITE,
                          /* cppcheck-suppress invalidFunctionArg ; MAP_ANONYMOUS asks for -1 */
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        hy3_emu_stop("no memory for the stacks of %d threads", thread_count);
    have = total;
    for (fiber &f : fibers)
        f.stack_pointer = nullptr;
}

void new_pool(size_t shared)
{
    if (pool && __tsan_create_fiber) { /* it must see no older accesses */
        munmap(pool, POOL);
        pool = nullptr;
    }
    if (!pool)
        pool =
            /* cppcheck-suppress invalidFunctionArg ; MAP_ANONYMOUS asks for -1 */
            (char *)mmap(nullptr, POOL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (__asan_poison_memory_region)
        __asan_poison_memory_region(pool, POOL);
    pool_used = 0;
    shared_count = 0;
    hy3_emu_dynamic_shared = shared ? new_shared(shared) : nullptr;
}

void begin_fiber(int number)
{
    fiber &f = fibers[(size_t)number];
    unsigned i = (unsigned)number;

    f.number = number;
    f.state = READY;
    f.group = f.copies = f.barriers = f.warp_syncs = 0;
    f.thread = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    if (!f.stack_pointer) {
        /* staggered, or the tops of all stacks would share a few lines of the cache */
        void **sp =
            (void **)(stacks + (size_t)(number + 1) * STACK - 64 - (size_t)(number % 61) * 320);

        *--sp = nullptr;
        *--sp = (void *)hy3_emu_entry;
        for (int k = 0; k < 6; k++)
            *--sp = nullptr;
        f.stack_pointer = sp;
    }
    if (__tsan_create_fiber)
        f.tsan = __tsan_create_fiber(0);
}

/* No thread can run: a barrier is complete, or there is an error. */
void open_barrier()
{
    const fiber *first = nullptr;

    for (int i = 0; i < thread_count; i++) {
        const fiber &f = fibers[(size_t)i];

        if (f.state == DONE)
            continue;
        if (f.state == AT_WARP)
            hy3_emu_stop("deadlock: thread %d waits for lanes of its warp that are elsewhere", i);
        if (!first)
            first = &f;
        else if (first->line != f.line || first->file != f.file)
            hy3_emu_stop("divergent __syncthreads: %s:%d and %s:%d", first->file, first->line,
                         f.file, f.line);
    }
    if (done_count && first)
        hy3_emu_stop("__syncthreads at %s:%d is missed by %d thread(s) that have exited",
                     first->file, first->line, done_count);
    for (int i = 0; i < thread_count; i++)
        fibers[(size_t)i].state = READY;
}

void run_block(size_t shared)
{
    std::vector<int> order((size_t)thread_count);

    new_stacks();
    if ((int)fibers.size() < thread_count)
        fibers.resize((size_t)thread_count);
    if (pending.size() < fibers.size() * MAX_COPIES)
        pending.resize(fibers.size() * MAX_COPIES);
    new_pool(shared);
    for (int i = 0; i < thread_count; i++)
        begin_fiber(i);
    for (int i = 0; i < thread_count; i += WARP) {
        int lanes = std::min<int>(WARP, thread_count - i);

        warps[i / WARP] = {};
        warps[i / WARP].alive = lanes == WARP ? 0xffffffffu : (1u << lanes) - 1;
    }
    for (size_t i = (size_t)thread_count; i < fibers.size(); i++)
        fibers[i].state = DONE;
    done_count = 0;
    for (int i = 0; i < thread_count; i++)
        order[(size_t)i] = seed == 1 ? thread_count - 1 - i : i;
    while (done_count < thread_count) {
        bool ran = false;

        if (seed >= 2)
            for (size_t i = order.size() - 1; i > 0; i--)
                std::swap(order[i], order[hy3_emu_random() % (i + 1)]);
        for (int i : order) {
            if (fibers[(size_t)i].state != READY)
                continue;
            to_fiber(&fibers[(size_t)i]);
            ran = true;
        }
        if (!ran)
            open_barrier();
    }
    for (int i = 0; __tsan_destroy_fiber && i < thread_count; i++)
        __tsan_destroy_fiber(fibers[(size_t)i].tsan);
}

} // namespace

void hy3_emu_stop(const char *format, ...)
{
    va_list arguments;
    int shown = 0;

    va_start(arguments, format);
    fprintf(stderr, "hy3_emu: kernel %s block (%u,%u,%u): ", kernel_name, blockIdx.x, blockIdx.y,
            blockIdx.z);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    for (const fiber &f : fibers)
        if ((f.state == AT_BARRIER || f.state == AT_WARP) && shown++ < 6)
            fprintf(stderr, "  thread %d waits at %s:%d (%s mask %08x)\n", f.number, f.file, f.line,
                    f.state == AT_BARRIER ? "syncthreads" : hy3_emu_op_names[f.op], f.mask);
    abort();
}

extern "C" void hy3_emu_entry()
{
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
    for (;;) {
        (*body)();
        if (current->copies)
            hy3_emu_stop("thread %d exits with cp.async still in flight", current->number);
        if (__tsan_release)
            __tsan_release(&kernel_token);
        current->state = DONE;
        warps[current->number >> 5].alive &= ~(1u << (current->number & 31));
        done_count++;
        to_scheduler();
    }
}

uint32_t hy3_emu_random()
{
    generator ^= generator << 13;
    generator ^= generator >> 7;
    generator ^= generator << 17;
    return (uint32_t)(generator >> 16);
}

int hy3_emu_mode()
{
    return seed;
}

void hy3_emu_seed(int new_seed)
{
    seed = new_seed;
    generator = 0x9e3779b97f4a7c15ull * (uint64_t)(new_seed + 1);
}

void hy3_emu_cp_async(void *shared, const void *global, void (*run)(void *, const void *))
{
    if (((uintptr_t)shared | (uintptr_t)global) & 15)
        hy3_emu_stop("thread %d: cp.async is not 16-byte aligned", current->number);
    if (seed >= 2 && hy3_emu_random() % 2) /* a device may do it at any time up to the wait */
        run(shared, global);
    else if (current->copies < MAX_COPIES)
        pending_of(current)[current->copies++] = {shared, global, run, current->group};
    else
        hy3_emu_stop("thread %d: more than %d cp.async in flight", current->number, MAX_COPIES);
}

void hy3_emu_cp_commit()
{
    current->group++;
}

void hy3_emu_cp_wait(int newest)
{
    int kept = 0;

    for (int i = 0; i < current->copies; i++) {
        copy c = pending_of(current)[i];

        if (c.group <= current->group - 1 - newest)
            c.run(c.shared, c.global);
        else
            pending_of(current)[kept++] = c;
    }
    current->copies = kept;
}

void hy3_emu_barrier(const char *file, int line)
{
    char *token = &barrier_token[current->barriers++ & 1];

    current->state = AT_BARRIER;
    current->file = file;
    current->line = line;
    current->mask = 0;
    if (__tsan_release)
        __tsan_release(token);
    to_scheduler();
    if (__tsan_acquire)
        __tsan_acquire(token);
}

namespace
{

/* Records that `me` waits. Whether all lanes of its mask now wait for the same operation. */
bool has_arrived(const fiber *me, const fiber *lanes)
{
    warp_state &w = warps[me->number >> 5];

    if (w.waiting++ == 0) {
        w.op = me->op;
        w.line = me->line;
        w.mask = me->mask;
        w.is_mixed = false;
    } else if (w.op != me->op || w.line != me->line || w.mask != me->mask) {
        w.is_mixed = true;
    }
    if (!w.is_mixed)
        return w.waiting == __builtin_popcount(me->mask);
    for (int l = 0; l < WARP; l++)
        if ((me->mask >> l & 1) && (lanes[l].state != AT_WARP || lanes[l].op != me->op ||
                                    lanes[l].line != me->line || lanes[l].mask != me->mask))
            return false;
    return true;
}

} // namespace

void hy3_emu_warp(int op, const char *file, int line, unsigned mask, void *slot)
{
    fiber *me = current, *lanes = &fibers[(size_t)(me->number & ~31)];
    warp_state &w = warps[me->number >> 5];
    char *token = &warp_token[me->number >> 5][mask != 0xffffffffu ? 2 : me->warp_syncs & 1];
    bool orders = op == HY3_WARP_SYNC; /* shuffles and products give no memory order */

    if (!(mask >> (me->number & 31) & 1))
        hy3_emu_stop("%s at %s:%d: thread %d is not in its own mask %08x", hy3_emu_op_names[op],
                     file, line, me->number, mask);
    if (mask & ~w.alive)
        hy3_emu_stop("%s at %s:%d: mask %08x names lane %d, which has exited or does not exist",
                     hy3_emu_op_names[op], file, line, mask, __builtin_ctz(mask & ~w.alive));
    me->state = AT_WARP;
    me->op = op;
    me->file = file;
    me->line = line;
    me->mask = mask;
    me->slot = slot;
    if (orders)
        me->warp_syncs += mask == 0xffffffffu;
    if (orders && __tsan_release)
        __tsan_release(token);
    if (has_arrived(me, lanes)) {
        void *slots[WARP] = {};

        for (int l = 0; l < WARP; l++)
            if (mask >> l & 1)
                slots[l] = lanes[l].slot;
        hy3_emu_fire(op, slots, mask);
        for (int l = 0; l < WARP; l++)
            if (mask >> l & 1)
                lanes[l].state = READY;
        w.waiting -= __builtin_popcount(mask);
    }
    to_scheduler();
    if (orders && __tsan_acquire)
        __tsan_acquire(token);
}

void *hy3_emu_shared(const void *key, size_t bytes)
{
    for (int i = 0; i < shared_count; i++)
        if (shared_variables[i].key == key)
            return shared_variables[i].place;
    if (shared_count == MAX_SHARED)
        hy3_emu_stop("more than %d shared variables", MAX_SHARED);
    shared_variables[shared_count] = {key, new_shared(bytes)};
    return shared_variables[shared_count++].place;
}

void hy3_emu_run(const char *name, dim3 grid, dim3 block, size_t shared,
                 const std::function<void()> &kernel)
{
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, step = 1, at = 0;

    kernel_name = name;
    gridDim = grid;
    blockDim = block;
    body = &kernel;
    thread_count = (int)(block.x * block.y * block.z);
    if (__tsan_get_current_fiber)
        scheduler_tsan = __tsan_get_current_fiber();
    if (seed == 1)
        at = step = blocks - 1;
    if (seed >= 2) {
        do
            step = hy3_emu_random() % blocks | 1;
        while (std::__gcd(step, blocks) != 1);
        at = hy3_emu_random() % blocks;
    }
    for (uint64_t i = 0; i < blocks; i++, at = (at + step) % blocks) {
        blockIdx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x % grid.y),
                    (unsigned)(at / ((uint64_t)grid.x * grid.y))};
        run_block(shared);
    }
    if (__tsan_acquire)
        __tsan_acquire(&kernel_token);
}
