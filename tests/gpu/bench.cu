/* bench.cu - seconds of each kernel at the published shape, as a share of what the device can do at most.
 *   bench [TOKENS]     (default 4096)
 * Bytes and operations are those of doc/gpu.md: what a kernel must move and multiply, not what it does. Peaks are the vendor's
 * figures for dense bf16 and memory. */
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

/* bf16 numbers of a small range; zeros would let the device clock higher than real work does. */
static void *numbers(int64_t n)
{
    uint16_t *host = (uint16_t *)malloc((size_t)n * 2);
    void *out = memory(n * 2);
    uint32_t state = 1;

    for (int64_t i = 0; host && i < n; i++) {
        state = state * 1664525u + 1013904223u;
        host[i] = (uint16_t)(0x3c00 | (state >> 9 & 0x80ff) | (state >> 3 & 0x8000));
    }
    need(device->copy(stream, out, host, (size_t)n * 2));
    need(device->synchronize(stream));
    free(host);
    return out;
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
          12 * elements, 0);
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
    a.q_starts = a.kv_starts = starts;
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

static void product(const char *name, int64_t M, int64_t N, int64_t K)
{
    struct hy3_gemm g = {
        HY3_NT,           M, N, K, HY3_BF16, HY3_BF16, false, 1, numbers(M * K), numbers(N * K),
        memory(M * N * 2)};

    print(name, time_of([&] { need(kernels->gemm(stream, &g)); }),
          2.0 * (double)(M * K + N * K + M * N), 2.0 * (double)M * (double)N * (double)K);
    device->free((void *)(uintptr_t)g.A);
    device->free((void *)(uintptr_t)g.B);
    device->free(g.C);
}

/* The experts' product both ways, to find where one call beats several streams (cuda/gemm.cu, hy3_cuda_grouped_rows). */
static void groups(int64_t each)
{
    int64_t starts[HELD + 1];
    struct hy3_grouped_gemm g = {HY3_NT, HELD,     starts,   0,     2 * INNER,
                                 HIDDEN, HY3_BF16, HY3_BF16, false, 1};
    int64_t kept = hy3_cuda_grouped_rows;
    char name[64];

    for (int i = 0; i <= HELD; i++)
        starts[i] = i * each;
    g.A = numbers(HELD * each * HIDDEN);
    g.B = numbers((int64_t)HELD * 2 * INNER * HIDDEN);
    g.C = memory(HELD * each * 2 * INNER * 2);
    for (int one = 0; one < 2; one++) {
        hy3_cuda_grouped_rows = one ? INT64_MAX : 0;
        snprintf(name, sizeof name, "%d experts x %lld rows, %s", (int)HELD, (long long)each,
                 one ? "one call" : "streams");
        print(name, time_of([&] { need(kernels->grouped_gemm(stream, &g)); }),
              2.0 * HELD *
                  ((double)each * HIDDEN + 2.0 * INNER * HIDDEN + (double)each * 2 * INNER),
              2.0 * HELD * (double)each * 2 * INNER * HIDDEN);
    }
    hy3_cuda_grouped_rows = kept;
    device->free((void *)(uintptr_t)g.A);
    device->free((void *)(uintptr_t)g.B);
    device->free(g.C);
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
    a.m = (float *)memory(n * 4);
    a.v = (float *)memory(n * 4);
    a.grad = (float *)memory(n * 4);
    print("adamw, split master", time_of([&] { need(kernels->adamw(stream, &a)); }),
          28.0 * (double)n, 0);
}

int main(int argc, char **argv)
{
    int64_t T = argc > 1 ? strtol(argv[1], NULL, 10) : 4096;
    bool is_small = T < 1024; /* a trial of this program, not of a device */
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
    printf("%s: %.2f TB/s, %.0f TFLOP/s bf16 at most (0: not known); %lld tokens\n", about.name,
           1e-12 * peak_bytes, 1e-12 * peak_flops, (long long)T);
    rows(T);
    attention(T);
    product("cuBLAS: q_proj", T, is_small ? HEAD : HEADS * HEAD, HIDDEN);
    product("cuBLAS: o_proj", T, is_small ? HEAD : HIDDEN, is_small ? HEAD : HEADS * HEAD);
    product("cuBLAS: a chunk of the head", is_small ? 16 : 1024, is_small ? HEAD : VOCABULARY,
            is_small ? HEAD : HIDDEN);
    for (int64_t each = 16; each <= 1024 && !is_small; each *= 4)
        groups(each);
    update(is_small ? 10000 : 100000000);
    return 0;
}
