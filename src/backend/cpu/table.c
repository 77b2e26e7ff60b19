/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - the CPU's table, and the choice of its vector loops. */
#include "backend/cpu/cpu.h"

const struct hy3_loops *hy3_cpu_loops = &hy3_loops_portable;
bool hy3_cpu_bf16_products;

static const struct hy3_backend table = {
    .name = "cpu",
    .abi = HY3_BACKEND_ABI,
    .device = {0},
    .kernels =
        {
#define X(op) .op = hy3_cpu_##op,
            HY3_OPS(X)
#undef X
#define X(op) .op##_forward = hy3_cpu_##op##_forward, .op##_backward = hy3_cpu_##op##_backward,
                HY3_PAIRS(X)
#undef X
        },
};

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* The loops of a name, NULL if this machine cannot run them. */
static const struct hy3_loops *loops_of(const char *isa)
{
    bool best = strcmp(isa, "best") == 0;

    if ((best || strcmp(isa, "avx512") == 0) && has_avx512())
        return &hy3_loops_avx512;
    if ((best || strcmp(isa, "avx2") == 0) && has_avx2())
        return &hy3_loops_avx2;
    return best || strcmp(isa, "portable") == 0 ? &hy3_loops_portable : NULL;
}

const struct hy3_backend *hy3_cpu_backend(const char *isa)
{
    static struct hy3_backend ready;
    const struct hy3_loops *loops = loops_of(isa);

    if (!loops)
        return NULL;
    hy3_cpu_loops = loops;
    (void)hy3_moment_book(false);
    (void)hy3_moment_book(true);
    hy3_cpu_bf16_products = loops == &hy3_loops_avx512; /* oneDNN's bf16 product wants AVX-512 */
    ready = table;
    ready.device = hy3_cpu_device;
    ready.collectives = hy3_cpu_collectives;
    return &ready;
}
