/* permute.cu - tokens to the rows of their experts and back: a block a row. Bound by memory. */
#include "cuda/cuda.h"

template <class T, int N>
__global__ void permute_forward_kernel(int64_t H, const int32_t *token, const T *x, T *y)
{
    const T *row = x + (int64_t)token[blockIdx.x] * H;
    float value[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        load(value, row + i);
        store(y + (int64_t)blockIdx.x * H + i, value);
    }
}

template <class T, int N>
__global__ void permute_backward_kernel(int64_t H, int k, const int32_t *position, const T *dy,
                                        T *dx, int accumulate)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    float sum[N], value[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] = 0;
        if (accumulate)
            load(sum, dx + (int64_t)blockIdx.x * H + i);
        for (int j = 0; j < k; j++) {
            if (rows[j] < 0)
                continue;
            load(value, dy + (int64_t)rows[j] * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += value[n];
        }
        store(dx + (int64_t)blockIdx.x * H + i, sum);
    }
}

template <class T, int N>
__global__ void unpermute_forward_kernel(int64_t H, int k, const int32_t *position,
                                         const float *weights, const T *y, const T *shared, T *out)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights + (int64_t)blockIdx.x * k;
    float sum[N], value[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] = 0;
        for (int j = 0; j < k; j++) {
            load(value, y + (int64_t)rows[j] * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += weight[j] * value[n];
        }
        if (shared) {
            load(value, shared + (int64_t)blockIdx.x * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += value[n];
        }
        load(value, out + (int64_t)blockIdx.x * H + i);
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] += value[n];
        store(out + (int64_t)blockIdx.x * H + i, sum);
    }
}

/* dy may be y: a thread reads its elements before it writes them. */
template <class T, int N>
__global__ void unpermute_backward_kernel(int64_t H, int k, const int32_t *position,
                                          const float *weights, const T *y, const T *dout, T *dy,
                                          float *dweights)
{
    HY3_SHARED(float, red, [33]);
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    float d[N], value[N];

    for (int j = 0; j < k; j++) {
        float weight = weights[(int64_t)blockIdx.x * k + j], sum = 0;

        for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
            load(d, dout + (int64_t)blockIdx.x * H + i);
            load(value, y + (int64_t)rows[j] * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++) {
                sum += d[n] * value[n];
                d[n] *= weight;
            }
            store(dy + (int64_t)rows[j] * H + i, d);
        }
        sum = block_sum(sum, red);
        if (threadIdx.x == 0)
            dweights[(int64_t)blockIdx.x * k + j] = sum;
    }
}

template <class T, int N>
static hy3_status permute(struct hy3_stream *stream, const struct hy3_permute *a, bool backward)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for(a->H / N);

    if (backward && a->T > 0)
        HY3_CUDA_LAUNCH((permute_backward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, (const T *)a->dy, (T *)a->dx, (int)a->accumulate);
    if (!backward && a->R > 0)
        HY3_CUDA_LAUNCH((permute_forward_kernel<T, N>), (unsigned)a->R, threads, 0, s, a->H,
                        a->token, (const T *)a->x, (T *)a->y);
    return HY3_OK;
}

template <class T>
static hy3_status permute_by_width(struct hy3_stream *stream, const struct hy3_permute *a,
                                   bool backward)
{
    if (is_wide<T>(a->H, backward ? a->dy : a->x, backward ? a->dx : a->y))
        return permute<T, 16 / (int)sizeof(T)>(stream, a, backward);
    return permute<T, 1>(stream, a, backward);
}

hy3_status hy3_cuda_permute_forward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    return a->dtype == HY3_FP32 ? permute_by_width<float>(stream, a, false)
                                : permute_by_width<bf16>(stream, a, false);
}

hy3_status hy3_cuda_permute_backward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    return a->dtype == HY3_FP32 ? permute_by_width<float>(stream, a, true)
                                : permute_by_width<bf16>(stream, a, true);
}

template <class T, int N>
static hy3_status unpermute(struct hy3_stream *stream, const struct hy3_unpermute *a, bool backward)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for(a->H / N);

    if (a->T == 0)
        return HY3_OK;
    if (backward)
        HY3_CUDA_LAUNCH((unpermute_backward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, a->weights, (const T *)a->y, (const T *)a->dout,
                        (T *)a->dy, a->dweights);
    else
        HY3_CUDA_LAUNCH((unpermute_forward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, a->weights, (const T *)a->y, (const T *)a->shared,
                        (T *)a->out);
    return HY3_OK;
}

template <class T>
static hy3_status unpermute_by_width(struct hy3_stream *stream, const struct hy3_unpermute *a,
                                     bool backward)
{
    bool wide = backward ? is_wide<T>(a->H, a->y, a->dout, a->dy)
                         : is_wide<T>(a->H, a->y, a->shared, a->out);

    return wide ? unpermute<T, 16 / (int)sizeof(T)>(stream, a, backward)
                : unpermute<T, 1>(stream, a, backward);
}

hy3_status hy3_cuda_unpermute_forward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    return a->dtype == HY3_FP32 ? unpermute_by_width<float>(stream, a, false)
                                : unpermute_by_width<bf16>(stream, a, false);
}

hy3_status hy3_cuda_unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    return a->dtype == HY3_FP32 ? unpermute_by_width<float>(stream, a, true)
                                : unpermute_by_width<bf16>(stream, a, true);
}
