/* SPDX-License-Identifier: Apache-2.0 */
/* emu.h - the interfaces of the emulation: what its files offer each other and the kernels.
 *
 * The emulation is for tests only: it is never installed, and is opened only where HY3_CUDA_MODULE
 * names it. Environment:
 *   HY3_EMU_SEED        the schedule: 0 ascending, 1 descending, others random
 *   HY3_EMU_FAIL_AT=N   the N-th call of the CUDA runtime, cuBLAS or NCCL fails
 *   HY3_EMU_HANG=CALL[:N]  the N-th call of CALL (default: the first), a function of the three or a
 *                       kernel, never returns; "pageable": copies between the device and memory
 *                       that is not pinned; "kernel": a kernel is launched that never ends
 *   HY3_EMU_STOP=CALL[:N]  this process stops in it, as by SIGSTOP
 *   HY3_EMU_COUNT=CALL  how often it was called is printed at the end
 *   HY3_EMU_MEMORY      the device's memory in MiB (default 65536)
 *   HY3_EMU_CAPABILITY  its major compute capability (default 9)
 *   HY3_EMU_NAME, HY3_EMU_UUID, HY3_EMU_BUS, HY3_EMU_MPS  its name; numbers that take the place of
 *                       its UUID and PCI bus (default: this process's); MPS serves it */
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <stddef.h>
#include <stdint.h>

/* ---- warp.cpp: operations of a warp ---- */

enum { HY3_EMU_WARP = 32 };

enum hy3_emu_warp_op {
    HY3_WARP_SYNC,
    HY3_WARP_SHUFFLE,
    HY3_WARP_VOTE,
    HY3_WARP_MMA,
    HY3_WARP_LDMATRIX
};

/* Inputs and outputs of one lane. */
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

extern const char *const hy3_emu_op_names[];
/* Computes an operation for the lanes of `mask`: slots [32]. */
void hy3_emu_fire(int op, void *const slots[], unsigned mask);

/* ---- fibers.cpp: a kernel ---- */

/* Reports an error of the running kernel (printf style), and aborts. */
[[noreturn]] void hy3_emu_stop(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *hy3_emu_shared(const void *key, size_t bytes);
void hy3_emu_barrier(const char *file, int line);
void hy3_emu_warp(int op, const char *file, int line, unsigned mask, void *slot);
void hy3_emu_cp_async(void *shared, const void *global, void (*copy)(void *, const void *));
void hy3_emu_cp_commit();
void hy3_emu_cp_wait(int newest);
void hy3_emu_run(const char *name, dim3 grid, dim3 block, size_t shared,
                 const std::function<void()> &body);

/* Sets the schedule. */
void hy3_emu_seed(int seed);
/* The next random number of the schedule. */
uint32_t hy3_emu_random();
int hy3_emu_mode(); /* the seed */

/* ---- runtime.cpp: memory and streams ---- */

/* Appends an operation to a stream; a waiting one returns false while it must wait. */
void hy3_emu_enqueue_waiting(cudaStream_t stream, std::function<bool()> operation);
void hy3_emu_enqueue(cudaStream_t stream, std::function<void()> operation);

/* A waiting operation calls it before it accesses device memory. */
void hy3_emu_touch_device();

/* Runs a few operations of the streams, as a device does while the host continues. */
void hy3_emu_progress();

/* Aborts unless `pointer` is NULL, or device or pinned memory. */
void hy3_emu_check_pointer(const char *what, int argument, const void *pointer);

/* Whether the dimensions of a launch are legal; cudaGetLastError reports it otherwise. */
bool hy3_emu_may_launch(const char *kernel, dim3 grid, dim3 block, size_t shared,
                        cudaStream_t stream);

/* ---- faults.cpp ---- */

/* Whether this call is the one that HY3_EMU_FAIL_AT chose; `call` is its name in the report. Does
 * not return if HY3_EMU_HANG chose it. */
bool hy3_emu_fails(const char *call);
bool hy3_emu_has_failed(); /* one has */
void hy3_emu_may_hang(const char *call);
/* Whether the kernel that is launched now never ends. */
bool hy3_emu_is_endless();
