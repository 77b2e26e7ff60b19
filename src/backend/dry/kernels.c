/* SPDX-License-Identifier: Apache-2.0 */
/* kernels.c - what each kernel costs: operations of products and attention at their rates, bytes
 * that the others read and write at the memory's. */
#include "backend/dry/parts.h"
#include "backend/dry/timeline.h"

static double greater(double a, double b)
{
    return a > b ? a : b;
}

static double size_of(hy3_dtype dtype)
{
    return (double)hy3_dtype_size(dtype);
}

/* Bound by memory. */
static struct hy3_cost of_bytes(double bytes, int launches)
{
    const struct hy3_rates *r = hy3_timeline_rates();

    return (struct hy3_cost){HY3_ELEMENTWISE, bytes / r->memory + r->kernel, 0, launches};
}

static struct hy3_cost cost_gemm(const struct hy3_gemm *a)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    double M = (double)a->M, N = (double)a->N, K = (double)a->K, flops = 2 * M * N * K;
    double bytes = size_of(a->dtype) * (M * K + N * K) + size_of(a->c_dtype) * M * N;
    double rate = a->dtype == HY3_BF16 ? r->product_bf16 : r->product_fp32;

    return (struct hy3_cost){HY3_PRODUCTS, greater(flops / rate, bytes / r->memory) + r->kernel,
                             flops, 1};
}

static struct hy3_cost cost_grouped_gemm(const struct hy3_grouped_gemm *a)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    bool is_weights = a->form == HY3_TN, is_half = a->dtype == HY3_BF16;
    double width = (double)a->N * (double)(is_weights ? a->M : a->K);
    double flops = 2 * (double)a->starts[a->groups] * width;
    double rate = is_weights ? (is_half ? r->grouped_weights_bf16 : r->grouped_weights_fp32)
                             : (is_half ? r->grouped_bf16 : r->grouped_fp32);
    double bytes =
        (double)a->groups * width * (is_weights ? 2 * size_of(a->c_dtype) : size_of(a->dtype));

    return (struct hy3_cost){HY3_PRODUCTS,
                             greater(hy3_timeline_imbalance() * flops / rate, bytes / r->memory) +
                                 3 * r->kernel,
                             flops, (int)a->groups};
}

/* Operations of one product of queries and keys, and whether samples are long. */
static double pairs(const struct hy3_attention *a, bool *is_long)
{
    double sum = 0;

    *is_long = false;
    for (int64_t s = 0; s < a->S; s++) {
        double rows = (double)(a->q_starts[s + 1] - a->q_starts[s]);
        double keys = (double)(a->kv_end[s] - a->kv_first[s]);

        sum += rows * (keys - (rows - 1) / 2);
        *is_long |= keys > 16384;
    }
    return 2 * sum * (double)a->Q * (double)a->D;
}

static struct hy3_cost cost_attention_forward(const struct hy3_attention *a)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    bool is_long;
    double flops = 2 * pairs(a, &is_long);

    return (struct hy3_cost){HY3_ATTENTION,
                             flops / (is_long ? r->attention_forward_long : r->attention_forward),
                             flops, 2};
}

static struct hy3_cost cost_attention_backward(const struct hy3_attention *a)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    bool is_long;
    double flops = 5 * pairs(a, &is_long);

    return (struct hy3_cost){HY3_ATTENTION,
                             flops / (is_long ? r->attention_backward_long : r->attention_backward),
                             flops, 4};
}

/* Reads and writes weight, its lower half, both moments; reads the gradient. Scales are not
 * counted. */
static struct hy3_cost cost_adamw(const struct hy3_adamw *a)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    double bytes = (12 + 4 * (double)hy3_moment_size(a->moments)) * (double)a->n;

    if (hy3_dry_is_host(a->m) || !r->overlap) /* a CPU's memory is its host's */
        return (struct hy3_cost){HY3_ELEMENTWISE, bytes / r->host_memory, 0, 0};
    return of_bytes(bytes, 1);
}

/* Bytes of the rest: elements that are read and written, `e` of the operands' dtype each. */
#define BYTES(name, op, launches, bytes)                         \
    static struct hy3_cost cost_##name(const struct hy3_##op *a) \
    {                                                            \
        return of_bytes((double)(bytes), launches);              \
    }
BYTES(route_index, route_index, 3, 24 * a->T * a->k)
BYTES(label, label, 1, 32 * a->T * a->k)
BYTES(relabel, relabel, 1, 32 * a->T * a->k)
BYTES(unlabel, unlabel, 1, 20 * a->N * a->k + 8 * a->R)
BYTES(row_dot, row_dot, 1, 2 * size_of(a->dtype) * (double)(a->N * a->C))
BYTES(cast, cast, 1, (double)a->n *(size_of(a->x_dtype) + size_of(a->y_dtype)))
BYTES(add, add, 1, (double)a->n *(size_of(a->x_dtype) + 2 * size_of(a->y_dtype)))
BYTES(dropout, dropout, 1, 2 * size_of(a->dtype) * (double)(a->N * a->C))
BYTES(noise, noise, 1, 2 * size_of(a->dtype) * (double)(a->N * a->C))
BYTES(square_sum, square_sum, 2, size_of(a->dtype) * (double)a->n)
BYTES(expand, expand, 1, (1 + size_of(a->dtype)) * (double)(a->M * a->N * a->K))
BYTES(quantize, quantize, 1, (1 + size_of(a->dtype)) * (double)(a->N * a->K))
BYTES(embedding_forward, embedding, 1, 2 * size_of(a->dtype) * (double)(a->T * a->H))
BYTES(embedding_backward, embedding, 3, (8 + size_of(a->dtype)) * (double)(a->T * a->H))
BYTES(rmsnorm_forward, rmsnorm, 1, 2 * size_of(a->dtype) * (double)(a->T * a->H))
BYTES(rmsnorm_backward, rmsnorm, 2, 4 * size_of(a->dtype) * (double)(a->T * a->H))
BYTES(rope_forward, rope, 1, 2 * size_of(a->dtype) * (double)(a->T * a->heads * a->D))
BYTES(rope_backward, rope, 2, 3 * size_of(a->dtype) * (double)(a->T * a->heads * a->D))
BYTES(router_forward, router, 1, 4 * a->T * a->E)
BYTES(router_backward, router, 1, 8 * a->T * a->E)
BYTES(permute_forward, permute, 1, 2 * size_of(a->dtype) * (double)(a->R * a->H))
BYTES(permute_backward, permute, 1, size_of(a->dtype) * (double)((a->R + a->T) * a->H))
BYTES(unpermute_forward, unpermute, 1,
      size_of(a->dtype) *
          (double)((a->R + (1 + (a->shared ? 1 : 0) + (a->accumulate ? 1 : 0)) * a->T) * a->H))
BYTES(unpermute_backward, unpermute, 1, size_of(a->dtype) * (double)((a->R + a->T) * a->H))
BYTES(swiglu_forward, swiglu, 1, 3 * size_of(a->dtype) * (double)(a->N * a->I))
BYTES(swiglu_backward, swiglu, 1, 5 * size_of(a->dtype) * (double)(a->N * a->I))
BYTES(loss_forward, loss, 1, 4 * a->N * a->V)
BYTES(loss_backward, loss, 1, (4 + size_of(a->dtype)) * (double)(a->N * a->V))
#undef BYTES

#define STUB(name, op)                                                             \
    static hy3_status name(struct hy3_stream *stream, const struct hy3_##op *args) \
    {                                                                              \
        if (hy3_timeline_rates())                                                  \
            hy3_timeline_work(stream, #name, cost_##name(args));                   \
        return HY3_OK;                                                             \
    }
#define X(op) STUB(op, op)
HY3_OPS(X)
#undef X
#define X(op) STUB(op##_forward, op) STUB(op##_backward, op)
HY3_PAIRS(X)
#undef X

const struct hy3_kernels hy3_dry_kernels = {
#define X(op) .op = op,
    HY3_OPS(X)
#undef X
#define X(op) .op##_forward = op##_forward, .op##_backward = op##_backward,
        HY3_PAIRS(X)
#undef X
};
