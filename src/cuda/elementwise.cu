/* elementwise.cu - casts, sums, dropout, sums of squares, AdamW: one pass over memory each. Bound by memory. */
#include "cuda/cuda.h"

extern "C" {
#include "base/random.h"
}

enum { THREADS = 256, EACH = 4 }; /* elements of a thread */

template <class X, class Y> __global__ void cast_kernel(int64_t n, const X *x, Y *y)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;

    for (int64_t i = first; i < first + EACH && i < n; i++)
        from_float(to_float(x[i]), &y[i]);
}

template <class X, class Y> __global__ void cast_wide_kernel(int64_t n, const X *x, Y *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float value[EACH];

    if (i >= n)
        return;
    load(value, x + i);
    store(y + i, value);
}

template <class X, class Y> __global__ void add_kernel(int64_t n, const X *x, Y *y)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;

    for (int64_t i = first; i < first + EACH && i < n; i++)
        from_float(to_float(y[i]) + to_float(x[i]), &y[i]);
}

template <class X, class Y> __global__ void add_wide_kernel(int64_t n, const X *x, Y *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float a[EACH], b[EACH];

    if (i >= n)
        return;
    load(a, x + i);
    load(b, y + i);
    HY3_UNROLL
    for (int j = 0; j < EACH; j++)
        b[j] += a[j];
    store(y + i, b);
}

hy3_status hy3_cuda_cast(struct hy3_stream *stream, const struct hy3_cast *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned grid = blocks_for(a->n, THREADS * EACH);
    bool wide = is_wide<float>(a->n, a->x, a->y);

    if (a->n == 0)
        return HY3_OK;
    if (a->x_dtype == a->y_dtype) {
        HY3_CUDA_TRY(cudaMemcpyAsync(a->y, a->x, (size_t)a->n * hy3_dtype_size(a->x_dtype),
                                     cudaMemcpyDeviceToDevice, s));
        return HY3_OK;
    }
    if (a->x_dtype == HY3_FP32 && wide)
        HY3_CUDA_LAUNCH((cast_wide_kernel<float, bf16>), grid, THREADS, 0, s, a->n,
                        (const float *)a->x, (bf16 *)a->y);
    else if (a->x_dtype == HY3_FP32)
        HY3_CUDA_LAUNCH((cast_kernel<float, bf16>), grid, THREADS, 0, s, a->n, (const float *)a->x,
                        (bf16 *)a->y);
    else if (wide)
        HY3_CUDA_LAUNCH((cast_wide_kernel<bf16, float>), grid, THREADS, 0, s, a->n,
                        (const bf16 *)a->x, (float *)a->y);
    else
        HY3_CUDA_LAUNCH((cast_kernel<bf16, float>), grid, THREADS, 0, s, a->n, (const bf16 *)a->x,
                        (float *)a->y);
    return HY3_OK;
}

hy3_status hy3_cuda_add(struct hy3_stream *stream, const struct hy3_add *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned grid = blocks_for(a->n, THREADS * EACH);
    bool wide = is_wide<float>(a->n, a->x, a->y);

    if (a->n == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->x_dtype, X, HY3_BY_TYPE(a->y_dtype, Y, {
                    if (wide)
                        HY3_CUDA_LAUNCH((add_wide_kernel<X, Y>), grid, THREADS, 0, s, a->n,
                                        (const X *)a->x, (Y *)a->y);
                    else
                        HY3_CUDA_LAUNCH((add_kernel<X, Y>), grid, THREADS, 0, s, a->n,
                                        (const X *)a->x, (Y *)a->y);
                }));
    return HY3_OK;
}

/* base/random.h's Philox 4x32-10, for the purpose of dropout; the test compares the masks of both. */
HY3_DEVICE void philox(uint32_t key0, uint32_t key1, uint64_t high, uint64_t low,
                       uint32_t (&out)[4])
{
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};

    HY3_UNROLL
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xd2511f53u * c[0], q = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next0 = (uint32_t)(q >> 32) ^ c[1] ^ key0,
                 next2 = (uint32_t)(p >> 32) ^ c[3] ^ key1;

        c[1] = (uint32_t)q;
        c[3] = (uint32_t)p;
        c[0] = next0;
        c[2] = next2;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    HY3_UNROLL
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

/* Grid (groups of four columns, rows). */
template <class T>
__global__ void dropout_kernel(int64_t C, uint64_t limit, float keep, uint32_t key0, uint32_t key1,
                               uint32_t place, const uint64_t *keys, const T *x, T *y)
{
    int64_t four = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    uint32_t word[4];

    if (four * 4 >= C)
        return;
    philox(key0, key1, keys[row], (uint64_t)place << 32 | (uint64_t)four, word);
    HY3_UNROLL
    for (int i = 0; i < 4; i++) {
        int64_t at = row * C + four * 4 + i;

        if (four * 4 + i < C)
            from_float(word[i] >= limit ? to_float(x[at]) * keep : 0.0f, &y[at]);
    }
}

hy3_status hy3_cuda_dropout(struct hy3_stream *stream, const struct hy3_dropout *a)
{
    enum { ROWS = 32768 }; /* of a launch */

    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    uint32_t key0 = (uint32_t)a->seed;
    uint32_t key1 = (uint32_t)(a->seed >> 32) ^ ((uint32_t)HY3_RANDOM_DROPOUT * 0x9e3779b1u);
    unsigned threads = threads_for((a->C + 3) / 4, 128);

    for (int64_t row = 0; row < a->N; row += ROWS) {
        dim3 grid(blocks_for(a->C, 4 * threads),
                  (unsigned)(a->N - row < ROWS ? a->N - row : (int64_t)ROWS));

        HY3_BY_TYPE(a->dtype, T,
                    HY3_CUDA_LAUNCH(dropout_kernel<T>, grid, threads, 0, s, a->C,
                                    (uint64_t)((double)a->p * 0x1p32), 1 / (1 - a->p), key0, key1,
                                    a->stream_id, a->keys + row, (const T *)a->x + row * a->C,
                                    (T *)a->y + row * a->C));
    }
    return HY3_OK;
}

/* Sum of squares of the block's PIECE elements, in fp64, in a fixed tree. */
enum { PIECE = 4096 };

HY3_DEVICE double block_sum_double(double x, double *sums)
{
    sums[threadIdx.x] = x;
    __syncthreads();
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

template <class T> __global__ void square_kernel(int64_t n, const T *x, double *partial)
{
    HY3_SHARED(double, sums, [THREADS]);
    int64_t first = (int64_t)blockIdx.x * PIECE, end = first + PIECE < n ? first + PIECE : n;
    double sum = 0;

    for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x)
        sum += (double)to_float(x[i]) * (double)to_float(x[i]);
    sum = block_sum_double(sum, sums);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* One block. */
__global__ void square_end_kernel(int64_t pieces, const double *partial, int accumulate,
                                  double *out)
{
    HY3_SHARED(double, sums, [THREADS]);
    double sum = 0;

    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x)
        sum += partial[i];
    sum = block_sum_double(sum, sums);
    if (threadIdx.x == 0)
        *out = accumulate ? *out + sum : sum;
}

hy3_status hy3_cuda_square_sum(struct hy3_stream *stream, const struct hy3_square_sum *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t pieces = (a->n + PIECE - 1) / PIECE;
    unsigned threads = 32;
    void *partial = NULL;

    while (threads < THREADS && threads * 4 < a->n) /* a power of two */
        threads *= 2;
    if (pieces > 0) {
        HY3_STATUS_TRY(
            hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL, (size_t)pieces * sizeof(double), &partial));
        HY3_BY_TYPE(a->dtype, T,
                    HY3_CUDA_LAUNCH(square_kernel<T>, (unsigned)pieces, threads, 0, s, a->n,
                                    (const T *)a->x, (double *)partial));
    }
    threads = 32;
    while (threads < THREADS && threads < pieces)
        threads *= 2;
    HY3_CUDA_LAUNCH(square_end_kernel, 1, threads, 0, s, pieces, (const double *)partial,
                    (int)a->accumulate, a->sum);
    return HY3_OK;
}

struct adamw_step {
    float keep, grad_scale, m_share, v_keep, v_share, step_size, inverse_v_root, eps;
};

HY3_DEVICE float adamw_element(const struct adamw_step &s, float w, float *m, float *v, float grad)
{
    float g = grad * s.grad_scale;

    *m += s.m_share * (g - *m);
    *v = s.v_keep * *v + s.v_share * g * g;
    return w * s.keep - s.step_size * (*m / (sqrtf(*v) * s.inverse_v_root + s.eps));
}

__global__ void adamw_kernel(int64_t n, struct adamw_step step, float *weight, float *m, float *v,
                             const float *grad)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;

    for (int64_t i = first; i < first + EACH && i < n; i++)
        weight[i] = adamw_element(step, weight[i], &m[i], &v[i], grad[i]);
}

/* hy3_join and hy3_split of base/dtype.h. */
__global__ void adamw_split_kernel(int64_t n, struct adamw_step step, uint16_t *weight,
                                   int16_t *low, float *m, float *v, const float *grad)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;

    for (int64_t i = first; i < first + EACH && i < n; i++) {
        uint32_t bits = ((uint32_t)weight[i] << 16) + (uint32_t)(int32_t)low[i];
        float w;

        memcpy(&w, &bits, sizeof w);
        w = adamw_element(step, w, &m[i], &v[i], grad[i]);
        memcpy(&bits, &w, sizeof bits);
        weight[i] = (uint16_t)((bits + 0x8000u) >> 16);
        low[i] = (int16_t)(uint16_t)(bits & 0xffffu);
    }
}

hy3_status hy3_cuda_adamw(struct hy3_stream *stream, const struct hy3_adamw *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned grid = blocks_for(a->n, THREADS * EACH);
    const struct adamw_step step = {
        (float)(1 - a->lr * a->decay),
        (float)a->grad_scale,
        (float)(1 - a->beta1),
        (float)a->beta2,
        (float)(1 - a->beta2),
        (float)(a->lr / (1 - pow(a->beta1, (double)a->step))),
        (float)(1 / sqrt(1 - pow(a->beta2, (double)a->step))),
        (float)a->eps,
    };

    if (a->n == 0)
        return HY3_OK;
    if (a->low)
        HY3_CUDA_LAUNCH(adamw_split_kernel, grid, THREADS, 0, s, a->n, step, (uint16_t *)a->weight,
                        a->low, a->m, a->v, a->grad);
    else
        HY3_CUDA_LAUNCH(adamw_kernel, grid, THREADS, 0, s, a->n, step, (float *)a->weight, a->m,
                        a->v, a->grad);
    return HY3_OK;
}
