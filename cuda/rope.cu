/* SPDX-License-Identifier: Apache-2.0 */
/* rope.cu - RMSNorm of each head, then rotation by position. Bound by memory: 2 T heads D elements
 * forward, 3 backward.
 *
 * A block has a few tokens. It computes their angles first; then its warps process their heads. A
 * head belongs to a group of adjacent lanes. A lane holds N adjacent columns of the head's lower
 * half and the same columns of its upper half, so each rotated pair is in one lane. The second read
 * of a head hits the cache. Angles are computed as in transformers, fp32 frequency times fp32
 * position; their sine and cosine in fp64, rounded. The frequencies come from the host, so they
 * have the same bits as on the CPU. */
#include "cuda/cuda.h"

#include <stdlib.h>

/* Warps of a block; its tokens, unless D is very large; shared memory of a block on any device. */
enum { WARPS = 8, TOKENS = 4, SHARED = 48 << 10 };

/* Arguments of the kernels. */
template <class T> struct rope {
    int64_t tokens;
    int heads, half;  /* half: D / 2 */
    int lanes;        /* that share a head, a power of two */
    int block_tokens; /* tokens of a block */
    float eps;
    const int32_t *positions; /* [tokens] */
    const float *frequencies; /* [half] */
    const T *x, *w;           /* as in struct hy3_rope */
    T *y;
    float *r;
    const T *dy;
    T *dx;
    float *partial; /* [blocks][D]: sums for dw, NULL if there are none */
};

/* What a lane works on: for each token of the block some heads, and of each some columns. */
struct share {
    int64_t first;  /* token of the block */
    int tokens;     /* of the block */
    int head, step; /* the lane's first head, and from each to its next */
    int column;     /* the lane's first in each half */
};

template <class T> HY3_DEVICE struct share share_of(const struct rope<T> &a, int width)
{
    struct share s;

    s.first = (int64_t)blockIdx.x * a.block_tokens;
    s.tokens = (int)(a.tokens - s.first < a.block_tokens ? a.tokens - s.first : a.block_tokens);
    s.head = threadIdx.x / a.lanes;
    s.step = blockDim.x / a.lanes;
    s.column = threadIdx.x % a.lanes * width;
    return s;
}

/* A head, or the last one beyond it: loads need no condition, and the lanes of a warp stay
 * together in sums. */
HY3_DEVICE int up_to_last(int head, int heads)
{
    return head < heads ? head : heads - 1;
}

/* Advances by `count` heads of the token, or to the next token. */
HY3_DEVICE void next_heads(int &token, int &base, int count, int heads)
{
    base += count;
    if (base >= heads) {
        base = 0;
        token++;
    }
}

/* angles [tokens of the block][cosines D/2, sines D/2]. Ends with a barrier. */
template <class T> HY3_DEVICE void find_angles(const struct rope<T> &a, float *angles)
{
    for (int i = threadIdx.x; i < a.block_tokens * a.half; i += blockDim.x) {
        int64_t token = (int64_t)blockIdx.x * a.block_tokens + i / a.half;
        int at = i / a.half * 2 * a.half + i % a.half;
        double sine, cosine;

        if (token >= a.tokens)
            break;
        /* in multiples of pi: sincos() would need local memory to reduce a large angle */
        sincospi((double)((float)a.positions[token] * a.frequencies[i % a.half]) *
                     0.31830988618379067,
                 &sine, &cosine);
        angles[at] = (float)cosine;
        angles[at + a.half] = (float)sine;
    }
    __syncthreads();
}

/* Rotates the pairs (a, b) by their angles, or back. */
template <int N>
HY3_DEVICE void rotate(float (&a)[N], float (&b)[N], const float *angle, int half, bool back)
{
    float cosine[N], sine[N];

    load(cosine, angle);
    load(sine, angle + half);
    HY3_UNROLL
    for (int n = 0; n < N; n++) {
        float x = a[n], s = back ? -sine[n] : sine[n];

        a[n] = x * cosine[n] - b[n] * s;
        b[n] = b[n] * cosine[n] + x * s;
    }
}

template <int N> HY3_DEVICE float squares(const float (&x)[N])
{
    float sum = 0;

    HY3_UNROLL
    for (int n = 0; n < N; n++)
        sum += x[n] * x[n];
    return sum;
}

template <int N> HY3_DEVICE void scale_by(float (&x)[N], const float (&w)[N], float scale)
{
    HY3_UNROLL
    for (int n = 0; n < N; n++)
        x[n] = w[n] * (x[n] * scale);
}

/* A lane processes two heads at a time. */
template <class T, int N> __global__ void rope_forward_kernel(const struct rope<T> a)
{
    HY3_DYNAMIC_SHARED(memory);
    float *angles = (float *)memory, low[2][N], high[2][N], w_low[N], w_high[N];
    const struct share own = share_of(a, N);
    const int half = a.half;
    float inverse = 0.5f / (float)half;

    find_angles(a, angles);
    for (int token = 0, base = 0; token < own.tokens;
         next_heads(token, base, 2 * own.step, a.heads)) {
        int head[2] = {base + own.head, base + own.head + own.step};
        int64_t first = (own.first + token) * a.heads;
        int64_t at[2] = {(first + up_to_last(head[0], a.heads)) * 2 * half,
                         (first + up_to_last(head[1], a.heads)) * 2 * half};
        float sum[2] = {0, 0};

        for (int i = own.column; i < half; i += a.lanes * N) {
            HY3_UNROLL
            for (int u = 0; u < 2; u++) {
                load(low[u], a.x + at[u] + i);
                load(high[u], a.x + at[u] + half + i);
            }
            HY3_UNROLL
            for (int u = 0; u < 2; u++)
                sum[u] += squares(low[u]) + squares(high[u]);
        }
        HY3_UNROLL
        for (int u = 0; u < 2; u++) {
            sum[u] = rsqrtf(warp_sum(sum[u], a.lanes) * inverse + a.eps);
            if (own.column == 0 && head[u] < a.heads)
                a.r[first + head[u]] = sum[u];
        }
        for (int i = own.column; i < half; i += a.lanes * N) {
            load(w_low, a.w + i);
            load(w_high, a.w + half + i);
            HY3_UNROLL
            for (int u = 0; u < 2; u++) {
                if (head[u] >= a.heads)
                    continue;
                load(low[u], a.x + at[u] + i);
                load(high[u], a.x + at[u] + half + i);
                scale_by(low[u], w_low, sum[u]);
                scale_by(high[u], w_high, sum[u]);
                rotate(low[u], high[u], angles + token * 2 * half + i, half, false);
                store(a.y + at[u] + i, low[u]);
                store(a.y + at[u] + half + i, high[u]);
            }
        }
    }
}

/* Columns i .. i + N of both halves of a row; dn is dy rotated back. */
template <int N> struct columns {
    float x_low[N], x_high[N], dn_low[N], dn_high[N], w_low[N], w_high[N];
};

template <class T, int N>
HY3_DEVICE void load_columns(struct columns<N> &c, const T *x, const T *dy, const T *w,
                             const float *angle, int half)
{
    load(c.x_low, x);
    load(c.x_high, x + half);
    load(c.dn_low, dy);
    load(c.dn_high, dy + half);
    load(c.w_low, w);
    load(c.w_high, w + half);
    rotate(c.dn_low, c.dn_high, angle, half, true);
}

/* dx = r (w dn - x r^2 mean(w dn x)). With has_dw: partial[block][D] = sum over its rows of x r dn,
 * first over each group of lanes that shares heads, then over the block. */
template <class T, int N, bool has_dw> __global__ void rope_backward_kernel(const struct rope<T> a)
{
    HY3_DYNAMIC_SHARED(memory);
    const struct share own = share_of(a, N);
    const int half = a.half;
    float *angles = (float *)memory, *sums = angles + a.block_tokens * 2 * half;
    float *dw = sums + own.head * 2 * half, inverse = 0.5f / (float)half;
    struct columns<N> c;

    for (int i = threadIdx.x; has_dw && i < own.step * 2 * half; i += blockDim.x)
        sums[i] = 0;
    find_angles(a, angles);
    for (int token = 0, base = 0; token < own.tokens; next_heads(token, base, own.step, a.heads)) {
        int head = base + own.head;
        int64_t row = (own.first + token) * a.heads + up_to_last(head, a.heads);
        const T *x = a.x + row * 2 * half, *dy = a.dy + row * 2 * half;
        T *dx = a.dx + row * 2 * half;
        const float *angle = angles + token * 2 * half;
        float scale = a.r[row], sum = 0;

        for (int i = own.column; i < half; i += a.lanes * N) {
            load_columns(c, x + i, dy + i, a.w + i, angle + i, half);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum += c.x_low[n] * c.w_low[n] * c.dn_low[n] +
                       c.x_high[n] * c.w_high[n] * c.dn_high[n];
            if (has_dw && head < a.heads) {
                add_products(dw + i, c.x_low, c.dn_low, scale);
                add_products(dw + half + i, c.x_high, c.dn_high, scale);
            }
        }
        sum = -scale * scale * scale * (warp_sum(sum, a.lanes) * inverse);
        for (int i = own.column; i < half && head < a.heads; i += a.lanes * N) {
            load_columns(c, x + i, dy + i, a.w + i, angle + i, half);
            HY3_UNROLL
            for (int n = 0; n < N; n++) {
                c.x_low[n] = c.w_low[n] * c.dn_low[n] * scale + c.x_low[n] * sum;
                c.x_high[n] = c.w_high[n] * c.dn_high[n] * scale + c.x_high[n] * sum;
            }
            store(dx + i, c.x_low);
            store(dx + half + i, c.x_high);
        }
    }
    if (!has_dw)
        return;
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * half; i += blockDim.x) {
        float sum = 0;

        for (int group = 0; group < own.step; group++)
            sum += sums[group * 2 * half + i];
        a.partial[(int64_t)blockIdx.x * 2 * half + i] = sum;
    }
}

/* The frequencies of a theta and D, uploaded when those change. */
static hy3_status find_frequencies(struct hy3_stream *s, const struct hy3_rope *a)
{
    int64_t half = a->D / 2;
    float *frequencies;
    hy3_status status;
    void *unused;

    if (s->theta == a->theta && s->D == a->D)
        return HY3_OK;
    HY3_TRY(hy3_cuda_calloc((size_t)half * sizeof *frequencies, &frequencies));
    for (int64_t i = 0; i < half; i++)
        frequencies[i] = 1.0f / powf((float)a->theta, (float)(2 * i) / (float)a->D);
    status = hy3_cuda_upload(s, HY3_SLOT_FREQUENCIES, frequencies,
                             (size_t)half * sizeof *frequencies, &unused);
    free(frequencies);
    HY3_TRY(status);
    s->theta = a->theta;
    s->D = a->D;
    return HY3_OK;
}

/* A launch, for lanes that access `width` elements and process `together` heads at a time; with
 * has_dw each group of lanes sums a part of dw. */
struct layout {
    int lanes, block_tokens;
    unsigned blocks, threads;
    size_t shared; /* bytes */
};

static struct layout lay_out(const struct hy3_rope *a, int width, int together, bool has_dw)
{
    struct layout l;
    size_t row = (size_t)a->D * sizeof(float);

    l.block_tokens = a->D <= 512 ? TOKENS : 1;
    l.lanes = 1;
    while (l.lanes < 32 && l.lanes * width < a->D / 2)
        l.lanes *= 2;
    l.blocks = blocks_for(a->T, l.block_tokens);
    l.threads = threads_for((a->heads + together - 1) / together * l.lanes, 32 * WARPS);
    l.shared = (size_t)l.block_tokens * row;
    if (!has_dw)
        return l;
    while (l.threads > 32 && l.shared + l.threads / l.lanes * row > SHARED)
        l.threads -= 32;
    l.shared += l.threads / l.lanes * row;
    return l;
}

template <class T>
static rope<T> arguments(const struct hy3_stream *s, const struct hy3_rope *a,
                         const struct layout &l, float *partial)
{
    return {
        .tokens = a->T,
        .heads = (int)a->heads,
        .half = (int)(a->D / 2),
        .lanes = l.lanes,
        .block_tokens = l.block_tokens,
        .eps = a->eps,
        .positions = a->positions,
        .frequencies = (const float *)s->scratch[HY3_SLOT_FREQUENCIES].memory,
        .x = (const T *)a->x,
        .w = (const T *)a->w,
        .y = (T *)a->y,
        .r = a->r,
        .dy = (const T *)a->dy,
        .dx = (T *)a->dx,
        .partial = partial,
    };
}

template <class T, int N> static hy3_status forward(struct hy3_stream *s, const struct hy3_rope *a)
{
    const struct layout l = lay_out(a, N, 2, false);

    HY3_TRY(find_frequencies(s, a));
    HY3_CUDA_LAUNCH((rope_forward_kernel<T, N>), l.blocks, l.threads, l.shared, s->stream,
                    arguments<T>(s, a, l, NULL));
    return HY3_OK;
}

template <class T, int N> static hy3_status backward(struct hy3_stream *s, const struct hy3_rope *a)
{
    const struct layout l = lay_out(a, N, 1, a->dw != NULL);
    float *partial = NULL;

    HY3_TRY(find_frequencies(s, a));
    if (!a->dw) {
        HY3_CUDA_LAUNCH((rope_backward_kernel<T, N, false>), l.blocks, l.threads, l.shared,
                        s->stream, arguments<T>(s, a, l, NULL));
        return HY3_OK;
    }
    HY3_TRY(
        hy3_cuda_scratch(s, HY3_SLOT_PARTIAL, l.blocks * (size_t)a->D * sizeof *partial, &partial));
    HY3_CUDA_LAUNCH((rope_backward_kernel<T, N, true>), l.blocks, l.threads, l.shared, s->stream,
                    arguments<T>(s, a, l, partial));
    return hy3_cuda_add_rows(s, l.blocks, a->D, partial, a->dw);
}

hy3_status hy3_cuda_rope_forward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    HY3_CUDA_CHECK_INDICES(stream, rope, positions, a->T, 0, INT32_MAX);
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->D / 2, a->x, a->w, a->y), N,
                 return forward<T, N>(hy3_cuda_stream(stream), a));
}

hy3_status hy3_cuda_rope_backward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    HY3_CUDA_CHECK_INDICES(stream, rope, positions, a->T, 0, INT32_MAX);
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->D / 2, a->x, a->w, a->dy, a->dx), N,
                 return backward<T, N>(hy3_cuda_stream(stream), a));
}
