/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.cu - rows of a table, and their gradients summed in the order of the tokens. */
#include "cuda/cuda.h"

/* Threads of a block, columns of a thread, tokens whose rows are loaded together; ids that a warp
 * compares together. */
enum { THREADS = 256, COLUMNS = 4, AHEAD = 4, SPAN = 32 * AHEAD };

/* Whether ids[base .. base + SPAN), cut to the existing tokens, contains the id. Warp-wide. */
HY3_DEVICE bool warp_finds(int T, const int32_t *ids, int base, int32_t id)
{
    int found = 0;

    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        int at = base + 32 * j + (int)(threadIdx.x & 31);
        int read = at < 0 ? 0 : at < T ? at : T - 1;

        found |= (ids[read] == id) & (read == at);
    }
    return __any_sync(0xffffffffu, found);
}

/* next[t]: the next token with the same id, or -1; first[t]: whether t is the first with its id.
 * One warp per token. */
__global__ void same_ids_kernel(int T, const int32_t *ids, int32_t *next, int32_t *first)
{
    int t = blockIdx.x, lane = threadIdx.x, following = -1, base = t + 1;
    int32_t id = ids[t];

    while (base < T && !warp_finds(T, ids, base, id))
        base += SPAN;
    for (; base < T && following < 0; base += 32) {
        unsigned found = __ballot_sync(0xffffffffu, base + lane < T && ids[base + lane] == id);

        if (found)
            following = base + __ffs((int)found) - 1;
    }
    base = t - SPAN;
    while (base > -SPAN && !warp_finds(T, ids, base, id))
        base -= SPAN;
    if (lane == 0) {
        next[t] = following;
        first[t] = base <= -SPAN;
    }
}

/* A thread owns columns of the row of one id and loops over its tokens. Grid (tokens, columns). */
template <class T, bool wide>
__global__ void embedding_backward_kernel(int64_t H, const int32_t *ids, const int32_t *next,
                                          const int32_t *first, const T *dy, float *dW)
{
    int64_t column = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * COLUMNS, t = blockIdx.x;
    float *to = dW + (int64_t)ids[t] * H;
    float sum[COLUMNS], value[AHEAD][COLUMNS];

    if (!first[t] || column >= H)
        return;
    load_before<wide>(sum, to, column, H);
    while (t >= 0) {
        int count = 0;

        HY3_UNROLL
        for (int j = 0; j < AHEAD; j++) {
            if (t < 0)
                continue;
            load_before<wide>(value[j], dy + t * H, column, H);
            t = next[t];
            count++;
        }
        HY3_UNROLL
        for (int j = 0; j < AHEAD; j++) {
            HY3_UNROLL
            for (int c = 0; c < COLUMNS; c++)
                sum[c] += j < count ? value[j][c] : 0;
        }
    }
    store_before<wide>(to, sum, column, H);
}

/* A gather of rows of W, which permute does with rows of x. */
hy3_status hy3_cuda_embedding_forward(struct hy3_stream *stream, const struct hy3_embedding *a)
{
    struct hy3_permute rows = {};

    HY3_CUDA_CHECK_INDICES(stream, embedding, ids, a->T, 0, a->V);
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

template <class T, bool wide>
static hy3_status add_rows_of_ids(struct hy3_stream *stream, const struct hy3_embedding *a,
                                  const int32_t *next, const int32_t *first)
{
    unsigned threads = threads_for((a->H + COLUMNS - 1) / COLUMNS, THREADS);
    dim3 grid((unsigned)a->T, blocks_for(a->H, threads * COLUMNS));

    HY3_CUDA_LAUNCH((embedding_backward_kernel<T, wide>), grid, threads, 0,
                    hy3_cuda_stream(stream)->stream, a->H, a->ids, next, first, (const T *)a->dy,
                    a->dW);
    return HY3_OK;
}

hy3_status hy3_cuda_embedding_backward(struct hy3_stream *stream, const struct hy3_embedding *a)
{
    int32_t *next, *first;

    HY3_CUDA_CHECK_INDICES(stream, embedding, ids, a->T, 0, a->V);
    if (a->T == 0)
        return HY3_OK;
    HY3_TRY(hy3_cuda_scratch(stream, HY3_SLOT_ORDER, 2 * (size_t)a->T * sizeof *next, &next));
    first = next + a->T;
    HY3_CUDA_LAUNCH(same_ids_kernel, (unsigned)a->T, 32, 0, hy3_cuda_stream(stream)->stream,
                    (int)a->T, a->ids, next, first);
    HY3_BY_TYPE(a->dtype, T,
                return is_wide<float>(a->H, a->dy, a->dW)
                           ? add_rows_of_ids<T, true>(stream, a, next, first)
                           : add_rows_of_ids<T, false>(stream, a, next, first));
}
