/* SPDX-License-Identifier: Apache-2.0 */
/* loaded_model.c - from a directory's name to loaded weights. */
#include "app/loaded_model.h"

#include "base/file.h"
#include "ckpt/adapter/draw.h"
#include "comm/agree.h"

/* Brings the adapter's tensors into the table and says what is trained. */
static hy3_status add_adapter(const struct hy3_loaded_model_options *options,
                              struct hy3_loaded_model *n)
{
    struct hy3_lora lora = options->lora;

    if (options->adapter) {
        HY3_TRY(hy3_adapter_open(options->adapter, n->params, &n->adapter));
        lora = *hy3_adapter_lora(n->adapter);
        lora.dropout = options->lora.dropout;
    }
    if (lora.rank > 0) {
        HY3_TRY(hy3_params_add_adapter(n->params, &lora));
        if (n->params->count == n->params->base_count)
            HY3_FAIL(HY3_EUSAGE, "no layer of the model has what lora_target names");
    }
    hy3_params_train(n->params, options->training);
    return HY3_OK;
}

static hy3_status open_local(const struct hy3_loaded_model_options *options,
                             struct hy3_loaded_model *n)
{
    char path[HY3_PATH_MAX];

    if (!hy3_path_is_directory(options->directory))
        HY3_FAIL(HY3_EIO, "the model directory '%s' does not exist (model_name_or_path)",
                 options->directory);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", options->directory));
    HY3_TRY(hy3_shape_open(path, &n->shape));
    return hy3_hf_dir_open(options->directory, &n->base);
}

/* The tensors as far as this rank holds them. */
static hy3_status make_table(const struct hy3_loaded_model_options *options,
                             struct hy3_loaded_model *n)
{
    int64_t held = n->shape.experts / n->layout.experts.size;

    HY3_TRY(hy3_params_create(&n->shape, n->layout.experts.rank * held, held, &n->params));
    return add_adapter(options, n);
}

hy3_status hy3_loaded_model_open(MPI_Comm comm, const struct hy3_loaded_model_options *options,
                                 struct hy3_loaded_model *n)
{
    *n = (struct hy3_loaded_model){0};
    HY3_AGREE(comm, open_local(options, n), "opening the model");
    HY3_TRY(hy3_backend_open(comm, options->device, &n->backend));
    HY3_TRY(hy3_layout_open(comm, options->expert_parallel_size, n->shape.experts, &n->layout));
    return hy3_agree(comm, make_table(options, n), "opening the model");
}

hy3_status hy3_loaded_model_load(struct hy3_loaded_model *n,
                                 const struct hy3_loaded_model_options *options)
{
    struct hy3_store_options store = options->store;

    store.with_grads = options->training != HY3_TRAIN_NOTHING;
    HY3_TRY(hy3_store_open(n->backend, &n->layout, n->params, &store, &n->store));
    return hy3_hf_dir_load(n->layout.world.comm, n->base, n->store);
}

hy3_status hy3_loaded_model_load_adapter(struct hy3_loaded_model *n, uint64_t seed,
                                         struct hy3_values values)
{
    hy3_status status = n->adapter ? hy3_adapter_load(n->adapter, n->params, values)
                                   : hy3_adapter_draw(n->params, seed, values);

    return hy3_agree(n->layout.world.comm, status, "loading the adapter");
}

void hy3_loaded_model_close(struct hy3_loaded_model *n)
{
    hy3_adapter_close(n->adapter);
    hy3_store_close(n->store);
    hy3_hf_dir_close(n->base);
    hy3_params_free(n->params);
    hy3_layout_close(&n->layout);
}
