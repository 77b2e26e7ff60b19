/* SPDX-License-Identifier: Apache-2.0 */
/* save.c - the only place where a directory of weights is assembled. */
#include "app/save.h"

#include "app/module_options.h"
#include "ckpt/adapter/writer.h"
#include "ckpt/hf/publish.h"

hy3_status hy3_save_options(const struct hy3_config *config, const struct hy3_loaded_model *model,
                            const char *output, struct hy3_save *out)
{
    *out = (struct hy3_save){.model = model,
                             .output = output,
                             .base_path = config->model_name_or_path,
                             .tokenizer_directory = hy3_module_options_tokenizer(config),
                             .names = hy3_hf_dir_names(model->base),
                             .dtype = hy3_store_dtype(model->store)};
    if (config->save_format == HY3_SAVE_FORMAT_inner)
        out->names = HY3_INNER;
    if (config->save_format == HY3_SAVE_FORMAT_outer)
        out->names = HY3_OUTER;
    return hy3_config_bytes(config->max_shard_size, "max_shard_size", &out->max_shard_bytes);
}

double hy3_save_bytes(const struct hy3_params *params, hy3_dtype dtype)
{
    double bytes;

    if (params->lora.rank > 0)
        return (double)sizeof(float) * (double)hy3_params_trained(params);
    bytes = (double)hy3_dtype_size(dtype) * (double)params->total;
    for (int i = 0; i < params->count; i++)
        if (params->params[i].kind == HY3_P_ROUTER)
            bytes +=
                (double)(sizeof(float) - hy3_dtype_size(dtype)) * (double)params->params[i].count;
    return bytes;
}

static struct hy3_hf_writer_options writer_options(const struct hy3_save *save)
{
    return (struct hy3_hf_writer_options){.output = save->output,
                                          .base = save->model->base,
                                          .names = save->names,
                                          .dtype = save->dtype,
                                          .max_shard_bytes = save->max_shard_bytes,
                                          .keeps_on = save->keeps_on,
                                          .tokenizer_directory = save->tokenizer_directory};
}

hy3_status hy3_save_weights(MPI_Comm comm, const struct hy3_save *save, struct hy3_values values)
{
    const struct hy3_params *params = save->model->params;
    struct hy3_hf_writer_options writer = writer_options(save);
    struct hy3_adapter_writer adapter = {.output = save->output,
                                         .base_path = save->base_path,
                                         .base_fingerprint = save->model->base_fingerprint,
                                         .tokenizer_directory = save->tokenizer_directory};

    if (params->lora.rank > 0)
        return hy3_adapter_write(comm, &adapter, params, values);
    return hy3_hf_write(comm, &writer, params, values);
}

/* Masters of what is trained, weights of the rest. */
static hy3_status get_trained(void *of, enum hy3_field field, const struct hy3_param *param,
                              struct hy3_span span, float *out)
{
    struct hy3_sharded_optimizer *optimizer = of;
    struct hy3_values values = param->trainable ? hy3_sharded_optimizer_values(optimizer)
                                                : hy3_store_values(optimizer->store);

    return values.get(values.of, field, param, span, out);
}

hy3_status hy3_save_trained(const struct hy3_save *save, struct hy3_sharded_optimizer *optimizer)
{
    struct hy3_values values = hy3_sharded_optimizer_values(optimizer);

    values.get = get_trained;
    return hy3_save_weights(save->model->layout.world.comm, save, values);
}

hy3_status hy3_save_small_files(const struct hy3_save *save)
{
    struct hy3_hf_writer_options writer = writer_options(save);

    return hy3_hf_write_small_files(&writer, NULL);
}
