/* SPDX-License-Identifier: Apache-2.0 */
/* loss.cu - cross-entropy of rows of logits. Bound by memory: the logits once forward, and once
 * more backward.
 *
 * A row is split into pieces, one block each, so that a few long rows occupy the whole device. A
 * thread keeps its part of a piece in registers: the forward finds the piece's largest logit before
 * it takes exponentials, and reads nothing twice. */
#include "cuda/cuda.h"

/* Threads of a block; loads of a thread in flight together. */
enum { THREADS = 256, AHEAD = 8 };

/* Elements of a thread, [AHEAD] accesses of N: element [j][n] is first + j blockDim.x N + n, if
 * below V. */
template <int N> struct piece {
    int64_t row, first;
    float value[AHEAD][N];
};

/* Block b has piece b % pieces of row b / pieces; elements beyond the row's end are -inf. */
template <int N>
HY3_DEVICE void load_piece(struct piece<N> &own, int64_t V, unsigned pieces, const float *logits)
{
    own.row = blockIdx.x / pieces;
    own.first = (int64_t)(blockIdx.x % pieces) * AHEAD * blockDim.x * N + threadIdx.x * N;
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        int64_t v = own.first + (int64_t)j * blockDim.x * N;

        HY3_UNROLL
        for (int n = 0; n < N; n++)
            own.value[j][n] = -INFINITY;
        if (v < V)
            load(own.value[j], logits + own.row * V + v);
    }
}

template <class T, int N> HY3_DEVICE void store_piece(const struct piece<N> &own, int64_t V, T *to)
{
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        int64_t v = own.first + (int64_t)j * blockDim.x * N;

        if (v < V)
            store(to + own.row * V + v, own.value[j]);
    }
}

/* partial[row][piece] = {largest logit, sum exp(logit - largest)}; smooth: sums[row][piece] = sum
 * of the logits. */
template <int N, bool smooth>
__global__ void loss_forward_kernel(int64_t V, unsigned pieces, const float *logits, float *partial,
                                    float *sums)
{
    HY3_SHARED(float, red, [33]);
    struct piece<N> own;
    float pair[2] = {-INFINITY, 0}, shift;

    load_piece(own, V, pieces, logits);
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            pair[0] = fmaxf(pair[0], own.value[j][n]);
    }
    pair[0] = block_max(pair[0], red);
    shift = pair[0] == -INFINITY ? 0 : pair[0]; /* else exp(-inf + inf) */
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            pair[1] += expf(own.value[j][n] - shift);
    }
    pair[1] = block_sum(pair[1], red);
    if (threadIdx.x == 0)
        store(partial + (int64_t)blockIdx.x * 2, pair);
    if (!smooth)
        return;
    shift = 0;
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            if (own.first + (int64_t)j * blockDim.x * N < V)
                shift += own.value[j][n];
    }
    shift = block_sum(shift, red);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = shift;
}

/* One warp per row. sums: as above where smoothing is above 0. */
__global__ void loss_end_kernel(int64_t V, unsigned pieces, const float *partial, const float *sums,
                                float smoothing, const float *logits, const int32_t *targets,
                                float *loss, float *lse)
{
    int64_t row = blockIdx.x;
    int target = targets[row];
    float most = -INFINITY, sum = 0, all = 0, pair[2], hit;

    for (unsigned i = threadIdx.x; i < pieces; i += 32) {
        load(pair, partial + (row * pieces + i) * 2);
        most = fmaxf(most, pair[0]);
    }
    most = warp_max(most);
    for (unsigned i = threadIdx.x; i < pieces; i += 32) {
        load(pair, partial + (row * pieces + i) * 2);
        sum += pair[0] == most ? pair[1] : pair[1] * expf(pair[0] - most);
    }
    sum = most + logf(warp_sum(sum));
    if (smoothing > 0) {
        for (unsigned i = threadIdx.x; i < pieces; i += 32)
            all += sums[row * pieces + i];
        all = warp_sum(all) / (float)V;
    }
    if (threadIdx.x == 0) {
        lse[row] = sum;
        hit = target < 0 ? sum : logits[row * V + target];
        loss[row] = sum - hit;
        if (smoothing > 0 && target >= 0)
            loss[row] = (1 - smoothing) * (sum - hit) + smoothing * (sum - all);
    }
}

/* dlogits = weight (scale exp(logits - lse) - (v == target ? hit : even)); it may be logits: a
 * thread reads its elements before it writes them. */
template <class T, int N>
__global__ void loss_backward_kernel(int64_t V, unsigned pieces, float scale, float hit, float even,
                                     const float *weights, const float *logits,
                                     const int32_t *targets, const float *lse, T *dlogits)
{
    struct piece<N> own;
    int target;
    float shift;

    load_piece(own, V, pieces, logits);
    target = targets[own.row];
    shift = target < 0 ? 0 : lse[own.row];
    even = target < 0 ? 0 : even;
    if (weights) {
        scale *= weights[own.row];
        hit *= weights[own.row];
        even *= weights[own.row];
    }
    HY3_UNROLL
    for (int j = 0; j < AHEAD; j++) {
        int64_t v = own.first + (int64_t)j * blockDim.x * N;

        HY3_UNROLL
        for (int n = 0; n < N; n++) {
            float logit = target < 0 ? -INFINITY : own.value[j][n]; /* d is 0 */
            float d = scale * expf(logit - shift);

            own.value[j][n] = d - (v + n == target ? hit : even);
        }
    }
    store_piece(own, V, dlogits);
}

/* How rows are split. */
struct cut {
    unsigned threads, pieces;
};

static struct cut cut_rows(int64_t V, int64_t width)
{
    struct cut c;

    c.threads = threads_for((V + AHEAD * width - 1) / (AHEAD * width), THREADS);
    c.pieces = blocks_for(V, AHEAD * width * c.threads);
    return c;
}

template <int N> static hy3_status forward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    struct cut c = cut_rows(a->V, N);
    unsigned rows = (unsigned)a->N;
    size_t count = (size_t)rows * c.pieces;
    float *partial, *sums;

    HY3_TRY(hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL,
                             count * (a->smoothing > 0 ? 3 : 2) * sizeof *partial, &partial));
    sums = partial + 2 * count;
    if (a->smoothing > 0)
        HY3_CUDA_LAUNCH((loss_forward_kernel<N, true>), rows * c.pieces, c.threads, 0, s, a->V,
                        c.pieces, a->logits, partial, sums);
    else
        HY3_CUDA_LAUNCH((loss_forward_kernel<N, false>), rows * c.pieces, c.threads, 0, s, a->V,
                        c.pieces, a->logits, partial, sums);
    HY3_CUDA_LAUNCH(loss_end_kernel, rows, 32, 0, s, a->V, c.pieces, partial, sums, a->smoothing,
                    a->logits, a->targets, a->loss, a->lse);
    return HY3_OK;
}

template <class T, int N>
static hy3_status backward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    struct cut c = cut_rows(a->V, N);
    float even = a->scale * a->smoothing / (float)a->V;
    float hit = a->scale * (1 - a->smoothing) + even;

    HY3_CUDA_LAUNCH((loss_backward_kernel<T, N>), (unsigned)a->N * c.pieces, c.threads, 0,
                    hy3_cuda_stream(stream)->stream, a->V, c.pieces, a->scale, hit, even,
                    a->weights, a->logits, a->targets, a->lse, (T *)a->dlogits);
    return HY3_OK;
}

hy3_status hy3_cuda_loss_forward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    HY3_CUDA_CHECK_INDICES(stream, loss, targets, a->N, -1, a->V);
    if (a->N == 0)
        return HY3_OK;
    return is_wide<float>(a->V, a->logits) ? forward<4>(stream, a) : forward<1>(stream, a);
}

hy3_status hy3_cuda_loss_backward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    bool wide = is_wide<float>(a->V, a->logits, a->dlogits);

    HY3_CUDA_CHECK_INDICES(stream, loss, targets, a->N, -1, a->V);
    if (a->N == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->dtype, T, return wide ? backward<T, 4>(stream, a) : backward<T, 1>(stream, a));
}
