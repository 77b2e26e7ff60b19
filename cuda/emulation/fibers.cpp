/* SPDX-License-Identifier: Apache-2.0 */
// fibers.cpp - runs a kernel on the CPU: one fiber per CUDA thread, one block after the other.
//
// A warp operation is computed by its last lane for all; a barrier opens when every thread of the block stands at it. What
// would be undefined on a device stops the program with both places. Never built with a sanitizer (the kernels are): the
// sanitizers are told of fibers and of the memory order that barriers give, so ThreadSanitizer finds races by what happens
// before what, not by luck.
#include "cuda/emulation/emu.h"

#include <algorithm>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
void *hy3_emu_dynamic_shared;
uint64_t hy3_emu_threads, hy3_emu_ldmatrix_phases, hy3_emu_ldmatrix_conflicts;

extern "C" { // hooks of the sanitizers: weak, present only in a program built with one
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
#    error \
        "the emulation switches fibers by x86-64 code; other processors need their own hy3_emu_swap"
#endif
asm(".text\n.globl hy3_emu_swap\n.type hy3_emu_swap,@function\nhy3_emu_swap:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\nmov %rsp,(%rdi)\nmov %rsi,%rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size hy3_emu_swap,.-hy3_emu_swap\n");

namespace
{

enum state { READY, AT_BARRIER, AT_WARP, DONE };

enum { MAX_COPIES = 256, MAX_SHARED = 64, WARP = 32 };

const size_t STACK = 256 << 10, POOL = 512 << 10, RED_ZONE = 128;
const char *const op_names[] = {"syncwarp", "shfl", "vote", "mma", "ldmatrix"};

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

/* Who of a warp waits. While all that wait named the same operation, counting is enough. */
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
/* two of each in turn: a late waker must not see the next round's releases */
char barrier_token[2], warp_token[WARP][3], kernel_token;
shared_variable
    shared_variables[MAX_SHARED]; /* no heap inside fibers: ThreadSanitizer would see it */
int shared_count;
char *pool; /* shared memory of the block */
size_t pool_used;

[[noreturn]] void stop(const char *format, ...)
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
                    f.state == AT_BARRIER ? "syncthreads" : op_names[f.op], f.mask);
    abort();
}

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

float bf16(uint32_t word, int high)
{
    uint32_t bits = high ? word & 0xffff0000u : word << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

void fire_shuffle(fiber *warp, unsigned mask)
{
    uint64_t in[WARP];

    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1)
            in[l] = ((hy3_emu_shuffle_slot *)warp[l].slot)->value;
    for (int l = 0; l < WARP; l++) {
        hy3_emu_shuffle_slot *s = (hy3_emu_shuffle_slot *)warp[l].slot;
        int base, from;

        if (!(mask >> l & 1))
            continue;
        base = l & ~(s->width - 1);
        from = s->kind == 0   ? base + (s->arg & (s->width - 1))
               : s->kind == 1 ? l - s->arg
               : s->kind == 2 ? l + s->arg
                              : l ^ s->arg;
        if (from < base || from >= base + s->width)
            from = l;
        if (!(mask >> from & 1))
            stop("shfl: lane %d reads lane %d, which is not in mask %08x", l, from, mask);
        s->value = in[from];
    }
}

void fire_vote(fiber *warp, unsigned mask)
{
    unsigned out = 0;

    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1)
            out |= (unsigned)!!((hy3_emu_vote_slot *)warp[l].slot)->predicate << l;
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1)
            ((hy3_emu_vote_slot *)warp[l].slot)->out = out;
}

/* The fragments of mma.m16n8k16 .bf16: PTX ISA, "Matrix Fragments for mma.m16n8k16". */
void fire_mma(fiber *warp)
{
    float A[16][16], B[16][8], D[16][8];

    for (int l = 0; l < WARP; l++) {
        const hy3_emu_mma_slot *m = (hy3_emu_mma_slot *)warp[l].slot;
        int row = l >> 2, pair = (l & 3) * 2;

        for (int i = 0; i < 8; i++)
            A[row + (i >> 1 & 1) * 8][pair + (i & 1) + (i >> 2) * 8] = bf16(m->a[i >> 1], i & 1);
        for (int i = 0; i < 4; i++)
            B[pair + (i & 1) + (i >> 1) * 8][row] = bf16(m->b[i >> 1], i & 1);
        for (int i = 0; i < 4; i++)
            D[row + (i >> 1) * 8][pair + (i & 1)] = m->c[i];
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                D[i][j] += A[i][k] * B[k][j];
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++)
            ((hy3_emu_mma_slot *)warp[l].slot)->c[i] =
                D[(l >> 2) + (i >> 1) * 8][(l & 3) * 2 + (i & 1)];
}

/* Matrix q of an .x4: PTX ISA, "Warp-level matrix load instruction: ldmatrix". */
void fire_ldmatrix_part(fiber *warp, int q)
{
    int banks[8] = {0}, most = 0;

    for (int r = 0; r < 8; r++) {
        const hy3_emu_ldmatrix_slot *a = (hy3_emu_ldmatrix_slot *)warp[q * 8 + r].slot;

        if ((uintptr_t)a->address & 15)
            stop("ldmatrix: the address of lane %d is not 16-byte aligned", q * 8 + r);
        most = std::max(most, ++banks[(uintptr_t)a->address >> 4 & 7]);
    }
    hy3_emu_ldmatrix_phases++;
    hy3_emu_ldmatrix_conflicts += (uint64_t)(most - 1);
    for (int l = 0; l < WARP; l++) {
        const hy3_emu_ldmatrix_slot *d = (hy3_emu_ldmatrix_slot *)warp[l].slot;
        uint16_t pair[2];

        for (int e = 0; e < 2; e++) {
            int row = d->trans ? (l & 3) * 2 + e : l >> 2,
                column = d->trans ? l >> 2 : (l & 3) * 2 + e;

            memcpy(&pair[e], ((hy3_emu_ldmatrix_slot *)warp[q * 8 + row].slot)->row + 2 * column,
                   2);
        }
        memcpy(&d->out[q], pair, sizeof pair);
    }
}

void fire(int op, fiber *warp, unsigned mask)
{
    switch (op) {
    case HY3_WARP_SHUFFLE:
        fire_shuffle(warp, mask);
        break;
    case HY3_WARP_VOTE:
        fire_vote(warp, mask);
        break;
    case HY3_WARP_MMA:
        fire_mma(warp);
        break;
    case HY3_WARP_LDMATRIX:
        for (int q = 0; q < 4; q++)
            fire_ldmatrix_part(warp, q);
        break;
    default:
        break;
    }
}

void *new_shared(size_t bytes)
{
    size_t step = (bytes + 127) / 128 * 128 + (__asan_poison_memory_region ? RED_ZONE : 0);
    char *place = pool + pool_used, *to = place;

    if (pool_used + step > POOL)
        stop("out of shared memory");
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
        stop("no memory for the stacks of %d threads", thread_count);
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

/* Nobody can run: a barrier is complete, or something is wrong. */
void open_barrier()
{
    const fiber *first = nullptr;

    for (int i = 0; i < thread_count; i++) {
        const fiber &f = fibers[(size_t)i];

        if (f.state == DONE)
            continue;
        if (f.state == AT_WARP)
            stop("deadlock: thread %d waits for lanes of its warp that are elsewhere", i);
        if (!first)
            first = &f;
        else if (first->line != f.line || first->file != f.file)
            stop("divergent __syncthreads: %s:%d and %s:%d", first->file, first->line, f.file,
                 f.line);
    }
    if (done_count && first)
        stop("__syncthreads at %s:%d is missed by %d thread(s) that have exited", first->file,
             first->line, done_count);
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

extern "C" void hy3_emu_entry()
{
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
    for (;;) {
        (*body)();
        if (current->copies)
            stop("thread %d exits with cp.async still in flight", current->number);
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
        stop("thread %d: cp.async is not 16-byte aligned", current->number);
    if (seed >= 2 && hy3_emu_random() % 2) /* a device may do it at any time up to the wait */
        run(shared, global);
    else if (current->copies < MAX_COPIES)
        pending_of(current)[current->copies++] = {shared, global, run, current->group};
    else
        stop("thread %d: more than %d cp.async in flight", current->number, MAX_COPIES);
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

/* Notes that `me` waits; whether all lanes of its mask do, for the same operation. */
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
        stop("%s at %s:%d: thread %d is not in its own mask %08x", op_names[op], file, line,
             me->number, mask);
    if (mask & ~w.alive)
        stop("%s at %s:%d: mask %08x names lane %d, which has exited or does not exist",
             op_names[op], file, line, mask, __builtin_ctz(mask & ~w.alive));
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
        fire(op, lanes, mask);
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
        stop("more than %d shared variables", MAX_SHARED);
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
        hy3_emu_threads += (uint64_t)thread_count;
        run_block(shared);
    }
    if (__tsan_acquire)
        __tsan_acquire(&kernel_token);
}
