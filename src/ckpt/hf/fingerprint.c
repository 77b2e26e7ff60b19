/* SPDX-License-Identifier: Apache-2.0 */
/* fingerprint.c - a sum over samples, so that neither order nor cut of the tensors matters. */
#include "ckpt/hf/fingerprint.h"

#include "comm/agree.h"
#include "comm/comm.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    SAMPLE = 512,
    SAMPLES = 4,
    EXPERT_SAMPLES = 16
}; /* elements of a sample; samples a tensor */

struct sum {
    struct hy3_params *params; /* with MTP layers */
    uint64_t value;
};

/* The numbers of config.json that change what the weights compute. */
static uint64_t hash_shape(const struct hy3_shape *s)
{
    char text[512];
    int length = snprintf(
        text, sizeof text, "%lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %lld %g %g %g",
        (long long)s->layers, (long long)s->hidden, (long long)s->intermediate, (long long)s->heads,
        (long long)s->kv_heads, (long long)s->head_dim, (long long)s->vocab, (long long)s->experts,
        (long long)s->top_k, (long long)s->expert_intermediate, (long long)s->shared_experts,
        (long long)s->dense_layers, s->rope_theta, s->rms_eps, s->router_scaling);

    return XXH3_64bits(text, (size_t)length);
}

/* Of an 8-bit tensor the codes, without their scales. */
static hy3_status read_sample(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                              struct hy3_span span, float values[SAMPLE])
{
    hy3_fp8 codes[SAMPLE];

    if (!tensor->is_fp8)
        return hy3_shard_read(shard, tensor, span, values, HY3_FP32);
    HY3_TRY(hy3_shard_read_raw(shard, tensor, span.first, span.count, codes));
    for (int64_t i = 0; i < span.count; i++)
        values[i] = hy3_float_from_fp8(codes[i]);
    return HY3_OK;
}

/* Adds the elements of a sample that the tensor of the file has. */
static hy3_status add_sample(struct sum *sum, const struct hy3_shard *shard,
                             const struct hy3_shard_tensor *tensor, const struct hy3_place *place,
                             struct hy3_span sample)
{
    struct hy3_span part = hy3_span_intersect(place->span, sample);
    struct hy3_span local = {part.first - place->span.first, part.count};
    uint64_t seed = XXH3_64bits(place->param->name, strlen(place->param->name));
    float values[SAMPLE];

    if (part.count == 0)
        return HY3_OK;
    HY3_TRY(read_sample(shard, tensor, local, values));
    for (int64_t i = 0; i < part.count; i++) {
        struct {
            int64_t index;
            float value, zero;
        } element = {part.first + i, values[i], 0};

        sum->value += XXH3_64bits_withSeed(&element, sizeof element, seed);
    }
    return HY3_OK;
}

static hy3_status add_tensor(struct sum *sum, const struct hy3_shard *shard,
                             const struct hy3_shard_tensor *tensor)
{
    struct hy3_place place;
    int64_t samples, count;

    hy3_name_locate(sum->params, tensor->name, &place);
    if (!place.param || (!tensor->is_float && !tensor->is_fp8) ||
        tensor->count != place.span.count) {
        sum->value += XXH3_64bits(tensor->name, strlen(tensor->name));
        return HY3_OK;
    }
    count = place.param->count;
    samples = place.param->dims == 3 ? EXPERT_SAMPLES : SAMPLES;
    for (int64_t i = 0; i < samples; i++) {
        int64_t first = count / samples * i;
        int64_t width = count / samples < SAMPLE ? count / samples : SAMPLE;

        if (i == samples - 1) /* to the end */
            first = count - (width = count < SAMPLE ? count : SAMPLE);
        HY3_TRY(add_sample(sum, shard, tensor, &place, (struct hy3_span){first, width}));
    }
    return HY3_OK;
}

static hy3_status add_shard(struct sum *sum, const struct hy3_hf_dir *dir, int number)
{
    hy3_status status = HY3_OK;
    struct hy3_shard *shard = NULL;

    HY3_TRY_DONE(hy3_hf_dir_open_shard(dir, number, &shard));
    for (int i = 0; i < hy3_shard_count(shard); i++)
        HY3_TRY_DONE(add_tensor(sum, shard, hy3_shard_tensor(shard, i)));
done:
    hy3_shard_close(shard);
    return status;
}

static hy3_status read_all(const struct hy3_hf_dir *dir, const struct hy3_shape *shape,
                           uint64_t *out)
{
    hy3_status status = HY3_OK;
    struct sum sum = {.value = hash_shape(shape)};

    HY3_TRY_DONE(hy3_params_create_mtp(shape, &sum.params));
    for (int i = 0; i < hy3_hf_dir_shards(dir); i++)
        HY3_TRY_DONE(add_shard(&sum, dir, i));
    *out = sum.value;
done:
    hy3_params_free(sum.params);
    return status;
}

hy3_status hy3_hf_fingerprint(MPI_Comm comm, const struct hy3_hf_dir *dir,
                              const struct hy3_shape *shape, uint64_t *out)
{
    *out = 0;
    HY3_AGREE(comm, hy3_rank(comm) == 0 ? read_all(dir, shape, out) : HY3_OK,
              "looking at the model");
    hy3_broadcast(comm, 0, out, sizeof *out, "looking at the model");
    return HY3_OK;
}
