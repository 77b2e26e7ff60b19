/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.c - the CPU's kernels as a share of what this machine can do, measured in the same run:
 * products against a large product, what memory bounds against a triad.
 *
 *   kernels          one line an operation: name, dtype, rate, unit, share of its limit
 * Shapes: 2048 tokens in 4 samples, hidden 512, 8 query and 2 key-value heads of 64, 16 experts
 * (top 4) of width 384, vocabulary 32000. */
#include "backend/backend.h"
#include "backend/moments.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"

#include <math.h>

enum {
    T = 2048,
    H = 512,
    Q = 8,
    K = 2,
    D = 64,
    E = 16,
    TOP = 4,
    I = 384,
    V = 32000,
    ROWS = T * TOP
};

static const struct hy3_backend *backend;
static double peak[2], triad; /* GF/s of fp32 and bf16 products; GB/s */

static void *array(int64_t n, hy3_dtype dtype)
{
    char *data;

    if (hy3_alloc(&data, (size_t)n, hy3_dtype_size(dtype)) != HY3_OK)
        HY3_BUG("%s", hy3_error_text());
    for (int64_t i = 0; i < n; i++) {
        uint32_t word[4];
        float x;

        hy3_random(1, HY3_RANDOM_DUMMY, 0, (uint64_t)i, word);
        x = hy3_random_uniform(word[0]) - 0.5f;
        if (dtype == HY3_FP32)
            ((float *)(void *)data)[i] = x;
        else
            ((hy3_bf16 *)(void *)data)[i] = hy3_bf16_from_float(x);
    }
    return data;
}

/* Seconds of the fastest of several calls. */
#define FASTEST(call)                                    \
    ({                                                   \
        double best_ = 1e9;                              \
        for (int i_ = 0; i_ < 12; i_++) {                \
            double begin_ = hy3_seconds();               \
            if ((call) != HY3_OK)                        \
                HY3_BUG("%s", hy3_error_text());         \
            best_ = fmin(best_, hy3_seconds() - begin_); \
        }                                                \
        best_;                                           \
    })

static void print_flops(const char *name, hy3_dtype dtype, double flops, double seconds)
{
    double rate = 1e-9 * flops / seconds;

    printf("%-22s %s %8.1f GF/s  %3.0f %% of the product peak\n", name, hy3_dtype_name(dtype), rate,
           100 * rate / peak[dtype == HY3_BF16]);
}

static void print_bytes(const char *name, hy3_dtype dtype, double bytes, double seconds)
{
    double rate = 1e-9 * bytes / seconds;

    printf("%-22s %s %8.1f GB/s  %3.0f %% of the triad\n", name, hy3_dtype_name(dtype), rate,
           100 * rate / triad);
}

static double time_gemm(hy3_dtype dtype, int64_t M, int64_t N, int64_t k)
{
    struct hy3_gemm g = {.form = HY3_NT, .M = M, .N = N, .K = k, .dtype = dtype, .alpha = 1};
    double seconds;

    g.c_dtype = HY3_FP32;
    g.A = array(M * k, dtype);
    g.B = array(N * k, dtype);
    g.C = array(M * N, HY3_FP32);
    seconds = FASTEST(backend->kernels.gemm(NULL, &g));
    hy3_free((void *)(uintptr_t)g.A);
    hy3_free((void *)(uintptr_t)g.B);
    hy3_free(g.C);
    return seconds;
}

static void measure_limits(void)
{
    const int64_t n = 1 << 25;
    float *a = array(n, HY3_FP32), *b = array(n, HY3_FP32), *c = array(n, HY3_FP32);
    double best = 1e9;

    for (int bf16 = 0; bf16 < 2; bf16++) {
        hy3_dtype dtype = bf16 ? HY3_BF16 : HY3_FP32;

        peak[bf16] = 1e-9 * 2 * 2048.0 * 4096 * 1024 / time_gemm(dtype, 2048, 4096, 1024);
        printf("peak %s %.1f GF/s, product of 2048 x 4096 x 1024\n", hy3_dtype_name(dtype),
               peak[bf16]);
    }
    for (int repeat = 0; repeat < 5; repeat++) {
        double begin = hy3_seconds();

#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < n; i++)
            a[i] = b[i] + 3 * c[i];
        best = fmin(best, hy3_seconds() - begin);
    }
    triad = 1e-9 * 12 * (double)n / best;
    printf("peak memory %.1f GB/s, triad\n", triad);
    hy3_free(a);
    hy3_free(b);
    hy3_free(c);
}

static void measure_experts(hy3_dtype dtype)
{
    int64_t starts[E + 1];
    struct hy3_grouped_gemm g = {.groups = E, .starts = starts, .dtype = dtype, .c_dtype = dtype};
    double flops = 2.0 * ROWS * 2 * I * H;

    g.alpha = 1;
    for (int64_t e = 0; e <= E; e++) /* uneven, as routing is */
        starts[e] = e == E ? ROWS : ROWS * e / E + (e % 2 ? 37 : 0);
    g.form = HY3_NT;
    g.N = 2 * I;
    g.K = H;
    g.A = array(ROWS * H, dtype);
    g.B = array(E * 2 * I * H, dtype);
    g.C = array(ROWS * 2 * I, dtype);
    print_flops("experts forward", dtype, flops, FASTEST(backend->kernels.grouped_gemm(NULL, &g)));
    g.form = HY3_NN;
    g.N = H;
    g.K = 2 * I;
    g.A = g.C;
    g.C = array(ROWS * H, dtype);
    print_flops("experts dx", dtype, flops, FASTEST(backend->kernels.grouped_gemm(NULL, &g)));
    g.form = HY3_TN;
    g.M = 2 * I;
    g.B = g.C;
    g.c_dtype = HY3_FP32;
    g.accumulate = true;
    g.C = array(E * 2 * I * H, HY3_FP32);
    print_flops("experts dW", dtype, flops, FASTEST(backend->kernels.grouped_gemm(NULL, &g)));
}

static void measure_attention(hy3_dtype dtype)
{
    const int64_t starts[] = {0, T / 4, T / 2, 3 * T / 4, T};
    struct hy3_attention a = {.S = 4, .Q = Q, .K = K, .D = D, .q_starts = starts, .dtype = dtype};
    double flops = 4 * 2.0 * Q * D * (T / 4) * (T / 4) / 2 * 2; /* causal half of two products */

    a.kv_first = starts;
    a.kv_end = starts + 1;
    a.scale = 0.125f;
    a.q = array(T * Q * D, dtype);
    a.k = array(T * K * D, dtype);
    a.v = array(T * K * D, dtype);
    a.o = array(T * Q * D, dtype);
    a.lse = array(T * Q, HY3_FP32);
    a.dout = array(T * Q * D, dtype);
    a.dq = array(T * Q * D, dtype);
    a.dk = array(T * K * D, dtype);
    a.dv = array(T * K * D, dtype);
    print_flops("attention forward", dtype, flops,
                FASTEST(backend->kernels.attention_forward(NULL, &a)));
    print_flops("attention backward", dtype, 2.5 * flops,
                FASTEST(backend->kernels.attention_backward(NULL, &a)));
}

static void measure_memory_bound(hy3_dtype dtype)
{
    double size = (double)hy3_dtype_size(dtype);
    struct hy3_rmsnorm n = {.T = 4 * T, .H = H, .eps = 1e-5f, .dtype = dtype};
    struct hy3_swiglu s = {.N = ROWS, .I = I, .ld = 2 * I, .dtype = dtype};
    struct hy3_loss l = {.N = 512, .V = V, .scale = 1, .dtype = dtype};
    struct hy3_adamw a = {.n = 1 << 24, .step = 1, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999};
    char *gate = array(ROWS * 2 * I, dtype);

    n.x = array(n.T * H, dtype);
    n.w = array(H, dtype);
    n.y = array(n.T * H, dtype);
    n.r = array(n.T, HY3_FP32);
    print_bytes("rmsnorm forward", dtype, 2 * size * (double)(n.T * H),
                FASTEST(backend->kernels.rmsnorm_forward(NULL, &n)));
    s.gate = gate;
    s.up = gate + (size_t)I * hy3_dtype_size(dtype);
    s.y = array(ROWS * I, dtype);
    print_bytes("swiglu forward", dtype, 3 * size * ROWS * I,
                FASTEST(backend->kernels.swiglu_forward(NULL, &s)));
    l.logits = array(l.N * V, HY3_FP32);
    l.targets = (int32_t *)array(l.N, HY3_FP32);
    memset((void *)(uintptr_t)l.targets, 0, (size_t)l.N * 4);
    l.loss = array(l.N, HY3_FP32);
    l.lse = array(l.N, HY3_FP32);
    l.dlogits = array(l.N * V, dtype);
    print_bytes("loss forward", dtype, 4.0 * (double)(l.N * V),
                FASTEST(backend->kernels.loss_forward(NULL, &l)));
    print_bytes("loss backward", dtype, (4 + size) * (double)(l.N * V),
                FASTEST(backend->kernels.loss_backward(NULL, &l)));
    a.eps = 1e-8;
    a.grad_scale = 1;
    a.dtype = dtype;
    a.weight = array(a.n, dtype);
    a.low = dtype == HY3_FP32 ? NULL : array(a.n, HY3_BF16);
    a.m = array(a.n, HY3_FP32);
    a.v = array(a.n, HY3_FP32);
    memset(a.v, 0, (size_t)a.n * 4);
    a.grad = array(a.n, HY3_FP32);
    print_bytes("adamw", dtype, 28 * (double)a.n, FASTEST(backend->kernels.adamw(NULL, &a)));
    a.moments = HY3_MOMENTS_BF16; /* of the same memory */
    memset(a.m, 0, (size_t)a.n * 4);
    memset(a.v, 0, (size_t)a.n * 4);
    print_bytes("adamw, bf16 moments", dtype, 20 * (double)a.n,
                FASTEST(backend->kernels.adamw(NULL, &a)));
    a.moments = HY3_MOMENTS_8BIT;
    a.m_scale = array(a.n / HY3_MOMENT_BLOCK, HY3_FP32);
    a.v_scale = array(a.n / HY3_MOMENT_BLOCK, HY3_FP32);
    print_bytes("adamw, 8-bit moments", dtype, 16 * (double)a.n,
                FASTEST(backend->kernels.adamw(NULL, &a)));
}

/* 8-bit weights to the dtype of the computation, and the other way. */
static void measure_scaled(hy3_dtype dtype)
{
    int64_t n = 4 * (int64_t)H * I;
    struct hy3_expand e = {.M = 4, .N = I, .K = H, .rows = 128, .columns = 128, .dtype = dtype};
    struct hy3_quantize q = {.N = 4 * I, .K = H, .rows = 128, .columns = 128, .dtype = dtype};
    double bytes = (1 + (double)hy3_dtype_size(dtype)) * (double)n;
    hy3_fp8 *codes = array(n, HY3_BF16);
    float *scales;

    e.stride = hy3_blocks(I, 128) * hy3_blocks(H, 128);
    scales = array(4 * e.stride, HY3_FP32);
    q.x = e.y = array(n, dtype);
    q.y = codes;
    q.scales = scales;
    e.x = codes;
    e.scales = scales;
    print_bytes("quantize", dtype, bytes, FASTEST(backend->kernels.quantize(NULL, &q)));
    print_bytes("expand", dtype, bytes, FASTEST(backend->kernels.expand(NULL, &e)));
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;

    HY3_TRY_DONE(hy3_start(&argc, &argv, "kernels"));
    HY3_TRY_DONE(hy3_backend_open(MPI_COMM_WORLD, "cpu", &backend));
    measure_limits();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        hy3_dtype dtype = bf16 ? HY3_BF16 : HY3_FP32;

        print_flops("head 2048x32000x512", dtype, 2.0 * T * V * H, time_gemm(dtype, T, V, H));
        measure_experts(dtype);
        measure_attention(dtype);
        measure_memory_bound(dtype);
        measure_scaled(dtype);
    }
done:
    return hy3_finish(status);
}
