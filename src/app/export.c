/* SPDX-License-Identifier: Apache-2.0 */
/* export.c - values from the state where there are any, else from the base. */
#include "app/export.h"

#include "app/identity.h"
#include "app/module_options.h"
#include "app/save.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/planted.h"
#include "ckpt/hf/publish.h"
#include "ckpt/hf/scales.h"
#include "ckpt/state/state.h"
#include "comm/agree.h"
#include "comm/comm.h"

static const char program[] = "hy3_export";

/* A tensor of the base and its place in the table. */
struct piece {
    struct hy3_place place;
    char name[HY3_PARAM_NAME];
    int shard;
};

struct export
{
    MPI_Comm comm;
    const struct hy3_export *options;
    struct hy3_config config; /* of the run */
    struct hy3_loaded_model model;
    struct hy3_state *state;
    struct piece *pieces; /* parameters of the base, by parameter and place */
    size_t piece_count;
    struct hy3_shard *shard; /* of the base, the last one read */
    int shard_number;
    struct hy3_scale_reader scales;
};

static int by_place(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    if (x->place.param != y->place.param)
        return x->place.param < y->place.param ? -1 : 1;
    return (x->place.span.first > y->place.span.first) -
           (x->place.span.first < y->place.span.first);
}

static hy3_status list_pieces(struct export *e)
{
    int count = hy3_hf_dir_tensors(e->model.base);

    HY3_TRY(hy3_alloc(&e->pieces, (size_t)count, sizeof *e->pieces));
    for (int i = 0; i < count; i++) {
        struct piece *piece = &e->pieces[e->piece_count];
        const char *name = hy3_hf_dir_tensor(e->model.base, i, &piece->shard);

        hy3_name_locate(e->model.params, name, &piece->place);
        snprintf(piece->name, sizeof piece->name, "%s", name);
        e->piece_count += piece->place.param != NULL;
    }
    if (e->piece_count > 0)
        qsort(e->pieces, e->piece_count, sizeof *e->pieces, by_place);
    return HY3_OK;
}

static hy3_status open_shard(struct export *e, int number)
{
    if (e->shard && e->shard_number == number)
        return HY3_OK;
    hy3_shard_close(e->shard);
    e->shard = NULL;
    HY3_TRY(hy3_hf_dir_open_shard(e->model.base, number, &e->shard));
    e->shard_number = number;
    return HY3_OK;
}

/* The elements of a span that a tensor of the base has. */
static hy3_status read_piece(struct export *e, const struct piece *piece, struct hy3_span span,
                             float *data, int64_t *read)
{
    const struct hy3_place *place = &piece->place;
    const struct hy3_shard_tensor *tensor;
    struct hy3_span part = hy3_span_intersect(place->span, span);

    if (part.count == 0)
        return HY3_OK;
    HY3_TRY(open_shard(e, piece->shard));
    tensor = hy3_shard_find(e->shard, piece->name);
    if (!tensor || (!tensor->is_float && !tensor->is_fp8) || tensor->count != place->span.count)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is missing or of another shape",
                 hy3_shard_path(e->shard), piece->name);
    data += part.first - span.first;
    part.first -= place->span.first;
    *read += part.count;
    return hy3_scales_read_values(&e->scales, e->shard, tensor, place, &e->model.shape, part, data);
}

static hy3_status read_base(struct export *e, const struct hy3_param *param, struct hy3_span span,
                            float *out)
{
    int64_t read = 0;

    for (size_t i = 0; i < e->piece_count; i++)
        if (e->pieces[i].place.param == param)
            HY3_TRY(read_piece(e, &e->pieces[i], span, out, &read));
    if (read != span.count)
        HY3_FAIL(HY3_EFORMAT, "'%s' does not have all elements of '%s'",
                 hy3_hf_dir_path(e->model.base), param->name);
    return HY3_OK;
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out)
{
    struct export *e = of;
    struct hy3_values state = hy3_state_values(e->state);

    if (param->trainable)
        return state.get(state.of, field, param, span, out);
    return read_base(e, param, span, out);
}

static struct hy3_span share(void *of, const struct hy3_param *param)
{
    const struct export *e = of;

    return hy3_span_share(param->count, hy3_rank(e->comm), hy3_size(e->comm));
}

/* The run's configuration and its model, without weights. Collective. */
static hy3_status open_run(struct export *e)
{
    char path[HY3_PATH_MAX], base[HY3_PATH_MAX + 32] = "";
    char *argv[] = {(char *)program, path, base};
    struct hy3_loaded_model_options options;
    struct hy3_state_identity here;
    bool finished;

    HY3_AGREE(e->comm, hy3_path_format(path, sizeof path, "%s/state.h5", e->options->checkpoint),
              "opening the checkpoint");
    HY3_TRY(hy3_state_open(e->comm, path, &e->state));
    HY3_AGREE(e->comm, hy3_path_format(path, sizeof path, "%s/config.cfg", e->options->checkpoint),
              "opening the checkpoint");
    if (e->options->base)
        snprintf(base, sizeof base, "model_name_or_path=%s", e->options->base);
    HY3_TRY(hy3_config_parse(&e->config, e->comm, e->options->base ? 3 : 2, argv, "", &finished));
    HY3_AGREE(e->comm, hy3_module_options_model(&e->config, &options), "reading the configuration");
    options.expert_parallel_size = 1;
    options.sequence_parallel_size = 1;
    options.zero_group_size = 0;
    options.device = "cpu";
    if (options.training == HY3_TRAIN_ADAPTER) /* its rank and targets */
        options.adapter = e->options->checkpoint;
    HY3_TRY(hy3_loaded_model_open(e->comm, &options, &e->model));
    HY3_TRY(hy3_identity_of(&e->model, e->config.model_name_or_path, &here));
    if (hy3_state_info(e->state)->identity.adapter[0] != '\0') /* dropout is of no use here */
        snprintf(here.adapter, sizeof here.adapter, "%s",
                 hy3_state_info(e->state)->identity.adapter);
    HY3_AGREE(e->comm,
              hy3_identity_check(&e->model, e->options->checkpoint,
                                 &hy3_state_info(e->state)->identity, &here),
              "opening the checkpoint");
    HY3_AGREE(e->comm, hy3_state_matches(e->state, e->model.params), "opening the checkpoint");
    return hy3_agree(e->comm, hy3_state_verify(e->state, hy3_rank(e->comm), hy3_size(e->comm)),
                     "checking the checkpoint");
}

static struct hy3_save save_options(const struct export *e)
{
    const struct hy3_export *o = e->options;
    hy3_dtype computed = e->config.bf16 ? HY3_BF16 : HY3_FP32;

    return (struct hy3_save){.model = &e->model,
                             .output = o->output,
                             .base_path = e->config.model_name_or_path,
                             .tokenizer_directory = o->checkpoint,
                             .names = o->names < 0 ? hy3_hf_dir_names(e->model.base)
                                                   : (enum hy3_names)o->names,
                             .dtype = o->dtype < 0 ? computed : (hy3_dtype)o->dtype,
                             .max_shard_bytes = o->max_shard_bytes};
}

/* Rank 0. */
static hy3_status check_output(const char *output)
{
    HY3_TRY(hy3_planted_check(output, NULL));
    return hy3_hf_may_write(output, program);
}

hy3_status hy3_export(MPI_Comm comm, const struct hy3_export *options)
{
    hy3_status status = HY3_OK;
    struct export e = {.comm = comm, .options = options};
    struct hy3_values values = {.of = &e, .get = get, .share = share};
    struct hy3_save save;

    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? check_output(options->output) : HY3_OK,
                   "opening the output directory");
    HY3_TRY_DONE(open_run(&e));
    save = save_options(&e);
    e.scales.dir = e.model.base;
    HY3_AGREE_DONE(comm, list_pieces(&e), "opening the model");
    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? hy3_hf_begin(options->output, program) : HY3_OK,
                   "creating the output directory");
    HY3_TRY_DONE(hy3_save_weights(comm, &save, values));
    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? hy3_hf_end(options->output) : HY3_OK,
                   "completing the output directory");
    hy3_log(HY3_LOG_INFO, "the %s of step %lld is in '%s'",
            e.model.params->lora.rank > 0 ? "adapter" : "model",
            (long long)hy3_state_info(e.state)->step, options->output);
done:
    hy3_shard_close(e.shard);
    hy3_scale_reader_close(&e.scales);
    hy3_free(e.pieces);
    hy3_state_close(e.state);
    hy3_loaded_model_close(&e.model);
    hy3_config_free(&e.config);
    return status;
}
