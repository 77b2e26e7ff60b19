/* rope.cu - RMSNorm of each head, then rotation by position: a block a token, a warp a head at a time.
 *
 * Angles are what transformers computes: fp32 frequency times fp32 position; their sine and cosine in fp64, rounded. The
 * frequencies come from the host, so they have the same bits as on the CPU. */
#include "cuda/cuda.h"

#include <stdlib.h>

enum { ROWS = 32, WARPS = 8 }; /* tokens whose part of dw is summed together; warps of a block */

/* angles [T][cosines D/2, sines D/2] */
__global__ void angles_kernel(int64_t T, int half, const int32_t *positions,
                              const float *frequencies, float *angles)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, t = i / half;
    int column = (int)(i % half);
    double sine, cosine;

    if (t >= T)
        return;
    /* by multiples of pi: sincos() would need local memory to reduce a large angle */
    sincospi((double)((float)positions[t] * frequencies[column]) * 0.31830988618379067, &sine,
             &cosine);
    angles[t * 2 * half + column] = (float)cosine;
    angles[t * 2 * half + half + column] = (float)sine;
}

template <class T>
__global__ void rope_forward_kernel(int64_t heads, int half, float eps, const float *angles,
                                    const T *x, const T *w, T *y, float *r)
{
    const float *angle = angles + (int64_t)blockIdx.x * 2 * half;
    int lane = threadIdx.x & 31;

    for (int64_t h = threadIdx.x >> 5; h < heads; h += blockDim.x >> 5) {
        int64_t row = (int64_t)blockIdx.x * heads + h;
        const T *in = x + row * 2 * half;
        float sum = 0, scale;

        for (int i = lane; i < 2 * half; i += 32)
            sum += to_float(in[i]) * to_float(in[i]);
        scale = 1 / sqrtf(warp_sum(sum) / (float)(2 * half) + eps);
        if (lane == 0)
            r[row] = scale;
        for (int i = lane; i < half; i += 32) {
            float a = to_float(w[i]) * (to_float(in[i]) * scale);
            float b = to_float(w[i + half]) * (to_float(in[i + half]) * scale);

            from_float(a * angle[i] - b * angle[half + i], &y[row * 2 * half + i]);
            from_float(b * angle[i] + a * angle[half + i], &y[row * 2 * half + half + i]);
        }
    }
}

/* dn = dy turned back; dx = r (w dn - x r^2 mean(w dn x)) */
template <class T>
__global__ void rope_backward_kernel(int64_t heads, int half, const float *angles, const T *x,
                                     const T *w, const float *r, const T *dy, T *dx)
{
    const float *angle = angles + (int64_t)blockIdx.x * 2 * half;
    int lane = threadIdx.x & 31;

    for (int64_t h = threadIdx.x >> 5; h < heads; h += blockDim.x >> 5) {
        int64_t row = (int64_t)blockIdx.x * heads + h, first = row * 2 * half;
        float sum = 0, scale = r[row];

        for (int i = lane; i < half; i += 32) {
            float a = to_float(dy[first + i]), b = to_float(dy[first + half + i]);
            float da = a * angle[i] + b * angle[half + i], db = b * angle[i] - a * angle[half + i];

            sum += to_float(x[first + i]) * to_float(w[i]) * da +
                   to_float(x[first + half + i]) * to_float(w[half + i]) * db;
        }
        sum = -scale * scale * scale * (warp_sum(sum) / (float)(2 * half));
        for (int i = lane; i < half; i += 32) {
            float a = to_float(dy[first + i]), b = to_float(dy[first + half + i]);
            float da = a * angle[i] + b * angle[half + i], db = b * angle[i] - a * angle[half + i];

            from_float(to_float(w[i]) * da * scale + to_float(x[first + i]) * sum, &dx[first + i]);
            from_float(to_float(w[half + i]) * db * scale + to_float(x[first + half + i]) * sum,
                       &dx[first + half + i]);
        }
    }
}

/* partial[block of ROWS tokens][D] = sum over tokens and heads of x r dn. A thread owns the columns i and i + D/2. */
template <class T>
__global__ void rope_dw_kernel(int64_t tokens, int64_t heads, int half, const float *angles,
                               const T *x, const float *r, const T *dy, float *partial)
{
    int64_t begin = (int64_t)blockIdx.x * ROWS, end = begin + ROWS < tokens ? begin + ROWS : tokens;

    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float low = 0, high = 0;

        for (int64_t row = begin * heads; row < end * heads; row++) {
            const float *angle = angles + row / heads * 2 * half;
            int64_t first = row * 2 * half;
            float a = to_float(dy[first + i]), b = to_float(dy[first + half + i]);

            low += to_float(x[first + i]) * (a * angle[i] + b * angle[half + i]) * r[row];
            high += to_float(x[first + half + i]) * (b * angle[i] - a * angle[half + i]) * r[row];
        }
        partial[(int64_t)blockIdx.x * 2 * half + i] = low;
        partial[(int64_t)blockIdx.x * 2 * half + half + i] = high;
    }
}

__global__ void rope_dw_end_kernel(int64_t blocks, int D, const float *partial, float *dw)
{
    for (int i = threadIdx.x; i < D; i += blockDim.x) {
        float sum = dw[i];

        for (int64_t b = 0; b < blocks; b++)
            sum += partial[b * D + i];
        dw[i] = sum;
    }
}

/* The frequencies of a theta and D, uploaded when they change. */
static hy3_status prepare(struct hy3_stream *stream, const struct hy3_rope *a, float **angles)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    int64_t half = a->D / 2;
    size_t bytes = (size_t)(a->T * a->D) * sizeof(float);

    if (s->theta != a->theta || s->D != a->D) {
        hy3_status status;
        void *unused;
        float *frequencies = (float *)malloc((size_t)half * sizeof *frequencies);

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
    }
    HY3_STATUS_TRY(hy3_cuda_scratch(stream, HY3_SLOT_ANGLES, bytes, (void **)angles));
    HY3_CUDA_LAUNCH(angles_kernel, blocks_for(a->T * half, 128), 128, 0, s->stream, a->T, (int)half,
                    a->positions, (const float *)s->scratch[HY3_SLOT_FREQUENCIES].memory, *angles);
    return HY3_OK;
}

template <class T> static hy3_status forward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    float *angles;

    HY3_STATUS_TRY(prepare(stream, a, &angles));
    HY3_CUDA_LAUNCH(rope_forward_kernel<T>, (unsigned)a->T, threads_for(a->heads * 32, 32 * WARPS),
                    0, hy3_cuda_stream(stream)->stream, a->heads, (int)(a->D / 2), a->eps, angles,
                    (const T *)a->x, (const T *)a->w, (T *)a->y, a->r);
    return HY3_OK;
}

template <class T> static hy3_status backward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t blocks = (a->T + ROWS - 1) / ROWS;
    float *angles;
    void *partial;

    HY3_STATUS_TRY(prepare(stream, a, &angles));
    HY3_CUDA_LAUNCH(rope_backward_kernel<T>, (unsigned)a->T, threads_for(a->heads * 32, 32 * WARPS),
                    0, s, a->heads, (int)(a->D / 2), angles, (const T *)a->x, (const T *)a->w, a->r,
                    (const T *)a->dy, (T *)a->dx);
    if (!a->dw)
        return HY3_OK;
    HY3_STATUS_TRY(hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL,
                                    (size_t)(blocks * a->D) * sizeof(float), &partial));
    HY3_CUDA_LAUNCH(rope_dw_kernel<T>, (unsigned)blocks, threads_for(a->D / 2), 0, s, a->T,
                    a->heads, (int)(a->D / 2), angles, (const T *)a->x, a->r, (const T *)a->dy,
                    (float *)partial);
    HY3_CUDA_LAUNCH(rope_dw_end_kernel, 1, threads_for(a->D), 0, s, blocks, (int)a->D,
                    (const float *)partial, a->dw);
    return HY3_OK;
}

hy3_status hy3_cuda_rope_forward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    if (a->T == 0)
        return HY3_OK;
    return a->dtype == HY3_FP32 ? forward<float>(stream, a) : forward<bf16>(stream, a);
}

hy3_status hy3_cuda_rope_backward(struct hy3_stream *stream, const struct hy3_rope *a)
{
    if (a->T == 0)
        return HY3_OK;
    return a->dtype == HY3_FP32 ? backward<float>(stream, a) : backward<bf16>(stream, a);
}
