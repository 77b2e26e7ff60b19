/* SPDX-License-Identifier: Apache-2.0 */
/* emu.h - what the files of the emulation offer each other and the kernels.
 *
 * Environment: HY3_EMU_SEED chooses the schedule (0 ascending, 1 descending, others random),
 * HY3_EMU_FAIL_AT=N lets the N-th call of the CUDA runtime, cuBLAS or NCCL fail, HY3_EMU_MEMORY is
 * the device's memory in MiB (default 65536). */
#ifndef HY3_CUDA_EMU_EMU_H
#define HY3_CUDA_EMU_EMU_H

#include <cuda_runtime.h>

#include <functional>
#include <stddef.h>
#include <stdint.h>

/* ---- fibers.cpp: a kernel ---- */

enum hy3_emu_warp_op {
    HY3_WARP_SYNC,
    HY3_WARP_SHUFFLE,
    HY3_WARP_VOTE,
    HY3_WARP_MMA,
    HY3_WARP_LDMATRIX
};

/* What a lane brings to a warp operation, and what it takes away. */
struct hy3_emu_shuffle_slot {
    uint64_t value;
    int kind, arg, width; /* kind 0 index, 1 up, 2 down, 3 xor */
};

struct hy3_emu_vote_slot {
    int predicate;
    unsigned out;
};

struct hy3_emu_mma_slot {
    float *c;
    const uint32_t *a, *b;
};

struct hy3_emu_ldmatrix_slot {
    unsigned char row[16];
    const void *address;
    uint32_t *out;
    int trans;
};

void *hy3_emu_shared(const void *key, size_t bytes);
void hy3_emu_barrier(const char *file, int line);
void hy3_emu_warp(int op, const char *file, int line, unsigned mask, void *slot);
void hy3_emu_cp_async(void *shared, const void *global, void (*copy)(void *, const void *));
void hy3_emu_cp_commit();
void hy3_emu_cp_wait(int newest);
void hy3_emu_run(const char *name, dim3 grid, dim3 block, size_t shared,
                 const std::function<void()> &body);

/* The schedule from now on. */
void hy3_emu_seed(int seed);
/* The next number of the schedule's generator. */
uint32_t hy3_emu_random();
int hy3_emu_mode(); /* the seed */

/* Counted since the start of the program. */
extern uint64_t hy3_emu_threads, hy3_emu_ldmatrix_phases, hy3_emu_ldmatrix_conflicts;

/* ---- runtime.cpp: memory and streams ---- */

/* An operation of a stream; it returns false while it must wait. */
void hy3_emu_enqueue_waiting(cudaStream_t stream, std::function<bool()> operation);
void hy3_emu_enqueue(cudaStream_t stream, std::function<void()> operation);

/* An operation that waits calls it before it reaches for device memory. */
void hy3_emu_touch_device();

/* Does some of the work of all streams, as a device does while the host goes on. */
void hy3_emu_progress();

/* Stops the program unless a pointer is NULL or device or pinned memory. */
void hy3_emu_check_pointer(const char *what, int argument, const void *pointer);

/* Whether this call, to be reported under that name, is the one that HY3_EMU_FAIL_AT chose. */
bool hy3_emu_fails(const char *call);

/* Whether a launch has legal dimensions; else cudaGetLastError will say so. */
bool hy3_emu_may_launch(const char *kernel, dim3 grid, dim3 block, size_t shared);

#endif
