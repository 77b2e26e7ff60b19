/* SPDX-License-Identifier: Apache-2.0 */
/* rope.cu - RMSNorm of each head, then rotation by position. Bound by memory: 2 T heads D elements
 * forward, 3 backward.
 *
 * A block has a few tokens. It computes their angles first, then its warps take their heads: a head
 * belongs to some lanes, side by side, and a lane has N neighbouring columns of its lower half and
 * the same of the upper half at a time, so what is rotated together is in one lane. A head's second
 * reading finds it in the cache. Angles are what transformers computes: fp32 frequency times fp32
 * position; their sine and cosine in fp64, rounded. The frequencies come from the host, so they
 * have the same bits as on the CPU. */
#include "cuda/cuda.h"

#include <stdlib.h>

/* Warps of a block; its tokens, where D is not very large; shared memory that any device has. */
enum { WARPS = 8, TOKENS = 4, SHARED = 48 << 10 };

/* What a lane works on: for each token of the block some heads, and of each some columns. */
struct share {
    int64_t first;  /* the block's first token */
    int tokens;     /* of the block */
    int head, step; /* the first of this lane's heads, and from one to the next */
    int column;     /* the first of this lane's columns in each half */
};

HY3_DEVICE struct share share_of(int64_t T, int lanes, int tokens, int width)
{
    struct share s;

    s.first = (int64_t)blockIdx.x * tokens;
    s.tokens = (int)(T - s.first < tokens ? T - s.first : tokens);
    s.head = threadIdx.x / lanes;
    s.step = blockDim.x / lanes;
    s.column = threadIdx.x % lanes * width;
    return s;
}

/* A head, or the last one for a lane that is beyond it: reading needs no condition, and lanes that
 * meet in sums stay together. */
HY3_DEVICE int up_to_last(int head, int heads)
{
    return head < heads ? head : heads - 1;
}

/* From `base` on the next so many heads of the token, or the first of the next token. */
HY3_DEVICE void next_heads(int &token, int &base, int count, int heads)
{
    base += count;
    if (base >= heads) {
        base = 0;
        token++;
    }
}

/* angles [tokens of the block][cosines D/2, sines D/2]. Ends with a barrier. */
HY3_DEVICE void find_angles(int64_t T, int half, int tokens, const int32_t *positions,
                            const float *frequencies, float *angles)
{
    for (int i = threadIdx.x; i < tokens * half; i += blockDim.x) {
        int64_t token = (int64_t)blockIdx.x * tokens + i / half;
        int at = i / half * 2 * half + i % half;
        double sine, cosine;

        if (token >= T)
            break;
        /* by multiples of pi: sincos() would need local memory to reduce a large angle */
        sincospi((double)((float)positions[token] * frequencies[i % half]) * 0.31830988618379067,
                 &sine, &cosine);
        angles[at] = (float)cosine;
        angles[at + half] = (float)sine;
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

HY3_DEVICE float sum_of_lanes(float x, int lanes)
{
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
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

/* A lane reads two heads at once. */
template <class T, int N>
__global__ void rope_forward_kernel(int64_t tokens_in_all, int heads, int half, int lanes,
                                    int tokens, float eps, const int32_t *positions,
                                    const float *frequencies, const T *x, const T *w, T *y,
                                    float *r)
{
    HY3_DYNAMIC_SHARED(memory);
    float *angles = (float *)memory, low[2][N], high[2][N], w_low[N], w_high[N];
    struct share own = share_of(tokens_in_all, lanes, tokens, N);
    float inverse = 0.5f / (float)half;

    find_angles(tokens_in_all, half, tokens, positions, frequencies, angles);
    for (int token = 0, base = 0; token < own.tokens;
         next_heads(token, base, 2 * own.step, heads)) {
        int head[2] = {base + own.head, base + own.head + own.step};
        int64_t first = (own.first + token) * heads;
        const T *in[2] = {x + (first + up_to_last(head[0], heads)) * 2 * half,
                          x + (first + up_to_last(head[1], heads)) * 2 * half};
        float sum[2] = {0, 0};

        for (int i = own.column; i < half; i += lanes * N) {
            HY3_UNROLL
            for (int u = 0; u < 2; u++) {
                load(low[u], in[u] + i);
                load(high[u], in[u] + half + i);
            }
            HY3_UNROLL
            for (int u = 0; u < 2; u++)
                sum[u] += squares(low[u]) + squares(high[u]);
        }
        HY3_UNROLL
        for (int u = 0; u < 2; u++) {
            sum[u] = rsqrtf(sum_of_lanes(sum[u], lanes) * inverse + eps);
            if (own.column == 0 && head[u] < heads)
                r[first + head[u]] = sum[u];
        }
        for (int i = own.column; i < half; i += lanes * N) {
            load(w_low, w + i);
            load(w_high, w + half + i);
            HY3_UNROLL
            for (int u = 0; u < 2; u++) {
                T *to = y + (in[u] - x) + i;

                if (head[u] >= heads)
                    continue;
                load(low[u], in[u] + i);
                load(high[u], in[u] + half + i);
                scale_by(low[u], w_low, sum[u]);
                scale_by(high[u], w_high, sum[u]);
                rotate(low[u], high[u], angles + token * 2 * half + i, half, false);
                store(to, low[u]);
                store(to + half, high[u]);
            }
        }
    }
}

/* What the sums of the lanes are of: columns i .. i + N of both halves of a row, dn being dy turned
 * back. */
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
 * first for each group of lanes that has heads, then for the block. */
template <class T, int N, bool has_dw>
__global__ void rope_backward_kernel(int64_t tokens_in_all, int heads, int half, int lanes,
                                     int tokens, const int32_t *positions, const float *frequencies,
                                     const T *x, const T *w, const float *r, const T *dy, T *dx,
                                     float *partial)
{
    HY3_DYNAMIC_SHARED(memory);
    float *angles = (float *)memory, *sums = angles + tokens * 2 * half;
    struct share own = share_of(tokens_in_all, lanes, tokens, N);
    float *dw = sums + own.head * 2 * half, inverse = 0.5f / (float)half;
    struct columns<N> c;

    for (int i = threadIdx.x; has_dw && i < own.step * 2 * half; i += blockDim.x)
        sums[i] = 0;
    find_angles(tokens_in_all, half, tokens, positions, frequencies, angles);
    for (int token = 0, base = 0; token < own.tokens; next_heads(token, base, own.step, heads)) {
        int head = base + own.head;
        int64_t row = (own.first + token) * heads + up_to_last(head, heads), at = row * 2 * half;
        const float *angle = angles + token * 2 * half;
        float scale = r[row], sum = 0;

        for (int i = own.column; i < half; i += lanes * N) {
            load_columns(c, x + at + i, dy + at + i, w + i, angle + i, half);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum += c.x_low[n] * c.w_low[n] * c.dn_low[n] +
                       c.x_high[n] * c.w_high[n] * c.dn_high[n];
            if (has_dw && head < heads) {
                add_products(dw + i, c.x_low, c.dn_low, scale);
                add_products(dw + half + i, c.x_high, c.dn_high, scale);
            }
        }
        sum = -scale * scale * scale * (sum_of_lanes(sum, lanes) * inverse);
        for (int i = own.column; i < half && head < heads; i += lanes * N) {
            load_columns(c, x + at + i, dy + at + i, w + i, angle + i, half);
            HY3_UNROLL
            for (int n = 0; n < N; n++) {
                c.x_low[n] = c.w_low[n] * c.dn_low[n] * scale + c.x_low[n] * sum;
                c.x_high[n] = c.w_high[n] * c.dn_high[n] * scale + c.x_high[n] * sum;
            }
            store(dx + at + i, c.x_low);
            store(dx + at + half + i, c.x_high);
        }
    }
    if (!has_dw)
        return;
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * half; i += blockDim.x) {
        float sum = 0;

        for (int group = 0; group < own.step; group++)
            sum += sums[group * 2 * half + i];
        partial[(int64_t)blockIdx.x * 2 * half + i] = sum;
    }
}

/* The frequencies of a theta and D, uploaded when they change. */
static hy3_status prepare(struct hy3_stream *stream, const struct hy3_rope *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    int64_t half = a->D / 2;
    float *frequencies;
    hy3_status status;
    void *unused;

    if (s->theta == a->theta && s->D == a->D)
        return HY3_OK;
    frequencies = (float *)malloc((size_t)half * sizeof *frequencies);
    if (!frequencies)
        return hy3_cuda_failed("malloc", "out of host memory", true, __FILE__, __LINE__);
    for (int64_t i = 0; i < half; i++)
        frequencies[i] = 1.0f / powf((float)a->theta, (float)(2 * i) / (float)a->D);
    status = hy3_cuda_upload(stream, HY3_SLOT_FREQUENCIES, frequencies,
                             (size_t)half * sizeof *frequencies, &unused);
    free(frequencies);
    HY3_STATUS_TRY(status);
    s->theta = a->theta;
    s->D = a->D;
    return HY3_OK;
}

/* How the heads lie on the device. */
struct layout {
    int half, lanes, tokens;
    unsigned blocks, threads;
    size_t shared; /* bytes */
};

/* For accesses of `width` elements, and lanes that work on so many heads at once; has_dw: each
 * group of lanes sums a part of dw. */
static struct layout lay_out(const struct hy3_rope *a, int width, int together, bool has_dw)
{
    struct layout l;
    size_t row = (size_t)a->D * sizeof(float);

    l.half = (int)(a->D / 2);
    l.tokens = a->D <= 512 ? TOKENS : 1;
    l.lanes = 1;
    while (l.lanes < 32 && l.lanes * width < l.half)
        l.lanes *= 2;
    l.blocks = blocks_for(a->T, l.tokens);
    l.threads = threads_for((a->heads + together - 1) / together * l.lanes, 32 * WARPS);
    l.shared = (size_t)l.tokens * row;
    if (!has_dw)
        return l;
    while (l.threads > 32 && l.shared + l.threads / l.lanes * row > SHARED)
        l.threads -= 32;
    l.shared += l.threads / l.lanes * row;
    return l;
}

template <class T, int N>
static hy3_status forward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    struct layout l = lay_out(a, N, 2, false);

    HY3_STATUS_TRY(prepare(stream, a));
    HY3_CUDA_LAUNCH((rope_forward_kernel<T, N>), l.blocks, l.threads, l.shared, s->stream, a->T,
                    (int)a->heads, l.half, l.lanes, l.tokens, a->eps, a->positions,
                    (const float *)s->scratch[HY3_SLOT_FREQUENCIES].memory, (const T *)a->x,
                    (const T *)a->w, (T *)a->y, a->r);
    return HY3_OK;
}

template <class T, int N, bool has_dw>
static hy3_status backward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    struct layout l = lay_out(a, N, 1, has_dw);
    void *partial = NULL;

    HY3_STATUS_TRY(prepare(stream, a));
    if (has_dw)
        HY3_STATUS_TRY(hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL,
                                        l.blocks * (size_t)a->D * sizeof(float), &partial));
    HY3_CUDA_LAUNCH((rope_backward_kernel<T, N, has_dw>), l.blocks, l.threads, l.shared, s->stream,
                    a->T, (int)a->heads, l.half, l.lanes, l.tokens, a->positions,
                    (const float *)s->scratch[HY3_SLOT_FREQUENCIES].memory, (const T *)a->x,
                    (const T *)a->w, a->r, (const T *)a->dy, (T *)a->dx, (float *)partial);
    if (has_dw)
        return hy3_cuda_add_rows(stream, l.blocks, a->D, (const float *)partial, a->dw);
    return HY3_OK;
}

template <class T> static hy3_status forward_of(struct hy3_stream *stream, const struct hy3_rope *a)
{
    return is_wide<T>(a->D / 2, a->x, a->w, a->y) ? forward<T, 16 / (int)sizeof(T)>(stream, a)
                                                  : forward<T, 1>(stream, a);
}

template <class T, bool has_dw>
static hy3_status backward_of(struct hy3_stream *stream, const struct hy3_rope *a)
{
    return is_wide<T>(a->D / 2, a->x, a->w, a->dy, a->dx)
               ? backward<T, 16 / (int)sizeof(T), has_dw>(stream, a)
               : backward<T, 1, has_dw>(stream, a);
}

hy3_status hy3_cuda_rope_forward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->dtype, T, return forward_of<T>(stream, a));
}

hy3_status hy3_cuda_rope_backward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->dtype, T,
                return a->dw ? backward_of<T, true>(stream, a) : backward_of<T, false>(stream, a));
}
