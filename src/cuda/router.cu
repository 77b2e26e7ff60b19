/* router.cu - choice of experts and their weights, a warp a token; the order of rows by expert. */
#include "cuda/cuda.h"

/* An expert that may be chosen; expert -1: none. */
struct candidate {
    float value;
    int expert;
};

/* Larger first, then the smaller expert: the CPU's order. NaN never wins against what is there. */
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
        best.expert = __shfl_sync(0xffffffffu, best.expert, 0); /* NaNs: one answer for all lanes */
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
    if (a->T > 0)
        HY3_CUDA_LAUNCH(router_forward_kernel, (unsigned)a->T, 32, (size_t)a->E * 8,
                        hy3_cuda_stream(stream)->stream, (int)a->E, (int)a->k, a->scaling,
                        (int)a->replay, a->logits, a->bias, a->ids, a->weights);
    return HY3_OK;
}

/* With S = sum s + 1e-20 and w_j = c s_j / S:  ds_j = c / S (dw_j - sum_i dw_i s_i / S),  dlogit = ds s (1 - s). */
__global__ void router_backward_kernel(int E, int k, float scaling, const float *logits,
                                       const int32_t *ids, const float *dweights, float *dlogits)
{
    int64_t t = blockIdx.x;
    const int32_t *own = ids + t * k;
    const float *dw = dweights + t * k;
    float sum = 1e-20f, inner = 0;
    int lane = threadIdx.x;

    for (int e = lane; e < E; e += 32)
        dlogits[t * E + e] = 0;
    for (int j = 0; j < k; j++) {
        float s = sigmoid(logits[t * E + own[j]]);

        sum += s;
        inner += dw[j] * s;
    }
    __syncwarp();
    for (int j = lane; j < k; j += 32) {
        float s = sigmoid(logits[t * E + own[j]]);

        dlogits[t * E + own[j]] = scaling / sum * (dw[j] - inner / sum) * s * (1 - s);
    }
}

hy3_status hy3_cuda_router_backward(struct hy3_stream *stream, const struct hy3_router *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH(router_backward_kernel, (unsigned)a->T, 32, 0,
                        hy3_cuda_stream(stream)->stream, (int)a->E, (int)a->k, a->scaling,
                        a->logits, a->ids, a->dweights, a->dlogits);
    return HY3_OK;
}

/* ---- order of the rows by expert: a stable counting sort in chunks, a thread an expert, so no atomics ---- */

enum { CHUNK = 512, THREADS = 256 };

/* counts[chunk][expert] */
__global__ void route_count_kernel(int64_t n, int E, const int32_t *ids, int32_t *counts)
{
    HY3_SHARED(int32_t, chunk, [CHUNK]);
    int64_t first = (int64_t)blockIdx.x * CHUNK;
    int own = n - first < CHUNK ? (int)(n - first) : (int)CHUNK;

    for (int i = threadIdx.x; i < own; i += blockDim.x)
        chunk[i] = ids[first + i];
    __syncthreads();
    for (int e = threadIdx.x; e < E; e += blockDim.x) {
        int count = 0;

        for (int i = 0; i < own; i++)
            count += chunk[i] == e;
        counts[(int64_t)blockIdx.x * E + e] = count;
    }
}

/* counts become the places where each chunk's rows of an expert begin. One block. */
__global__ void route_scan_kernel(int chunks, int E, int32_t *counts, int64_t *starts)
{
    for (int e = threadIdx.x; e < E; e += blockDim.x) {
        int sum = 0;

        for (int c = 0; c < chunks; c++)
            sum += counts[(int64_t)c * E + e];
        starts[e + 1] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        starts[0] = 0;
        for (int e = 0; e < E; e++)
            starts[e + 1] += starts[e];
    }
    __syncthreads();
    for (int e = threadIdx.x; e < E; e += blockDim.x) {
        int next = (int)starts[e];

        for (int c = 0; c < chunks; c++) {
            int count = counts[(int64_t)c * E + e];

            counts[(int64_t)c * E + e] = next;
            next += count;
        }
    }
}

__global__ void route_place_kernel(int64_t n, int E, int k, const int32_t *ids,
                                   const int32_t *places, int32_t *position, int32_t *token)
{
    HY3_SHARED(int32_t, chunk, [CHUNK]);
    int64_t first = (int64_t)blockIdx.x * CHUNK;
    int own = n - first < CHUNK ? (int)(n - first) : (int)CHUNK;

    for (int i = threadIdx.x; i < own; i += blockDim.x)
        chunk[i] = ids[first + i];
    __syncthreads();
    for (int e = threadIdx.x; e < E; e += blockDim.x) {
        int next = places[(int64_t)blockIdx.x * E + e];

        for (int i = 0; i < own; i++) {
            if (chunk[i] != e)
                continue;
            position[first + i] = next;
            token[next] = (int32_t)((first + i) / k);
            next++;
        }
    }
}

hy3_status hy3_cuda_route_index(struct hy3_stream *stream, const struct hy3_route_index *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t n = a->T * a->k, chunks = (n + CHUNK - 1) / CHUNK;
    unsigned threads = threads_for(a->E, THREADS);
    int32_t *counts;

    if (n == 0) {
        HY3_CUDA_TRY(cudaMemsetAsync(a->starts, 0, (size_t)(a->E + 1) * sizeof *a->starts, s));
        return HY3_OK;
    }
    HY3_STATUS_TRY(hy3_cuda_scratch(stream, HY3_SLOT_ORDER,
                                    (size_t)(chunks * a->E) * sizeof *counts, (void **)&counts));
    HY3_CUDA_LAUNCH(route_count_kernel, (unsigned)chunks, threads, 0, s, n, (int)a->E, a->ids,
                    counts);
    HY3_CUDA_LAUNCH(route_scan_kernel, 1, threads, 0, s, (int)chunks, (int)a->E, counts, a->starts);
    HY3_CUDA_LAUNCH(route_place_kernel, (unsigned)chunks, threads, 0, s, n, (int)a->E, (int)a->k,
                    a->ids, (const int32_t *)counts, a->position, a->token);
    return HY3_OK;
}
