/* SPDX-License-Identifier: Apache-2.0 */
/* adamw.cu - the optimizer step, in one pass. Bound by memory: 28 bytes per parameter, 20 with bf16
 * moments, 16 with 8-bit ones, of which a warp updates a block. */
#include "cuda/cuda.h"
#include "cuda/random.h"

extern "C" {
#include "backend/moments.h"
}

#include <float.h>

enum { THREADS = 256 };

HY3_DEVICE float adamw_element(const struct hy3_adamw_step &s, float w, float *m, float *v,
                               float grad)
{
    float g = __fmul_rn(grad, s.grad_scale), root;

    *m = __fadd_rn(*m, __fmul_rn(s.m_share, __fsub_rn(g, *m)));
    *v = __fadd_rn(__fmul_rn(s.v_keep, *v), __fmul_rn(__fmul_rn(s.v_share, g), g));
    root = __fadd_rn(__fmul_rn(sqrtf(*v), s.inverse_v_root), s.eps);
    return __fsub_rn(__fmul_rn(w, s.keep), __fmul_rn(s.step_size, *m / root));
}

/* N fp32 weights: stored as they are, or in two halves as by hy3_join and hy3_split of
 * base/dtype.h. */
template <int N>
HY3_DEVICE void load_master(float (&w)[N], const float *weight, const int16_t *, int64_t i)
{
    load(w, weight + i);
}

template <int N>
HY3_DEVICE void store_master(const float (&w)[N], float *weight, int16_t *, int64_t i)
{
    store(weight + i, w);
}

template <int N>
HY3_DEVICE void load_master(float (&w)[N], const uint16_t *weight, const int16_t *low, int64_t i)
{
    pack<uint16_t, N> high = load_pack<N>(weight + i);
    pack<int16_t, N> rest = load_pack<N>(low + i);

    HY3_UNROLL
    for (int n = 0; n < N; n++) {
        uint32_t bits = ((uint32_t)high.value[n] << 16) + (uint32_t)(int32_t)rest.value[n];

        memcpy(&w[n], &bits, sizeof bits);
    }
}

template <int N>
HY3_DEVICE void store_master(const float (&w)[N], uint16_t *weight, int16_t *low, int64_t i)
{
    pack<uint16_t, N> high;
    pack<int16_t, N> rest;

    HY3_UNROLL
    for (int n = 0; n < N; n++) {
        uint32_t bits;

        memcpy(&bits, &w[n], sizeof bits);
        high.value[n] = (uint16_t)((bits + 0x8000u) >> 16);
        rest.value[n] = (int16_t)(uint16_t)(bits & 0xffffu);
    }
    store_pack(weight + i, high);
    store_pack(low + i, rest);
}

/* Where the random words of bf16 moments are, backend/kernels.h. */
struct rounding {
    uint32_t key0, key1;
    uint64_t high, first; /* first: of the launch's elements, in the tensor */
};

/* Moments in fp32. */
template <int N> HY3_DEVICE void load_moments(float (&x)[N], const float *from)
{
    load(x, from);
}

template <int N>
HY3_DEVICE void store_moments(float *m, float *v, const float (&ms)[N], const float (&vs)[N],
                              const struct rounding &, int64_t)
{
    store(m, ms);
    store(v, vs);
}

/* Moments in bf16, as bits. */
template <int N> HY3_DEVICE void load_moments(float (&x)[N], const uint16_t *from)
{
    pack<uint16_t, N> p = load_pack<N>(from);

    HY3_UNROLL
    for (int i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)p.value[i] << 16;

        memcpy(&x[i], &bits, sizeof bits);
    }
}

HY3_DEVICE uint16_t rounded(float x, uint32_t random)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + (random & 0xffffu)) >> 16);
}

/* N is 4, and so is a factor of place; or it is 1. */
template <int N>
HY3_DEVICE void store_moments(uint16_t *m, uint16_t *v, const float (&ms)[N], const float (&vs)[N],
                              const struct rounding &r, int64_t at)
{
    uint64_t place = r.first + (uint64_t)at;
    pack<uint16_t, N> mp, vp;
    uint32_t word[4];

    philox(r.key0, r.key1, r.high, place / 4, word);
    HY3_UNROLL
    for (int i = 0; i < N; i++) {
        uint32_t random = N == 4          ? word[i]
                          : place % 4 < 2 ? (place % 4 == 0 ? word[0] : word[1])
                                          : (place % 4 == 2 ? word[2] : word[3]);

        mp.value[i] = rounded(ms[i], random >> 16);
        vp.value[i] = rounded(vs[i], random);
    }
    store_pack(m, mp);
    store_pack(v, vp);
}

/* A thread has two groups of N adjacent elements, and loads both before it computes. */
template <class W, class M, int N>
__global__ void adamw_kernel(int64_t n, struct hy3_adamw_step step, W *weight, int16_t *low, M *m,
                             M *v, const float *grad, struct rounding r)
{
    int64_t at[2];
    float ws[2][N], ms[2][N], vs[2][N], gs[2][N];

    HY3_UNROLL
    for (int g = 0; g < 2; g++) {
        at[g] = ((blockIdx.x * (int64_t)2 + g) * blockDim.x + threadIdx.x) * N;
        if (at[g] >= n)
            continue;
        load_master(ws[g], weight, low, at[g]);
        load_moments(ms[g], m + at[g]);
        load_moments(vs[g], v + at[g]);
        load(gs[g], grad + at[g]);
    }
    HY3_UNROLL
    for (int g = 0; g < 2; g++) {
        if (at[g] >= n)
            continue;
        HY3_UNROLL
        for (int i = 0; i < N; i++)
            ws[g][i] = adamw_element(step, ws[g][i], &ms[g][i], &vs[g][i], gs[g][i]);
        store_master(ws[g], weight, low, at[g]);
        store_moments(m + at[g], v + at[g], ms[g], vs[g], r, at[g]);
    }
}

/* The elements from `begin` to `end`. */
template <class W, class M, int N>
static hy3_status update(struct hy3_stream *stream, const struct hy3_adamw *a,
                         const struct hy3_adamw_step &step, int64_t begin, int64_t end)
{
    struct rounding r = {};
    uint32_t key[2];

    hy3_random_key(a->seed, HY3_RANDOM_MOMENT, key);
    r.key0 = key[0];
    r.key1 = key[1];
    r.high = (uint64_t)a->step << 32 | (uint64_t)a->tensor;
    r.first = (uint64_t)(a->first + begin);
    if (begin < end)
        HY3_CUDA_LAUNCH((adamw_kernel<W, M, N>), blocks_for(end - begin, 2 * THREADS * N), THREADS,
                        0, hy3_cuda_stream(stream)->stream, end - begin, step,
                        (W *)a->weight + begin, a->low ? a->low + begin : NULL, (M *)a->m + begin,
                        (M *)a->v + begin, a->grad + begin, r);
    return HY3_OK;
}

/* Four elements at a time as far as addresses, and random words, allow it. */
template <class W, class M>
static hy3_status update_all(struct hy3_stream *stream, const struct hy3_adamw *a,
                             const struct hy3_adamw_step &step)
{
    bool wide = is_wide<float>(0, a->weight, a->m, a->v, a->grad) && is_wide<float>(0, a->low);
    int64_t fours;

    if (a->moments == HY3_MOMENTS_BF16)
        wide = wide && a->first % 4 == 0;
    fours = wide ? a->n / 4 * 4 : 0;
    HY3_TRY((update<W, M, 4>(stream, a, step, 0, fours)));
    return update<W, M, 1>(stream, a, step, fours, a->n);
}

/* ---- 8-bit moments ---- */

/* A number of hy3_moment_book, and the edges of its code. */
HY3_DEVICE float number_of(int code, bool is_signed)
{
    int zero = is_signed ? 127 : 0, rank = code < zero ? zero - code : code - zero;
    int before = 0, n = is_signed ? 1 : 2;
    float ten = 1e7f, x;

    if (rank == 0 || code == 255 || (is_signed && code == 0))
        return rank == 0 ? 0.0f : code == 255 ? 1.0f : -1.0f;
    for (; rank > before + n; ten /= 10, n *= 2)
        before += n;
    x = (float)(2 * n + 9 * (2 * (rank - before - 1) + 1)) / ((float)(2 * n) * ten);
    return code < zero ? -x : x;
}

/* In shared memory: values, and edges between them from 1 on. */
struct book {
    float *value, *edge;
};

/* By all THREADS = 256 threads; the barrier behind it is the caller's. */
HY3_DEVICE void make_book(const struct book &b, bool is_signed)
{
    int code = (int)threadIdx.x;
    float x = number_of(code, is_signed), before = code > 0 ? number_of(code - 1, is_signed) : x;

    b.value[code] = x;
    b.edge[code] = !is_signed && code == 1 ? 0.0f : (before + x) / 2;
}

HY3_DEVICE uint8_t code_of(const struct book &b, float y)
{
    int code = 0;

    HY3_UNROLL
    for (int width = 128; width > 0; width /= 2)
        code += b.edge[code + width] < y ? width : 0;
    return (uint8_t)code;
}

enum { LANE = 4, GROUPS = HY3_MOMENT_BLOCK / 32 / LANE }; /* elements of a lane; groups of them */

/* What a warp updates: elements `at` + .. of the arrays that are in 0 .. n. */
struct block {
    int64_t at[GROUPS];
    bool whole;
};

template <bool wide, class T>
HY3_DEVICE pack<T, LANE> load_some(const T *from, const struct block &b, int g, int64_t n)
{
    pack<T, LANE> p = {};

    if (wide && b.whole)
        return load_pack<LANE>(from + b.at[g]);
    HY3_UNROLL
    for (int i = 0; i < LANE; i++)
        if (b.at[g] + i >= 0 && b.at[g] + i < n)
            p.value[i] = from[b.at[g] + i];
    return p;
}

template <bool wide, class T>
HY3_DEVICE void store_some(T *to, const pack<T, LANE> &p, const struct block &b, int g, int64_t n)
{
    if (wide && b.whole) {
        store_pack(to + b.at[g], p);
        return;
    }
    HY3_UNROLL
    for (int i = 0; i < LANE; i++)
        if (b.at[g] + i >= 0 && b.at[g] + i < n)
            to[b.at[g] + i] = p.value[i];
}

template <bool wide>
HY3_DEVICE void load_masters(float (&w)[LANE], const float *weight, const int16_t *,
                             const struct block &b, int g, int64_t n)
{
    pack<float, LANE> p = load_some<wide>(weight, b, g, n);

    HY3_UNROLL
    for (int i = 0; i < LANE; i++)
        w[i] = p.value[i];
}

template <bool wide>
HY3_DEVICE void load_masters(float (&w)[LANE], const uint16_t *weight, const int16_t *low,
                             const struct block &b, int g, int64_t n)
{
    pack<uint16_t, LANE> high = load_some<wide>(weight, b, g, n);
    pack<int16_t, LANE> rest = load_some<wide>(low, b, g, n);

    load_master(w, high.value, rest.value, 0);
}

template <bool wide>
HY3_DEVICE void store_masters(const float (&w)[LANE], float *weight, int16_t *,
                              const struct block &b, int g, int64_t n)
{
    pack<float, LANE> p;

    store(p.value, w);
    store_some<wide>(weight, p, b, g, n);
}

template <bool wide>
HY3_DEVICE void store_masters(const float (&w)[LANE], uint16_t *weight, int16_t *low,
                              const struct block &b, int g, int64_t n)
{
    pack<uint16_t, LANE> high;
    pack<int16_t, LANE> rest;

    store_master(w, high.value, rest.value, 0);
    store_some<wide>(weight, high, b, g, n);
    store_some<wide>(low, rest, b, g, n);
}

/* Numbers of a block from their codes; elements outside are 0 or what their code says, and do not
 * count. */
template <bool wide>
HY3_DEVICE void decode(float (&x)[GROUPS][LANE], const struct book &book, const uint8_t *codes,
                       float scale, const struct block &b, int64_t n)
{
    HY3_UNROLL
    for (int g = 0; g < GROUPS; g++) {
        pack<uint8_t, LANE> p = load_some<wide>(codes, b, g, n);

        HY3_UNROLL
        for (int i = 0; i < LANE; i++)
            x[g][i] = book.value[p.value[i]] * scale;
    }
}

template <bool wide>
HY3_DEVICE void encode(const float (&x)[GROUPS][LANE], const struct book &book, uint8_t *codes,
                       float *scale, const struct block &b, int64_t n)
{
    float most = 0;

    HY3_UNROLL
    for (int g = 0; g < GROUPS; g++) {
        HY3_UNROLL
        for (int i = 0; i < LANE; i++)
            if (b.at[g] + i >= 0 && b.at[g] + i < n)
                most = fmaxf(most, fabsf(x[g][i]));
    }
    most = fminf(warp_max(most), FLT_MAX);
    HY3_UNROLL
    for (int g = 0; g < GROUPS; g++) {
        pack<uint8_t, LANE> p;

        HY3_UNROLL
        for (int i = 0; i < LANE; i++)
            p.value[i] = code_of(book, most > 0 ? x[g][i] / most : 0.0f);
        store_some<wide>(codes, p, b, g, n);
    }
    if (threadIdx.x % 32 == 0)
        *scale = most;
}

/* The arrays of a launch; `before`: elements of the first block that lie before them. */
template <class W> struct coded {
    int64_t n, before, blocks;
    W *weight;
    int16_t *low;
    uint8_t *m, *v;
    float *m_scale, *v_scale;
    const float *grad;
};

template <class W, bool wide>
HY3_DEVICE void update_block(const struct hy3_adamw_step &step, const struct coded<W> &a,
                             const struct book (&books)[2], int64_t index)
{
    float ms[GROUPS][LANE], vs[GROUPS][LANE];
    int64_t first = index * HY3_MOMENT_BLOCK - a.before;
    struct block b;

    b.whole = first >= 0 && first + HY3_MOMENT_BLOCK <= a.n;
    HY3_UNROLL
    for (int g = 0; g < GROUPS; g++)
        b.at[g] = first + (g * 32 + (int)threadIdx.x % 32) * LANE;
    decode<wide>(ms, books[0], a.m, a.m_scale[index], b, a.n);
    decode<wide>(vs, books[1], a.v, a.v_scale[index], b, a.n);
    HY3_UNROLL
    for (int g = 0; g < GROUPS; g++) {
        pack<float, LANE> grad = load_some<wide>(a.grad, b, g, a.n);
        float w[LANE];

        load_masters<wide>(w, a.weight, a.low, b, g, a.n);
        HY3_UNROLL
        for (int i = 0; i < LANE; i++)
            w[i] = adamw_element(step, w[i], &ms[g][i], &vs[g][i], grad.value[i]);
        store_masters<wide>(w, a.weight, a.low, b, g, a.n);
    }
    encode<wide>(ms, books[0], a.m, &a.m_scale[index], b, a.n);
    encode<wide>(vs, books[1], a.v, &a.v_scale[index], b, a.n);
}

template <class W, bool wide>
__global__ void coded_kernel(struct hy3_adamw_step step, struct coded<W> a)
{
    HY3_SHARED(float, table, [4][256]);
    const struct book books[2] = {{table[0], table[1]}, {table[2], table[3]}};
    int64_t warps = (int64_t)gridDim.x * (THREADS / 32);

    make_book(books[0], true);
    make_book(books[1], false);
    __syncthreads();
    for (int64_t i = blockIdx.x * (int64_t)(THREADS / 32) + threadIdx.x / 32; i < a.blocks;
         i += warps)
        update_block<W, wide>(step, a, books, i);
}

template <class W>
static hy3_status update_coded(struct hy3_stream *stream, const struct hy3_adamw *a,
                               const struct hy3_adamw_step &step)
{
    enum { MOST = 4096 }; /* thread blocks, each of which makes the books */

    int64_t before = a->first % HY3_MOMENT_BLOCK;
    bool wide = is_wide<float>(0, (W *)a->weight - before, (uint8_t *)a->m - before,
                               (uint8_t *)a->v - before, a->grad - before) &&
                is_wide<float>(0, a->low ? a->low - before : NULL);

    struct coded<W> c = {
        a->n, before, hy3_moment_blocks(a->first, a->n), (W *)a->weight, a->low, (uint8_t *)a->m,
            (uint8_t *)a->v, a->m_scale, a->v_scale, a->grad
    };

    unsigned grid = blocks_for(c.blocks, THREADS / 32);

    if (a->n == 0)
        return HY3_OK;
    grid = grid < MOST ? grid : (unsigned)MOST;
    if (wide)
        HY3_CUDA_LAUNCH((coded_kernel<W, true>), grid, THREADS, 0, hy3_cuda_stream(stream)->stream,
                        step, c);
    else
        HY3_CUDA_LAUNCH((coded_kernel<W, false>), grid, THREADS, 0, hy3_cuda_stream(stream)->stream,
                        step, c);
    return HY3_OK;
}

template <class W> static hy3_status adamw(struct hy3_stream *stream, const struct hy3_adamw *a)
{
    const struct hy3_adamw_step step = hy3_adamw_factors(a);

    if (a->moments == HY3_MOMENTS_8BIT)
        return update_coded<W>(stream, a, step);
    if (a->moments == HY3_MOMENTS_BF16)
        return update_all<W, uint16_t>(stream, a, step);
    return update_all<W, float>(stream, a, step);
}

hy3_status hy3_cuda_adamw(struct hy3_stream *stream, const struct hy3_adamw *a)
{
    return a->low ? adamw<uint16_t>(stream, a) : adamw<float>(stream, a);
}
