/* SPDX-License-Identifier: Apache-2.0 */
/* sums.c - a ring of reduce-scatters and all-reduces. */
#include "parallel/sums.h"

/* Adds or copies what came to the gradient. */
static hy3_status put_own(const struct hy3_sums *sums, struct hy3_stream *stream,
                          const struct hy3_sum *sum)
{
    const struct hy3_scatter *s = &sum->scatter;

    if (s->add)
        return sums->backend->kernels.add(stream, &(struct hy3_add){.n = s->slice,
                                                                    .x_dtype = s->dtype,
                                                                    .y_dtype = HY3_FP32,
                                                                    .x = sum->own,
                                                                    .y = s->to});
    if (s->dtype == HY3_FP32)
        return sums->backend->device.copy(stream, s->to, sum->own,
                                          (size_t)s->slice * sizeof(float));
    return sums->backend->kernels.cast(
        stream,
        &(struct hy3_cast){
            .n = s->slice, .x_dtype = s->dtype, .y_dtype = HY3_FP32, .x = sum->own, .y = s->to});
}

static void give_grad(const struct hy3_sums *sums, struct hy3_sum *sum)
{
    if (sum->scatter.is_lent)
        hy3_pool_give(sums->pool, sum->scatter.grad);
    sum->scatter.is_lent = false;
}

static hy3_status finish_oldest(struct hy3_sums *sums, struct hy3_stream *stream)
{
    hy3_status status = HY3_OK;
    struct hy3_sum *sum = &sums->list[sums->first];

    sums->first = (sums->first + 1) % HY3_SUMS;
    sums->count--;
    HY3_TRY_DONE(sums->backend->collectives.finish(stream, &sum->transfer, "summing gradients"));
    if (sum->own)
        HY3_TRY_DONE(put_own(sums, stream, sum));
done:
    hy3_pool_give(sums->pool, sum->own);
    hy3_pool_give(sums->pool, sum->sent);
    give_grad(sums, sum);
    return status;
}

/* A place for one more. */
static hy3_status next(struct hy3_sums *sums, struct hy3_stream *stream, struct hy3_sum **out)
{
    if (sums->count == HY3_SUMS)
        HY3_TRY(finish_oldest(sums, stream));
    *out = &sums->list[(sums->first + sums->count) % HY3_SUMS];
    **out = (struct hy3_sum){.own = NULL};
    return HY3_OK;
}

/* A bf16 copy of the gradient, whose own memory is free then. */
static hy3_status narrow(struct hy3_sums *sums, struct hy3_stream *stream, struct hy3_sum *sum)
{
    const struct hy3_scatter *s = &sum->scatter;
    int64_t count = s->slice * s->group->size;

    HY3_TRY(hy3_pool_take(sums->pool, (size_t)count * hy3_dtype_size(s->dtype), &sum->sent));
    HY3_TRY(sums->backend->kernels.cast(
        stream,
        &(struct hy3_cast){
            .n = count, .x_dtype = HY3_FP32, .y_dtype = s->dtype, .x = s->grad, .y = sum->sent}));
    give_grad(sums, sum);
    return HY3_OK;
}

hy3_status hy3_sums_scatter(struct hy3_sums *sums, struct hy3_stream *stream,
                            const struct hy3_scatter *s)
{
    struct hy3_sum *sum;

    HY3_TRY(next(sums, stream, &sum));
    sum->scatter = *s;
    HY3_TRY(hy3_pool_take(sums->pool, (size_t)s->slice * hy3_dtype_size(s->dtype), &sum->own));
    if (s->dtype != HY3_FP32)
        HY3_TRY(narrow(sums, stream, sum));
    HY3_TRY(sums->backend->collectives.reduce_scatter(stream, s->group,
                                                      sum->sent ? sum->sent : s->grad, sum->own,
                                                      s->slice, s->dtype, &sum->transfer));
    sums->count++;
    return HY3_OK;
}

hy3_status hy3_sums_total(struct hy3_sums *sums, struct hy3_stream *stream,
                          const struct hy3_group *group, float *data, int64_t count)
{
    struct hy3_sum *sum;

    HY3_TRY(next(sums, stream, &sum));
    HY3_TRY(sums->backend->collectives.all_reduce(stream, group, data, count, &sum->transfer));
    sums->count++;
    return HY3_OK;
}

hy3_status hy3_sums_finish(struct hy3_sums *sums, struct hy3_stream *stream)
{
    while (sums->count > 0)
        HY3_TRY(finish_oldest(sums, stream));
    return HY3_OK;
}
