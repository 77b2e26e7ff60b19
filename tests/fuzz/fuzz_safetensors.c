/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_safetensors.c - any bytes as a shard: refused or read, never a crash. */
#include "base/memory.h"
#include "ckpt/hf/scales.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds a tensor against each parameter of a small model that it could be the scales of. */
static void take_for_scales(const struct hy3_params *params, const struct hy3_shard_tensor *t)
{
    char weight[HY3_PARAM_NAME];
    struct hy3_scales scales;
    struct hy3_place place;

    if (hy3_scale_parse(t->name, weight) == HY3_SCALE)
        hy3_name_locate(params, weight, &place);
    for (int i = 0; i < params->count; i++) {
        hy3_name_locate(params, params->params[i].name, &place);
        if (place.param && hy3_scales_shape(&place, &params->shape, t, &scales) &&
            (scales.stride < 1 || scales.M * scales.stride % t->count != 0))
            abort();
    }
}

static const struct hy3_params *small_model(void)
{
    static const struct hy3_shape shape = {.layers = 2,
                                           .dense_layers = 1,
                                           .hidden = 136,
                                           .intermediate = 20,
                                           .heads = 3,
                                           .kv_heads = 1,
                                           .head_dim = 4,
                                           .vocab = 29,
                                           .experts = 2,
                                           .top_k = 1,
                                           .shared_experts = 1,
                                           .expert_intermediate = 130};
    static struct hy3_params *params;

    if (!params && hy3_params_create(&shape, 0, shape.experts, &params) != HY3_OK)
        abort();
    return params;
}

/* Reads every tensor of a shard that was accepted, as far as memory allows. */
static void read_all(const struct hy3_shard *shard)
{
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);
        struct hy3_name name;
        void *values;

        hy3_name_parse(t->name, &name);
        take_for_scales(small_model(), t);
        if (hy3_shard_find(shard, t->name) != t)
            abort();
        if (hy3_alloc(&values, (size_t)t->bytes, 2) != HY3_OK)
            continue;
        if (t->is_float && hy3_shard_read(shard, t, (struct hy3_span){0, t->count}, values,
                                          t->dtype == HY3_FP32 ? HY3_BF16 : HY3_FP32) != HY3_OK)
            abort();
        if (hy3_shard_read_raw(shard, t, 0, t->bytes, values) != HY3_OK)
            abort();
        hy3_free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_shard *shard = NULL;
    char path[64];
    int fd = memfd_create("shard", MFD_CLOEXEC);

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size && hy3_shard_open(path, &shard) == HY3_OK)
        read_all(shard);
    hy3_shard_close(shard);
    close(fd);
    return 0;
}
