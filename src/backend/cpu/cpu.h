/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - what the files of the CPU backend share: their kernels, the vector loops, scratch memory,
 * rows as fp32.
 *
 * A kernel splits its work over OpenMP threads; inside, vector loops (loops.h) work on fp32 rows. A
 * bf16 row is widened into a buffer of the thread first and narrowed afterwards. */
#pragma once

#include "backend/backend.h"
#include "backend/cpu/loops.h"
#include "backend/indices.h"

#define X(op) hy3_status hy3_cpu_##op(struct hy3_stream *, const struct hy3_##op *);
HY3_OPS(X)
#undef X
#define X(op)                                                                        \
    hy3_status hy3_cpu_##op##_forward(struct hy3_stream *, const struct hy3_##op *); \
    hy3_status hy3_cpu_##op##_backward(struct hy3_stream *, const struct hy3_##op *);
HY3_PAIRS(X)
#undef X

extern const struct hy3_device hy3_cpu_device;
extern const struct hy3_collectives hy3_cpu_collectives;

/* The vector loops in use: those of the table hy3_cpu_backend handed out last. */
extern const struct hy3_loops *hy3_cpu_loops;

/* Whether oneDNN may multiply bf16 directly; false: products go through fp32. */
extern bool hy3_cpu_bf16_products;

/* Grow-only memory for kernels, one piece a slot; valid until the slot's next call. Called outside
 * parallel regions. */
enum hy3_cpu_slot {
    HY3_SLOT_GEMM_A,
    HY3_SLOT_GEMM_B,
    HY3_SLOT_WIDE_A,
    HY3_SLOT_WIDE_B,
    HY3_SLOT_WIDE_C,
    HY3_SLOT_PARTIAL,
    HY3_SLOT_ATTENTION,
    HY3_SLOT_KEYS,
    HY3_SLOTS
};

hy3_status hy3_cpu_scratch(enum hy3_cpu_slot slot, size_t bytes, void *out);

/* Row `row` of a [rows,width] matrix as fp32: itself, or widened into `buffer` [width]. */
static inline const float *hy3_cpu_row(const void *matrix, hy3_dtype dtype, int64_t row,
                                       int64_t width, float *buffer)
{
    if (dtype == HY3_FP32)
        return (const float *)matrix + row * width;
    hy3_cpu_loops->widen((const hy3_bf16 *)matrix + row * width, buffer, width);
    return buffer;
}

/* Where a result row is computed: in place, or in `buffer`, which hy3_cpu_row_put then narrows. */
static inline float *hy3_cpu_row_for(void *matrix, hy3_dtype dtype, int64_t row, int64_t width,
                                     float *buffer)
{
    return dtype == HY3_FP32 ? (float *)matrix + row * width : buffer;
}

static inline void hy3_cpu_row_put(void *matrix, hy3_dtype dtype, int64_t row, int64_t width,
                                   const float *buffer)
{
    if (dtype != HY3_FP32)
        hy3_cpu_loops->narrow(buffer, (hy3_bf16 *)matrix + row * width, width);
}
