/* SPDX-License-Identifier: Apache-2.0 */
/* router.cu - choice of experts and their weights, one warp per token; order of rows by expert. */
#include "cuda/cuda.h"

/* An expert that may be chosen; -1: none. */
struct candidate {
    float value;
    int expert;
};

/* By value, then by the smaller expert number, as on the CPU. NaN is never better. */
HY3_DEVICE bool is_better(struct candidate a, struct candidate b)
{
    if (a.expert < 0 || b.expert < 0)
        return b.expert < 0 && a.expert >= 0;
    return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

/* scores [E] and taken [E] are shared by the warp. */
HY3_DEVICE void choose(int E, int k, const float *bias, const float *scores, int *taken)
{
    int lane = threadIdx.x;

    for (int j = 0; j < k; j++) {
        struct candidate best = {0, -1};

        for (int e = lane; e < E; e += 32) {
            struct candidate c = {scores[e] + bias[e], e};

            if (!taken[e] && is_better(c, best))
                best = c;
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            struct candidate c;

            c.value = __shfl_xor_sync(0xffffffffu, best.value, distance);
            c.expert = __shfl_xor_sync(0xffffffffu, best.expert, distance);
            if (is_better(c, best))
                best = c;
        }
        best.expert = __shfl_sync(0xffffffffu, best.expert, 0); /* with NaNs lanes may differ */
        if (lane == best.expert % 32)                           /* the lane that reads it */
            taken[best.expert] = 1;
    }
}

__global__ void router_forward_kernel(int E, int k, float scaling, int replay, const float *logits,
                                      const float *bias, int32_t *ids, float *weights)
{
    HY3_DYNAMIC_SHARED(memory);
    float *scores = (float *)memory, sum = 0;
    int *taken = (int *)(scores + E);
    int lane = threadIdx.x, count = 0;
    int32_t *own = ids + (int64_t)blockIdx.x * k;

    for (int e = lane; e < E; e += 32) {
        scores[e] = sigmoid(logits[(int64_t)blockIdx.x * E + e]);
        taken[e] = 0;
    }
    __syncwarp();
    if (!replay)
        choose(E, k, bias, scores, taken);
    for (int base = 0; base < E && !replay; base += 32) { /* ascending */
        int is = base + lane < E && taken[base + lane];
        unsigned mask = __ballot_sync(0xffffffffu, is);

        if (is)
            own[count + __popc(mask & ((1u << lane) - 1))] = base + lane;
        count += __popc(mask);
    }
    __syncwarp();
    for (int j = 0; j < k; j++)
        sum += scores[own[j]];
    for (int j = lane; j < k; j += 32)
        weights[(int64_t)blockIdx.x * k + j] = scores[own[j]] / (sum + 1e-20f) * scaling;
}

hy3_status hy3_cuda_router_forward(struct hy3_stream *stream, const struct hy3_router *a)
{
    if (a->replay)
        HY3_CUDA_CHECK_INDICES(stream, router, ids, a->T * a->k, 0, a->E);
    if (a->T > 0)
        HY3_CUDA_LAUNCH(router_forward_kernel, (unsigned)a->T, 32, (size_t)a->E * 8,
                        hy3_cuda_stream(stream)->stream, (int)a->E, (int)a->k, a->scaling,
                        (int)a->replay, a->logits, a->bias, a->ids, a->weights);
    return HY3_OK;
}

/* See hy3_cpu_router_backward. */
__global__ void router_backward_kernel(int E, int k, const float *logits, const int32_t *ids,
                                       const int32_t *place, const float *products, float *dlogits)
{
    int64_t t = blockIdx.x;
    const int32_t *own = ids + t * k;
    const int32_t *at = place + t * k;
    float sum = 1e-20f, all = 0;
    int lane = threadIdx.x;

    for (int e = lane; e < E; e += 32)
        dlogits[t * E + e] = 0;
    for (int j = 0; j < k; j++) {
        sum += sigmoid(logits[t * E + own[j]]);
        all += products[at[j]];
    }
    __syncwarp();
    for (int j = lane; j < k; j += 32) {
        float s = sigmoid(logits[t * E + own[j]]);

        dlogits[t * E + own[j]] = (products[at[j]] - s / sum * all) * (1 - s);
    }
}

hy3_status hy3_cuda_router_backward(struct hy3_stream *stream, const struct hy3_router *a)
{
    HY3_CUDA_CHECK_INDICES(stream, router, ids, a->T * a->k, 0, a->E);
    HY3_CUDA_CHECK_INDICES(stream, router, place, a->T * a->k, 0, a->R);
    if (a->T > 0)
        HY3_CUDA_LAUNCH(router_backward_kernel, (unsigned)a->T, 32, 0,
                        hy3_cuda_stream(stream)->stream, (int)a->E, (int)a->k, a->logits, a->ids,
                        a->place, a->products, a->dlogits);
    return HY3_OK;
}

/* ---- order of the rows by owner: a stable counting sort, one block per chunk of rows ---- */

/* Threads of a block, which is also rows of a chunk, at most; threads of the block that scans;
 * shared memory of a block on any device. */
enum { CHUNK = 512, SCAN = 1024, SHARED = 48 << 10 };

/* Of choice i; -1: none, or that of the token's choice before. */
HY3_DEVICE int owner_of(const int32_t *ids, int64_t i, int k, int width, int stride)
{
    const int32_t *id = ids + i * stride;
    int owner = *id < 0 ? -1 : *id / width;

    return owner >= 0 && i % k > 0 && id[-stride] / width == owner ? -1 : owner;
}

/* counts[owner][chunk] */
__global__ void route_count_kernel(int64_t n, int G, int k, int width, int stride,
                                   const int32_t *ids, int32_t *counts)
{
    HY3_DYNAMIC_SHARED(memory);
    int32_t *count = (int32_t *)memory;
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int owner = i < n ? owner_of(ids, i, k, width, stride) : -1;

    for (int g = threadIdx.x; g < G; g += blockDim.x)
        count[g] = 0;
    __syncthreads();
    if (owner >= 0)
        atomicAdd(&count[owner], 1); /* integers: independent of order */
    __syncthreads();
    for (int g = threadIdx.x; g < G; g += blockDim.x)
        counts[(int64_t)g * gridDim.x + blockIdx.x] = count[g];
}

/* Sum of x over the threads before this one; sums [32] is shared memory. */
HY3_DEVICE int block_sum_before(int x, int *sums)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, sum = x;

    for (int distance = 1; distance < 32; distance *= 2) {
        int before = __shfl_up_sync(0xffffffffu, sum, distance);

        sum += lane < distance ? 0 : before;
    }
    if (lane == 31)
        sums[warp] = sum;
    __syncthreads();
    sum -= x;
    for (int i = 0; i < warp; i++)
        sum += sums[i];
    return sum;
}

/* Exclusive prefix sum of counts: where each chunk's rows of an owner begin. One block. */
__global__ void route_scan_kernel(int64_t n, int32_t *counts)
{
    HY3_SHARED(int, sums, [32]);
    int64_t each = (n + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each;
    int64_t end = first + each < n ? first + each : n;
    int next = 0;

    for (int64_t i = first; i < end; i++)
        next += counts[i];
    next = block_sum_before(next, sums);
    for (int64_t i = first; i < end; i++) {
        int count = counts[i];

        counts[i] = next;
        next += count;
    }
}

/* Lanes of the warp with the same owner; owners are below 2^bits. */
HY3_DEVICE unsigned lanes_of(int owner, int bits)
{
    unsigned same = 0xffffffffu;

    for (int bit = 0; bit < bits; bit++) {
        int is_set = owner >> bit & 1;
        unsigned set = __ballot_sync(0xffffffffu, is_set);

        same &= is_set ? set : ~set;
    }
    return same;
}

/* Each chunk hands its places to its warps, and each warp to its lanes. */
__global__ void route_place_kernel(int64_t n, int G, int k, int width, int stride, int bits,
                                   const int32_t *ids, const int32_t *places, int32_t *position,
                                   int32_t *token, int64_t *starts)
{
    HY3_DYNAMIC_SHARED(memory);
    int32_t *next = (int32_t *)memory; /* [warps][G] */
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int owner = i < n ? owner_of(ids, i, k, width, stride) : -1;
    unsigned same = lanes_of(owner, bits) & __ballot_sync(0xffffffffu, owner >= 0);
    int rank = __popc(same & ((1u << lane) - 1));

    for (int g = threadIdx.x; g < warps * G; g += blockDim.x)
        next[g] = 0;
    __syncthreads();
    if (owner >= 0 && rank == 0)
        next[warp * G + owner] = __popc(same);
    __syncthreads();
    for (int g = threadIdx.x; g < G; g += blockDim.x) {
        int place = places[(int64_t)g * gridDim.x + blockIdx.x];

        if (blockIdx.x == 0)
            starts[g] = place;
        for (int w = 0; w < warps; w++) {
            int count = next[w * G + g];

            next[w * G + g] = place;
            place += count;
        }
        if (g == G - 1 && blockIdx.x == gridDim.x - 1)
            starts[G] = place;
    }
    __syncthreads();
    if (owner >= 0) {
        int place = next[warp * G + owner] + rank;

        position[i] = place;
        token[place] = (int32_t)(i / k);
    } else if (i < n) {
        position[i] = -1;
    }
}

hy3_status hy3_cuda_route_index(struct hy3_stream *stream, const struct hy3_route_index *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t n = a->T * a->k;
    unsigned threads = threads_for(n, CHUNK), chunks;
    size_t row = (size_t)a->G * sizeof(int32_t);
    int32_t *counts;
    int bits = 0;

    if (a->stride == 1)
        HY3_CUDA_CHECK_INDICES(stream, route_index, ids, a->T * a->k, 0, a->G * a->width);
    if (n == 0) {
        HY3_CUDA_TRY(cudaMemsetAsync(a->starts, 0, (size_t)(a->G + 1) * sizeof *a->starts, s));
        return HY3_OK;
    }
    while ((int64_t)1 << bits < a->G)
        bits++;
    while (threads > 32 && threads / 32 * row > SHARED)
        threads -= 32;
    chunks = blocks_for(n, threads);
    HY3_TRY(hy3_cuda_scratch(stream, HY3_SLOT_ORDER, chunks * row, &counts));
    HY3_CUDA_LAUNCH(route_count_kernel, chunks, threads, row, s, n, (int)a->G, (int)a->k,
                    (int)a->width, (int)a->stride, a->ids, counts);
    HY3_CUDA_LAUNCH(route_scan_kernel, 1, threads_for(chunks * a->G, SCAN), 0, s, chunks * a->G,
                    counts);
    HY3_CUDA_LAUNCH(route_place_kernel, chunks, threads, threads / 32 * row, s, n, (int)a->G,
                    (int)a->k, (int)a->width, (int)a->stride, bits, a->ids, (const int32_t *)counts,
                    a->position, a->token, a->starts);
    return HY3_OK;
}
