/* SPDX-License-Identifier: Apache-2.0 */
/* adamw.cu - the optimizer step, in one pass. Bound by memory: 28 bytes per parameter. */
#include "cuda/cuda.h"

enum { THREADS = 256 };

HY3_DEVICE float adamw_element(const struct hy3_adamw_step &s, float w, float *m, float *v,
                               float grad)
{
    float g = grad * s.grad_scale;

    *m += s.m_share * (g - *m);
    *v = s.v_keep * *v + s.v_share * g * g;
    return w * s.keep - s.step_size * (*m / (sqrtf(*v) * s.inverse_v_root + s.eps));
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

/* A thread has two groups of N adjacent elements, and loads both before it computes. */
template <class W, int N>
__global__ void adamw_kernel(int64_t n, struct hy3_adamw_step step, W *weight, int16_t *low,
                             float *m, float *v, const float *grad)
{
    int64_t at[2];
    float ws[2][N], ms[2][N], vs[2][N], gs[2][N];

    HY3_UNROLL
    for (int g = 0; g < 2; g++) {
        at[g] = ((blockIdx.x * (int64_t)2 + g) * blockDim.x + threadIdx.x) * N;
        if (at[g] >= n)
            continue;
        load_master(ws[g], weight, low, at[g]);
        load(ms[g], m + at[g]);
        load(vs[g], v + at[g]);
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
        store(m + at[g], ms[g]);
        store(v + at[g], vs[g]);
    }
}

/* The elements from `begin` to `end`. */
template <class W, int N>
static hy3_status update(struct hy3_stream *stream, const struct hy3_adamw *a,
                         const struct hy3_adamw_step &step, int64_t begin, int64_t end)
{
    if (begin < end)
        HY3_CUDA_LAUNCH((adamw_kernel<W, N>), blocks_for(end - begin, 2 * THREADS * N), THREADS, 0,
                        hy3_cuda_stream(stream)->stream, end - begin, step, (W *)a->weight + begin,
                        a->low ? a->low + begin : NULL, a->m + begin, a->v + begin,
                        a->grad + begin);
    return HY3_OK;
}

hy3_status hy3_cuda_adamw(struct hy3_stream *stream, const struct hy3_adamw *a)
{
    bool wide = is_wide<float>(0, a->weight, a->m, a->v, a->grad) && is_wide<float>(0, a->low);
    int64_t fours = wide ? a->n / 4 * 4 : 0; /* elements that are updated four at a time */
    const struct hy3_adamw_step step = hy3_adamw_factors(a);

    if (a->low) {
        HY3_TRY((update<uint16_t, 4>(stream, a, step, 0, fours)));
        return update<uint16_t, 1>(stream, a, step, fours, a->n);
    }
    HY3_TRY((update<float, 4>(stream, a, step, 0, fours)));
    return update<float, 1>(stream, a, step, fours, a->n);
}
