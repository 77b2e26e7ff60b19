/* SPDX-License-Identifier: Apache-2.0 */
/* loaded_model.c - opens a model directory and loads its weights. */
#include "app/loaded_model.h"

#include "app/dummy_weights.h"
#include "base/file.h"
#include "base/log.h"
#include "ckpt/adapter/draw.h"
#include "ckpt/hf/load.h"
#include "comm/abort.h"
#include "comm/agree.h"
#include "config/config.h"

/* Adds the adapter's tensors to the table and marks what is trained. */
static hy3_status add_adapter(const struct hy3_loaded_model_options *options,
                              struct hy3_loaded_model *model)
{
    struct hy3_lora lora = options->lora;

    if (options->adapter) {
        HY3_TRY(hy3_adapter_open(options->adapter, model->params, &model->adapter));
        lora = *hy3_adapter_lora(model->adapter);
        lora.dropout = options->lora.dropout;
    }
    if (lora.rank > 0) {
        HY3_TRY(hy3_params_add_adapter(model->params, &lora));
        if (model->params->count == model->params->base_count)
            HY3_FAIL(HY3_EUSAGE, "no layer of the model has a matrix that lora_target names");
    }
    hy3_params_train(model->params, options->training, &options->selection);
    return HY3_OK;
}

static hy3_status open_local(const struct hy3_loaded_model_options *options,
                             struct hy3_loaded_model *model)
{
    char path[HY3_PATH_MAX], why[HY3_PATH_WHY];

    if (hy3_path_fault(options->directory, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "the model directory '%s' %s", options->directory, why);
    model->dummy = options->dummy;
    model->seed = options->seed;
    if (!options->dummy)
        HY3_TRY(hy3_hf_dir_expect_model(options->directory));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", options->directory));
    HY3_TRY(hy3_shape_open(path, &model->shape));
    return options->dummy ? hy3_hf_dir_open_dummy(options->directory, &model->base)
                          : hy3_hf_dir_open(options->directory, &model->base);
}

/* The parameter table, with the experts that this rank holds. */
static hy3_status make_table(const struct hy3_loaded_model_options *options,
                             struct hy3_loaded_model *model)
{
    int64_t held = model->shape.experts / model->layout.experts.size;

    HY3_TRY(
        hy3_params_create(&model->shape, model->layout.experts.rank * held, held, &model->params));
    return add_adapter(options, model);
}

/* Before anything is loaded, so that a network that does not work shows at once. Others of a group
 * that one rank cannot open wait for it. */
static hy3_status open_groups(struct hy3_loaded_model *model)
{
    const struct hy3_layout *layout = &model->layout;
    const struct hy3_group *groups[] = {
        &layout->zero,          &layout->peers,    &layout->experts, &layout->replicas,
        &layout->replica_peers, &layout->sequence, &layout->near,    &layout->across};
    const size_t count = sizeof groups / sizeof(void *) - (model->is_over_nodes ? 0 : 2);
    hy3_status status = HY3_OK;

    if (!model->backend->collectives.open)
        return HY3_OK;
    HY3_AGREE(layout->world.comm, model->backend->device.available(&model->device_free),
              "opening the groups of ranks");
    for (size_t i = 0; i < count; i++)
        if ((status = model->backend->collectives.open(groups[i])) != HY3_OK)
            hy3_abort(status, "opening the groups of ranks");
    return HY3_OK;
}

hy3_status hy3_loaded_model_open(MPI_Comm comm, const struct hy3_loaded_model_options *options,
                                 struct hy3_loaded_model *model)
{
    bool wanted = options->run && options->run->hierarchical_exchange;
    int zero = options->store.zero_stage > 0 ? options->zero_group_size : hy3_size(comm);

    *model = (struct hy3_loaded_model){0};
    HY3_AGREE(comm, open_local(options, model), "opening the model");
    HY3_TRY(hy3_backend_open(comm, options->device, &model->backend));
    HY3_TRY(hy3_layout_open(
        comm, options->expert_parallel_size, model->shape.experts, zero,
        options->sequence_parallel_size > 0 ? options->sequence_parallel_size : 1, &model->layout));
    if (options->lay_out)
        HY3_TRY(options->lay_out(comm, options->run, model));
    model->is_over_nodes = wanted && model->layout.across.size > 1;
    if (wanted && !model->is_over_nodes)
        hy3_log(HY3_LOG_WARN,
                "hierarchical_exchange: no expert group is several whole nodes, so "
                "tokens go straight to their ranks");
    HY3_TRY(open_groups(model));
    return hy3_agree(comm, make_table(options, model), "opening the model");
}

hy3_status hy3_loaded_model_allocate(struct hy3_loaded_model *model,
                                     const struct hy3_loaded_model_options *options)
{
    struct hy3_store_options store = options->store;

    store.with_grads = options->training != HY3_TRAIN_NOTHING;
    return hy3_store_open(model->backend, &model->layout, model->params, &store, &model->store);
}

hy3_status hy3_loaded_model_read(struct hy3_loaded_model *model, const struct hy3_values *masters)
{
    if (!model->dummy)
        return hy3_hf_load(model->layout.world.comm, model->base, model->store, masters);
    hy3_log(HY3_LOG_WARN,
            "load_format = dummy: the weights are random; for measuring time and "
            "memory, nothing is learned from them");
    HY3_AGREE(model->layout.world.comm,
              hy3_dummy_weights(model->backend, model->store, model->seed), "making the weights");
    if (masters) /* as hy3_hf_load */
        hy3_store_updated(model->store);
    return HY3_OK;
}

hy3_status hy3_loaded_model_load(struct hy3_loaded_model *model,
                                 const struct hy3_loaded_model_options *options)
{
    HY3_TRY(hy3_loaded_model_allocate(model, options));
    return hy3_loaded_model_read(model, NULL);
}

hy3_status hy3_loaded_model_load_adapter(struct hy3_loaded_model *model, uint64_t seed,
                                         struct hy3_values values)
{
    hy3_status status = model->adapter ? hy3_adapter_load(model->adapter, model->params, values)
                                       : hy3_adapter_draw(model->params, seed, values);

    HY3_AGREE(model->layout.world.comm, status, "loading the adapter");
    hy3_store_updated(model->store); /* masters of other ranks round ties in another way */
    return HY3_OK;
}

void hy3_loaded_model_close(struct hy3_loaded_model *model)
{
    hy3_adapter_close(model->adapter);
    hy3_store_close(model->store);
    hy3_hf_dir_close(model->base);
    hy3_params_free(model->params);
    hy3_layout_close(&model->layout);
}
