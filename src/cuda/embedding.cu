/* embedding.cu - rows of a table, and their gradients in the order of the tokens. */
#include "cuda/cuda.h"

enum { THREADS = 128 };

/* next[t]: the following token with the same id, or -1; first[t]: whether none came before. A warp a token. */
__global__ void same_ids_kernel(int T, const int32_t *ids, int32_t *next, int32_t *first)
{
    int t = blockIdx.x, lane = threadIdx.x, following = -1, before = 0;
    int32_t id = ids[t];

    for (int base = t + 1; base < T && following < 0; base += 32) {
        unsigned found = __ballot_sync(0xffffffffu, base + lane < T && ids[base + lane] == id);

        if (found)
            following = base + __ffs((int)found) - 1;
    }
    for (int base = t - 32; base > -32 && !before; base -= 32)
        before = __any_sync(0xffffffffu, base + lane >= 0 && ids[base + lane] == id);
    if (lane == 0) {
        next[t] = following;
        first[t] = !before;
    }
}

/* A thread owns a column of the row of one id and walks over its tokens. Grid (tokens, columns). */
template <class T>
__global__ void embedding_backward_kernel(int64_t H, const int32_t *ids, const int32_t *next,
                                          const int32_t *first, const T *dy, float *dW)
{
    int64_t column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    float *to = dW + (int64_t)ids[blockIdx.x] * H + column, sum;

    if (!first[blockIdx.x] || column >= H)
        return;
    sum = *to;
    for (int64_t t = blockIdx.x; t >= 0; t = next[t])
        sum += to_float(dy[t * H + column]);
    *to = sum;
}

/* Rows of W picked by the ids: what permute does with rows of x. */
hy3_status hy3_cuda_embedding_forward(struct hy3_stream *stream, const struct hy3_embedding *a)
{
    struct hy3_permute rows = {};

    rows.T = a->V;
    rows.R = a->T;
    rows.H = a->H;
    rows.k = 1;
    rows.dtype = a->dtype;
    rows.token = a->ids;
    rows.x = a->W;
    rows.y = a->y;
    return hy3_cuda_permute_forward(stream, &rows);
}

hy3_status hy3_cuda_embedding_backward(struct hy3_stream *stream, const struct hy3_embedding *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for(a->H, THREADS);
    dim3 grid((unsigned)a->T, blocks_for(a->H, threads));
    int32_t *next, *first;

    if (a->T == 0)
        return HY3_OK;
    HY3_STATUS_TRY(
        hy3_cuda_scratch(stream, HY3_SLOT_ORDER, 2 * (size_t)a->T * sizeof *next, (void **)&next));
    first = next + a->T;
    HY3_CUDA_LAUNCH(same_ids_kernel, (unsigned)a->T, 32, 0, s, (int)a->T, a->ids, next, first);
    HY3_BY_TYPE(a->dtype, T,
                HY3_CUDA_LAUNCH(embedding_backward_kernel<T>, grid, threads, 0, s, a->H, a->ids,
                                next, first, (const T *)a->dy, a->dW));
    return HY3_OK;
}
