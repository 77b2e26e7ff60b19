/* SPDX-License-Identifier: Apache-2.0 */
/* bench.cu - time of each kernel at the published shape, as a share of the roofline.
 *   bench [TOKENS]     (default 4096)
 * Bytes and operations are those of doc/gpu.md: the minimum a kernel must move and multiply. Peaks
 * are the vendor's figures for dense bf16 and memory. */
#include "cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern "C" {
#include "backend/gpu.h"
}

enum {
    HIDDEN = 4096,
    HEADS = 64,
    KV_HEADS = 8,
    HEAD = 128,
    EXPERTS = 192,
    HELD = 24,
    TOP_K = 8,
    INNER = 1536,
    VOCABULARY = 120832
};

static const struct {
    const char *part;    /* of the device's name */
    double bytes, flops; /* a second */
} peaks[] = {
    {"H200", 4.8e12, 989e12},
    {"H100 PCIe", 2.0e12, 756e12},
    {"H100", 3.35e12, 989e12},
    {"A100-SXM4-80GB", 2.04e12, 312e12},
    {"A100", 1.56e12, 312e12},
    {"B200", 8e12, 2250e12},
    {"", 0, 0},
};

static const struct hy3_device *device;
static const struct hy3_kernels *kernels;
static struct hy3_stream *stream;
static double peak_bytes, peak_flops;

static void need(hy3_status status)
{
    if (status == HY3_OK)
        return;
    fprintf(stderr, "bench: error: %s\n", hy3_error_text());
    exit(1);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *memory(int64_t bytes)
{
    void *out;

    need(device->alloc((size_t)bytes, &out));
    return out;
}

/* Device memory of n elements: PATTERN of them, each computed by `draw` from a random word,
 * repeated. */
template <class T, class Draw> static T *repeated(int64_t n, Draw draw)
{
    const int64_t PATTERN = (1 << 20) - 3; /* no two rows begin at the same element */
    int64_t most = n < PATTERN ? n : PATTERN;
    T *host = (T *)malloc((size_t)most * sizeof *host),
      *out = (T *)memory(n * (int64_t)sizeof *out);
    uint32_t state = 1;

    for (int64_t i = 0; host && i < most; i++) {
        state = state * 1664525u + 1013904223u;
        host[i] = draw(state >> 3);
    }
    for (int64_t at = 0; at < n; at += most)
        need(device->copy(stream, out + at, host,
                          (size_t)(n - at < most ? n - at : most) * sizeof *out));
    need(device->synchronize(stream));
    free(host);
    return out;
}

/* bf16 numbers of a small range; with zeros the device would clock higher than in real work. */
static void *numbers(int64_t n)
{
    return repeated<uint16_t>(n, [](uint32_t word) {
        return (uint16_t)(0x3c00 | (word >> 6 & 0x80ff) | (word & 0x8000));
    });
}

/* fp32 numbers from `low` to 1. */
static float *floats(int64_t n, float low = -1)
{
    return repeated<float>(
        n, [low](uint32_t word) { return low + (1 - low) * (float)(word >> 5) * 0x1p-24f; });
}

static int32_t *integers(int64_t n, int64_t below)
{
    return repeated<int32_t>(n,
                             [below](uint32_t word) { return (int32_t)(word % (uint32_t)below); });
}

/* Seconds of a call: the median of five rounds of ten. */
template <class Call> static double time_of(Call call)
{
    double rounds[5];

    call();
    need(device->synchronize(stream));
    for (double &round : rounds) {
        double begin = seconds();

        for (int i = 0; i < 10; i++)
            call();
        need(device->synchronize(stream));
        round = (seconds() - begin) / 10;
    }
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5; j++)
            if (rounds[j] < rounds[i]) {
                double kept = rounds[i];

                rounds[i] = rounds[j];
                rounds[j] = kept;
            }
    return rounds[2];
}

static void print(const char *name, double time, double bytes, double flops)
{
    double share = peak_bytes > 0 ? fmax(bytes / peak_bytes, flops / peak_flops) / time : 0;

    printf("%-34s %10.1f us %9.0f GB/s %8.1f TFLOP/s", name, 1e6 * time, 1e-9 * bytes / time,
           1e-12 * flops / time);
    if (share > 0)
        printf("   %5.1f%% of the roofline", 100 * share);
    printf("\n");
    fflush(stdout);
}

static void rows(int64_t T)
{
    struct hy3_rmsnorm norm = {T, HIDDEN, 1e-5f, HY3_BF16};
    struct hy3_swiglu glu = {T, INNER, 2 * INNER, HY3_BF16};
    double elements = (double)T * HIDDEN;

    norm.x = numbers(T * HIDDEN);
    norm.w = numbers(HIDDEN);
    norm.y = memory(T * HIDDEN * 2);
    norm.r = (float *)memory(T * 4);
    norm.dy = norm.x;
    norm.dx = norm.y;
    print("rmsnorm forward", time_of([&] { need(kernels->rmsnorm_forward(stream, &norm)); }),
          4 * elements, 0);
    print("rmsnorm backward, frozen",
          time_of([&] { need(kernels->rmsnorm_backward(stream, &norm)); }), 8 * elements, 0);
    norm.dw = (float *)memory(HIDDEN * 4);
    print("rmsnorm backward", time_of([&] { need(kernels->rmsnorm_backward(stream, &norm)); }),
          8 * elements, 0);
    glu.gate = numbers(T * 2 * INNER);
    glu.up = (const char *)glu.gate + INNER * 2;
    glu.y = memory(T * INNER * 2);
    glu.dy = numbers(T * INNER);
    glu.dgate = memory(T * 2 * INNER * 2);
    glu.dup = (char *)glu.dgate + INNER * 2;
    print("swiglu forward", time_of([&] { need(kernels->swiglu_forward(stream, &glu)); }),
          6.0 * (double)T * INNER, 0);
    print("swiglu backward", time_of([&] { need(kernels->swiglu_backward(stream, &glu)); }),
          10.0 * (double)T * INNER, 0);
}

static void attention(int64_t T)
{
    struct hy3_attention a = {};
    const int64_t starts[2] = {0, T};
    double forward = 2.0 * 2 * (double)T * (double)T / 2 * HEADS * HEAD;
    double bytes = 2.0 * (double)T * HEAD * (2 * HEADS + 2 * KV_HEADS);

    a.S = 1;
    a.Q = HEADS;
    a.K = KV_HEADS;
    a.D = HEAD;
    a.q_starts = a.kv_first = starts;
    a.kv_end = starts + 1;
    a.scale = 0.088388f;
    a.dtype = HY3_BF16;
    a.q = numbers(T * HEADS * HEAD);
    a.k = numbers(T * KV_HEADS * HEAD);
    a.v = numbers(T * KV_HEADS * HEAD);
    a.o = memory(T * HEADS * HEAD * 2);
    a.lse = (float *)memory(T * HEADS * 4);
    print("attention forward", time_of([&] { need(kernels->attention_forward(stream, &a)); }),
          bytes, forward);
    a.dout = a.q;
    a.dq = memory(T * HEADS * HEAD * 2);
    a.dk = memory(T * KV_HEADS * HEAD * 2);
    a.dv = memory(T * KV_HEADS * HEAD * 2);
    print("attention backward", time_of([&] { need(kernels->attention_backward(stream, &a)); }),
          2 * bytes, 2.5 * forward);
}

/* A call of kernels->OP, timed and printed with its bytes. */
#define TIME(name, op, args, bytes) \
    print(name, time_of([&] { need(kernels->op(stream, &(args))); }), bytes, 0)

static void heads(int64_t T)
{
    struct hy3_rope rope = {T, HEADS, HEAD, 1e-5f, 11158840, HY3_BF16};
    double elements = (double)T * HEADS * HEAD;

    rope.positions = integers(T, T);
    rope.x = numbers(T * HEADS * HEAD);
    rope.w = numbers(HEAD);
    rope.y = rope.dx = memory(T * HEADS * HEAD * 2);
    rope.r = (float *)memory(T * HEADS * 4);
    rope.dy = numbers(T * HEADS * HEAD);
    TIME("q norm + RoPE forward", rope_forward, rope, 4 * elements);
    TIME("q norm + RoPE backward, frozen", rope_backward, rope, 6 * elements);
    rope.dw = floats(HEAD);
    TIME("q norm + RoPE backward", rope_backward, rope, 6 * elements);
}

/* From router scores to rows in expert order, and back. */
static void routing(int64_t T)
{
    struct hy3_router router = {T, EXPERTS, TOP_K, 2.826f};
    struct hy3_route_index index = {T, EXPERTS, TOP_K, 1, 1};
    struct hy3_permute rows = {T, T * TOP_K, HIDDEN, TOP_K, HY3_BF16};
    struct hy3_unpermute sum = {T, T * TOP_K, HIDDEN, TOP_K, HY3_BF16};
    struct hy3_row_dot dot = {T * TOP_K, INNER, HY3_BF16};
    double row = 2.0 * HIDDEN, n = (double)T, r = n * TOP_K;

    router.logits = floats(T * EXPERTS, -4);
    router.bias = floats(EXPERTS);
    router.ids = (int32_t *)memory(T * TOP_K * 4);
    router.weights = (float *)memory(T * TOP_K * 4);
    router.products = floats(T * TOP_K);
    router.dlogits = (float *)memory(T * EXPERTS * 4);
    TIME("router forward", router_forward, router, 4 * n * (EXPERTS + 2 * TOP_K));
    index.ids = router.ids;
    index.position = (int32_t *)memory(T * TOP_K * 4);
    index.token = (int32_t *)memory(T * TOP_K * 4);
    index.starts = (int64_t *)memory((EXPERTS + 1) * 8);
    TIME("order of rows by expert", route_index, index, 12 * r);
    router.place = index.position;
    router.R = T * TOP_K;
    TIME("router backward", router_backward, router, 4 * n * (EXPERTS + 4 * TOP_K));
    rows.token = index.token;
    rows.position = sum.position = index.position;
    rows.x = numbers(T * HIDDEN);
    rows.y = memory(T * TOP_K * HIDDEN * 2);
    rows.dy = numbers(T * TOP_K * HIDDEN);
    rows.dx = memory(T * HIDDEN * 2);
    TIME("permute forward", permute_forward, rows, row * (n + r));
    TIME("permute backward", permute_backward, rows, row * (n + r));
    sum.weights = router.weights;
    sum.y = rows.dy;
    sum.shared = rows.x;
    sum.out = rows.dx;
    sum.accumulate = true;
    sum.dout = rows.x;
    sum.dy = rows.y;
    TIME("unpermute forward", unpermute_forward, sum, row * (r + 3 * n));
    TIME("unpermute backward", unpermute_backward, sum, row * (r + n));
    dot.a = rows.dy;
    dot.b = rows.y;
    dot.y = router.weights;
    TIME("products of rows", row_dot, dot, row * r * 2 * INNER / HIDDEN);
}

static void ends(int64_t T)
{
    struct hy3_embedding e = {T, HIDDEN, VOCABULARY, HY3_BF16};
    const int64_t chunk = T < 256 ? T : 256;
    struct hy3_loss loss = {chunk, VOCABULARY};
    double elements = (double)T * HIDDEN, logits = (double)chunk * VOCABULARY;

    e.ids = integers(T, VOCABULARY);
    e.W = numbers((int64_t)VOCABULARY * HIDDEN);
    e.y = memory(T * HIDDEN * 2);
    e.dy = numbers(T * HIDDEN);
    e.dW = (float *)memory((int64_t)VOCABULARY * HIDDEN * 4);
    TIME("embedding forward", embedding_forward, e, 4 * elements);
    TIME("embedding backward", embedding_backward, e, 10 * elements);
    device->free((void *)(uintptr_t)e.W);
    device->free(e.dW);
    loss.logits = floats(chunk * VOCABULARY, -4);
    loss.targets = integers(chunk, VOCABULARY);
    loss.loss = (float *)memory(chunk * 4);
    loss.lse = (float *)memory(chunk * 4);
    loss.scale = 1;
    loss.dtype = HY3_BF16;
    loss.dlogits = memory(chunk * VOCABULARY * 2);
    TIME("cross-entropy of a chunk forward", loss_forward, loss, 4 * logits);
    TIME("cross-entropy of a chunk backward", loss_backward, loss, 6 * logits);
}

static void elements(int64_t T)
{
    int64_t n = T * HIDDEN;
    struct hy3_cast cast = {n, HY3_BF16, HY3_FP32, numbers(n), memory(n * 4)};
    struct hy3_add add = {n, HY3_BF16, HY3_BF16, cast.x, memory(n * 2)};
    struct hy3_dropout dropout = {T, HIDDEN, 0.05f, 42, 7};
    struct hy3_noise noise = {T, HIDDEN, 42};
    struct hy3_square_sum sum = {n, HY3_FP32, floats(n), false, (double *)memory(8)};

    TIME("cast bf16 to fp32", cast, cast, 6.0 * (double)n);
    TIME("add", add, add, 6.0 * (double)n);
    dropout.keys = (const uint64_t *)floats(2 * T);
    dropout.dtype = HY3_BF16;
    dropout.x = cast.x;
    dropout.y = add.y;
    TIME("dropout", dropout, dropout, 4.0 * (double)n);
    noise.keys = dropout.keys;
    noise.scale = floats(T);
    noise.dtype = HY3_BF16;
    noise.y = add.y;
    TIME("noise", noise, noise, 4.0 * (double)n);
    TIME("sum of squares", square_sum, sum, 4.0 * (double)n);
}

/* The matrices [INNER,HIDDEN] of the experts that a rank holds, in 8 bits and back. */
static void scaled(void)
{
    int64_t n = (int64_t)HELD * INNER * HIDDEN, stride = INNER / 128 * (HIDDEN / 128);
    struct hy3_quantize q = {HELD * INNER, HIDDEN, 128, 128, HY3_BF16, numbers(n)};
    struct hy3_expand e = {HELD, INNER, HIDDEN, 128, 128, stride};

    q.y = (hy3_fp8 *)memory(n);
    q.scales = floats(HELD * stride);
    e.x = q.y;
    e.scales = q.scales;
    e.dtype = HY3_BF16;
    e.y = memory(n * 2);
    TIME("quantize", quantize, q, 5.0 * (double)n);
    TIME("expand", expand, e, 3.0 * (double)n);
}

/* A product [M,N] over K of any form; fp32 for router scores. */
static void product(const char *name, enum hy3_gemm_form form, int64_t M, int64_t N, int64_t K,
                    hy3_dtype dtype = HY3_BF16)
{
    bool is_gradient = form == HY3_TN;
    hy3_dtype c = is_gradient ? HY3_FP32 : dtype;
    double size = (double)hy3_dtype_size(dtype), c_size = (double)hy3_dtype_size(c);
    struct hy3_gemm g = {form, M, N, K, dtype, c, is_gradient, 1};

    g.A = dtype == HY3_FP32 ? floats(M * K) : numbers(M * K);
    g.B = dtype == HY3_FP32 ? floats(N * K) : numbers(N * K);
    g.C = memory(M * N * (int64_t)c_size);
    print(name, time_of([&] { need(kernels->gemm(stream, &g)); }),
          size * (double)(M * K + N * K) + c_size * (double)(M * N) * (is_gradient ? 2 : 1),
          2.0 * (double)M * (double)N * (double)K);
    device->free((void *)(uintptr_t)g.A);
    device->free((void *)(uintptr_t)g.B);
    device->free(g.C);
}

static void products(int64_t T, bool is_small)
{
    const int64_t wide = is_small ? HEAD : HEADS * HEAD, hidden = is_small ? HEAD : HIDDEN;
    const int64_t chunk = is_small ? 16 : 256, vocabulary = is_small ? HEAD : VOCABULARY;

    product("cuBLAS: q_proj", HY3_NT, T, wide, hidden);
    product("cuBLAS: q_proj, input gradient", HY3_NN, T, hidden, wide);
    product("cuBLAS: q_proj, weight gradient", HY3_TN, wide, hidden, T);
    product("cuBLAS: k_proj", HY3_NT, T, KV_HEADS * HEAD, hidden);
    product("cuBLAS: router, fp32", HY3_NT, T, EXPERTS, hidden, HY3_FP32);
    product("cuBLAS: a chunk of the head", HY3_NT, chunk, vocabulary, hidden);
    product("cuBLAS: the same, input gradient", HY3_NN, chunk, hidden, vocabulary);
    product("cuBLAS: the same, weight gradient", HY3_TN, vocabulary, hidden, chunk);
}

/* The expert product in one call and in several streams, to find the better one (cuda/gemm.cu,
 * hy3_cuda_grouped_rows). */
static bool is_better_in_streams(enum hy3_gemm_form form, int64_t each)
{
    static const char *const names[] = {"NT", "NN", "TN"};
    bool is_gradient = form == HY3_TN; /* never in one call */
    double times[2] = {0, 0};
    int64_t starts[HELD + 1], rows = HELD * each, wide = 2 * INNER;
    struct hy3_grouped_gemm g = {form,   HELD,    starts, wide, is_gradient ? HIDDEN : wide,
                                 HIDDEN, HY3_BF16};
    int64_t kept = hy3_cuda_grouped_rows;
    char name[64];

    for (int i = 0; i <= HELD; i++) /* uneven, as tokens choose */
        starts[i] = i == HELD ? rows : i * each + (i % 2) * (each / 3);
    if (form == HY3_NN) {
        g.N = HIDDEN;
        g.K = wide;
    }
    g.c_dtype = is_gradient ? HY3_FP32 : HY3_BF16;
    g.accumulate = is_gradient;
    g.alpha = 1;
    g.A = numbers(rows * (form == HY3_NT ? (int64_t)HIDDEN : wide));
    g.B = numbers(is_gradient ? rows * HIDDEN : HELD * wide * HIDDEN);
    g.C = memory(is_gradient ? HELD * wide * HIDDEN * 4
                             : rows * (form == HY3_NT ? wide : (int64_t)HIDDEN) * 2);
    for (int one = 0; one < (is_gradient ? 1 : 2); one++) {
        hy3_cuda_grouped_rows = one ? INT64_MAX : 0;
        snprintf(name, sizeof name, "%d experts x %lld rows, %s, %s", (int)HELD, (long long)each,
                 names[form], one ? "one call" : "streams");
        times[one] = time_of([&] { need(kernels->grouped_gemm(stream, &g)); });
        print(name, times[one],
              2.0 * (double)rows * (double)(HIDDEN + wide) +
                  (is_gradient ? 8.0 : 2.0) * HELD * (double)(wide * HIDDEN),
              2.0 * (double)rows * (double)wide * HIDDEN);
    }
    hy3_cuda_grouped_rows = kept;
    device->free((void *)(uintptr_t)g.A);
    device->free((void *)(uintptr_t)g.B);
    device->free(g.C);
    return times[0] < times[1];
}

/* Prints what hy3_cuda_grouped_rows should be on this device. */
static void choose_grouped_rows(void)
{
    int64_t most = 0; /* rows that are faster in one call */

    for (int64_t each = 16; each <= 1024; each *= 2) {
        bool forward = is_better_in_streams(HY3_NT, each),
             back = is_better_in_streams(HY3_NN, each);

        if (!forward && !back)
            most = each;
        if (each == 1024)
            is_better_in_streams(HY3_TN, each);
    }
    printf(
        "grouped products: one call up to %lld rows an expert, streams from %lld on; cuda/gemm.cu "
        "has hy3_cuda_grouped_rows = %lld\n",
        (long long)most, (long long)(2 * most), (long long)hy3_cuda_grouped_rows);
}

static void update(int64_t n)
{
    struct hy3_adamw a = {};

    a.n = n;
    a.step = 1;
    a.lr = 1e-5;
    a.beta1 = 0.9;
    a.beta2 = 0.95;
    a.eps = 1e-8;
    a.grad_scale = 1;
    a.dtype = HY3_BF16;
    a.weight = numbers(n);
    a.low = (int16_t *)memory(n * 2);
    a.m = floats(n);
    a.v = floats(n, 0);
    a.grad = floats(n);
    print("adamw, split master", time_of([&] { need(kernels->adamw(stream, &a)); }),
          28.0 * (double)n, 0);
    a.moments = HY3_MOMENTS_BF16; /* of the same memory */
    print("adamw, bf16 moments", time_of([&] { need(kernels->adamw(stream, &a)); }),
          20.0 * (double)n, 0);
    a.moments = HY3_MOMENTS_8BIT;
    a.m_scale = floats(n / 256 + 1);
    a.v_scale = floats(n / 256 + 1);
    print("adamw, 8-bit moments", time_of([&] { need(kernels->adamw(stream, &a)); }),
          16.0 * (double)n, 0);
}

int main(int argc, char **argv)
{
    int64_t T = argc > 1 ? strtol(argv[1], NULL, 10) : 4096;
    bool is_small = T < 1024; /* a test of this program, not of a device */
    cudaDeviceProp about;

    need(hy3_test_gpu(&device, &kernels));
    need(device->stream_create(&stream));
    if (cudaGetDeviceProperties(&about, 0) != cudaSuccess)
        return 1;
    for (size_t i = 0; peak_bytes == 0 && i < sizeof peaks / sizeof *peaks; i++)
        if (strstr(about.name, peaks[i].part)) {
            peak_bytes = peaks[i].bytes;
            peak_flops = peaks[i].flops;
        }
    printf("%s: peak %.2f TB/s, %.0f TFLOP/s bf16 (0: unknown); %lld tokens\n", about.name,
           1e-12 * peak_bytes, 1e-12 * peak_flops, (long long)T);
    rows(T);
    attention(T);
    heads(T);
    routing(T);
    elements(T);
    scaled();
    products(T, is_small);
    if (!is_small)
        ends(T);
    if (T == 4096)
        choose_grouped_rows();
    update(is_small ? 10000 : 100000000);
    return 0;
}
