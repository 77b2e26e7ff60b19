/* loss.cu - cross-entropy of rows of logits, a block a row. Bound by memory: the logits twice. */
#include "cuda/cuda.h"

__global__ void loss_forward_kernel(int64_t V, const float *logits, const int32_t *targets,
                                    float *loss, float *lse)
{
    HY3_SHARED(float, red, [33]);
    const float *row = logits + (int64_t)blockIdx.x * V;
    int target = targets[blockIdx.x];
    float most = -INFINITY, sum = 0;

    for (int64_t v = threadIdx.x; v < V; v += blockDim.x)
        most = fmaxf(most, row[v]);
    most = block_max(most, red);
    for (int64_t v = threadIdx.x; v < V; v += blockDim.x)
        sum += expf(row[v] - most);
    sum = most + logf(block_sum(sum, red));
    if (threadIdx.x == 0) {
        lse[blockIdx.x] = sum;
        loss[blockIdx.x] = target < 0 ? 0 : sum - row[target];
    }
}

hy3_status hy3_cuda_loss_forward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    if (a->N > 0)
        HY3_CUDA_LAUNCH(loss_forward_kernel, (unsigned)a->N, threads_for(a->V / 4), 0,
                        hy3_cuda_stream(stream)->stream, a->V, a->logits, a->targets, a->loss,
                        a->lse);
    return HY3_OK;
}

/* dlogits = scale (exp(logits - lse) - [v == target]); it may be logits. */
template <class T>
__global__ void loss_backward_kernel(int64_t V, float scale, const float *logits,
                                     const int32_t *targets, const float *lse, T *dlogits)
{
    int64_t first = (int64_t)blockIdx.x * V;
    int target = targets[blockIdx.x];
    float shift = lse[blockIdx.x];

    for (int64_t v = threadIdx.x; v < V; v += blockDim.x) {
        float d = target < 0 ? 0 : scale * expf(logits[first + v] - shift);

        from_float(v == target ? d - scale : d, &dlogits[first + v]);
    }
}

hy3_status hy3_cuda_loss_backward(struct hy3_stream *stream, const struct hy3_loss *a)
{
    if (a->N > 0)
        HY3_BY_TYPE(a->dtype, T,
                    HY3_CUDA_LAUNCH(loss_backward_kernel<T>, (unsigned)a->N, threads_for(a->V / 4),
                                    0, hy3_cuda_stream(stream)->stream, a->V, a->scale, a->logits,
                                    a->targets, a->lse, (T *)a->dlogits));
    return HY3_OK;
}
