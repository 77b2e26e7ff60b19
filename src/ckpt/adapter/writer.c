/* SPDX-License-Identifier: Apache-2.0 */
/* writer.c - factors of fused experts are put into the order of the file, then all are written as
 * any model is. */
#include "ckpt/adapter/writer.h"

#include "base/memory.h"
#include "ckpt/adapter/config.h"
#include "ckpt/adapter/transpose.h"
#include "comm/agree.h"
#include "comm/comm.h"

/* The values of the caller in the order of the file. */
struct ordered {
    MPI_Comm comm;
    const struct hy3_params *params;
    struct hy3_values values;
    float **rows; /* [params->count] of the reordered factors: this rank's rows of the file */
};

/* Collective. */
static hy3_status transpose_all(struct ordered *o)
{
    HY3_AGREE(o->comm, hy3_alloc(&o->rows, (size_t)o->params->count, sizeof *o->rows),
              "preparing the adapter");
    for (int i = o->params->base_count; i < o->params->count; i++)
        if (hy3_transpose_needed(&o->params->params[i]))
            HY3_TRY(hy3_transpose(o->comm, &o->params->params[i], o->values, &o->rows[i]));
    return HY3_OK;
}

static void ordered_free(struct ordered *o)
{
    for (int i = 0; o->rows && i < o->params->count; i++)
        hy3_free(o->rows[i]);
    hy3_free(o->rows);
}

static struct hy3_span share_ordered(void *of, const struct hy3_param *p)
{
    const struct ordered *o = of;
    struct hy3_span rows;

    if (!hy3_transpose_needed(p))
        return o->values.share(o->values.of, p);
    rows = hy3_transpose_share(p, hy3_rank(o->comm), hy3_size(o->comm));
    return (struct hy3_span){rows.first * p->shape[0], rows.count * p->shape[0]};
}

static hy3_status get_ordered(void *of, enum hy3_field field, const struct hy3_param *p,
                              struct hy3_span span, float *out)
{
    const struct ordered *o = of;

    if (!hy3_transpose_needed(p))
        return o->values.get(o->values.of, field, p, span, out);
    memcpy(out, o->rows[p - o->params->params] + span.first - share_ordered(of, p).first,
           (size_t)span.count * sizeof *out);
    return HY3_OK;
}

hy3_status hy3_adapter_write(MPI_Comm comm, const struct hy3_adapter_writer *options,
                             const struct hy3_params *params, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    struct ordered ordered = {.comm = comm, .params = params, .values = values};
    json_t *config = hy3_adapter_config_create(params, options->base_path);
    struct hy3_hf_writer_options writer = {.output = options->output,
                                           .adapter = true,
                                           .keeps_on = true, /* small */
                                           .config = config,
                                           .names = HY3_OUTER,
                                           .dtype = HY3_FP32,
                                           .trained_on = options->base_fingerprint,
                                           .max_shard_bytes = INT64_MAX,
                                           .tokenizer_directory = options->tokenizer_directory};

    HY3_TRY_DONE(transpose_all(&ordered));
    HY3_TRY_DONE(hy3_hf_write(
        comm, &writer, params,
        (struct hy3_values){.of = &ordered, .get = get_ordered, .share = share_ordered}));
done:
    ordered_free(&ordered);
    json_decref(config);
    return status;
}
