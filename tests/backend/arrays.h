/* SPDX-License-Identifier: Apache-2.0 */
/* arrays.h - the arrays of a case of kernels.c: drawn from a seed, its outputs recorded. */
#pragma once

#include "backend/mirror.h"
#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

enum { MAX_OUTPUTS = 16, MAX_BUFFERS = 256 };

struct output {
    void *data;
    hy3_dtype dtype; /* of floats; an exact output is compared byte by byte */
    bool exact;
    int64_t n, bytes;
};

static struct {
    struct output outputs[MAX_OUTPUTS];
    int output_count;
    void *buffers[MAX_BUFFERS];
    int buffer_count;
    uint64_t drawn;
} run;

/* Memory that stays the host's, whatever the table. */
static void *host_buffer(size_t bytes)
{
    assert_true(run.buffer_count < MAX_BUFFERS);
    assert_ok(hy3_alloc(&run.buffers[run.buffer_count], bytes + 64, 1));
    return run.buffers[run.buffer_count++];
}

static void *buffer(size_t bytes)
{
    void *data = host_buffer(bytes);

    hy3_mirror_add(data, bytes);
    return data;
}

static double draw(void)
{
    uint32_t word[4];
    double normal[2];

    hy3_random(7, HY3_RANDOM_DUMMY, 0, run.drawn++, word);
    hy3_random_normal(word[0], word[1], normal);
    return normal[0];
}

/* n normal numbers of a dtype. */
static void *in(int64_t n, hy3_dtype dtype)
{
    void *data = buffer((size_t)n * hy3_dtype_size(dtype));

    for (int64_t i = 0; i < n; i++) {
        if (dtype == HY3_FP32)
            ((float *)data)[i] = (float)draw();
        else
            ((hy3_bf16 *)data)[i] = hy3_bf16_from_float((float)draw());
    }
    return data;
}

/* The same, and recorded: kernels that add see something to add to. */
static void *out(int64_t n, hy3_dtype dtype)
{
    void *data = in(n, dtype);

    assert_true(run.output_count < MAX_OUTPUTS);
    run.outputs[run.output_count++] = (struct output){
        .data = data, .dtype = dtype, .n = n, .bytes = n * (int64_t)hy3_dtype_size(dtype)};
    return data;
}

/* Recorded integers. */
static void *out_exact(int64_t n, size_t size)
{
    void *data = buffer((size_t)n * size);

    run.outputs[run.output_count++] =
        (struct output){.data = data, .exact = true, .bytes = n * (int64_t)size};
    return data;
}

static int32_t *integers(int64_t n, int64_t below)
{
    int32_t *data = buffer((size_t)n * sizeof *data);

    for (int64_t i = 0; i < n; i++) {
        uint32_t word[4];

        hy3_random(8, HY3_RANDOM_DUMMY, 0, run.drawn++, word);
        data[i] = (int32_t)(word[0] % (uint32_t)below);
    }
    return data;
}

static void forget(void)
{
    hy3_mirror_forget();
    while (run.buffer_count > 0)
        hy3_free(run.buffers[--run.buffer_count]);
}
