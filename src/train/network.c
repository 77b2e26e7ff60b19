/* network.c - from a directory's name to loaded weights. */
#include "train/network.h"

#include "base/file.h"
#include "comm/agree.h"

static hy3_status open_local(const struct hy3_network_options *options, struct hy3_network *n)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_backend_open(options->device, &n->backend));
    if (!hy3_path_is_directory(options->directory))
        HY3_FAIL(HY3_EIO, "the model directory '%s' does not exist (model_name_or_path)",
                 options->directory);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", options->directory));
    HY3_TRY(hy3_shape_open(path, &n->shape));
    HY3_TRY(hy3_params_create(&n->shape, 0, n->shape.experts, &n->params));
    HY3_TRY(hy3_hf_dir_open(options->directory, &n->base));
done:
    return status;
}

hy3_status hy3_network_open(MPI_Comm comm, const struct hy3_network_options *options,
                            struct hy3_network *n)
{
    hy3_status status = HY3_OK;

    *n = (struct hy3_network){0};
    HY3_TRY(hy3_layout_open(comm, 1, &n->layout));
    HY3_TRY(hy3_agree(n->layout.world, open_local(options, n), "opening the model"));
done:
    return status;
}

hy3_status hy3_network_load(struct hy3_network *n, const struct hy3_network_options *options)
{
    hy3_status status = HY3_OK;

    HY3_TRY(hy3_store_open(n->backend, &n->layout, n->params, options->bf16 ? HY3_BF16 : HY3_FP32,
                           options->with_grads, &n->store));
    HY3_TRY(hy3_hf_dir_load(n->layout.world, n->base, n->store));
done:
    return status;
}

void hy3_network_close(struct hy3_network *n)
{
    hy3_store_close(n->store);
    hy3_hf_dir_close(n->base);
    hy3_params_free(n->params);
    hy3_layout_close(&n->layout);
}
