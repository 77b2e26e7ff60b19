/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.c - PEFT's names of tensors, and the order of their elements. */
#include "ckpt/adapter/adapter.h"

#include "base/file.h"
#include "base/memory.h"
#include "ckpt/adapter/config.h"
#include "ckpt/adapter/transpose.h"
#include "ckpt/hf/names.h"
#include "ckpt/hf/safetensors.h"
#include "ckpt/hf/scan.h"

enum { PIECE = 4 << 20 }; /* elements read at a time */

struct hy3_adapter {
    struct hy3_shard *shard;
    struct hy3_lora lora;
};

static const char prefix[] = "base_model.model.";

/* The name of the module in a tensor's name; false if it is no factor of an adapter. */
static bool module_name(const char *tensor, char *out, size_t size)
{
    static const char *const ends[] = {".lora_A.weight", ".lora_B.weight"};
    size_t length = strlen(tensor), end = strlen(ends[0]), skip = sizeof prefix - 1;

    if (strncmp(tensor, prefix, skip) != 0 || length < skip + end || length - skip - end >= size)
        return false;
    if (strcmp(tensor + length - end, ends[0]) != 0 && strcmp(tensor + length - end, ends[1]) != 0)
        return false;
    snprintf(out, size, "%.*s", (int)(length - skip - end), tensor + skip);
    return true;
}

/* The kind of a tensor's module. HY3_PARAM_KIND_COUNT: not a matrix of the model. */
static enum hy3_param_kind kind_of(const struct hy3_params *params, const char *tensor,
                                   bool wrapped, bool gate_up_alone)
{
    char module[HY3_PARAM_NAME - 16], name[HY3_PARAM_NAME];
    const struct hy3_param *param;

    if (!module_name(tensor, module, sizeof module))
        return HY3_PARAM_KIND_COUNT;
    if (hy3_ends_with(module, ".mlp.experts.base_layer"))
        return HY3_P_GATE_UP;
    if (hy3_ends_with(module, ".mlp.experts"))
        return !wrapped && gate_up_alone ? HY3_P_GATE_UP : HY3_P_EXPERT_DOWN;
    snprintf(name, sizeof name, "%s.weight", module);
    param = hy3_params_named(params, name);
    return param && hy3_kinds[param->kind].target ? param->kind : HY3_PARAM_KIND_COUNT;
}

/* The targets are the matrices with tensors: target_modules may be anything from a list of endings
 * to a regular expression. */
static hy3_status read_targets(struct hy3_adapter *a, const struct hy3_params *params,
                               bool gate_up_alone)
{
    bool wrapped = false;

    for (int i = 0; i < hy3_shard_count(a->shard); i++)
        wrapped |= strstr(hy3_shard_tensor(a->shard, i)->name, ".experts.base_layer.") != NULL;
    for (int i = 0; i < hy3_shard_count(a->shard); i++) {
        const char *name = hy3_shard_tensor(a->shard, i)->name;
        enum hy3_param_kind kind = kind_of(params, name, wrapped, gate_up_alone);

        if (kind == HY3_PARAM_KIND_COUNT)
            HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' belongs to no matrix of the model",
                     hy3_shard_path(a->shard), name);
        a->lora.targets[kind] = true;
    }
    if (hy3_shard_count(a->shard) == 0)
        HY3_FAIL(HY3_EFORMAT, "'%s' holds no tensor", hy3_shard_path(a->shard));
    return HY3_OK;
}

hy3_status hy3_adapter_open(const char *directory, const struct hy3_params *params,
                            struct hy3_adapter **out)
{
    hy3_status status = HY3_OK;
    struct hy3_adapter *a = NULL;
    struct hy3_adapter_config config;
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&a, 1, sizeof *a));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/adapter_config.json", directory));
    HY3_TRY_DONE(hy3_adapter_config_read(path, &config));
    a->lora = config.lora;
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/adapter_model.safetensors", directory));
    HY3_TRY_DONE(hy3_shard_open(path, &a->shard));
    HY3_TRY_DONE(read_targets(a, params, config.gate_up_alone));
    *out = HY3_TAKE(a);
done:
    hy3_adapter_close(a);
    return status;
}

void hy3_adapter_close(struct hy3_adapter *a)
{
    if (!a)
        return;
    hy3_shard_close(a->shard);
    hy3_free(a);
}

const struct hy3_lora *hy3_adapter_lora(const struct hy3_adapter *a)
{
    return &a->lora;
}

static hy3_status check_tensor(const struct hy3_adapter *a, const struct hy3_param *p,
                               const struct hy3_shard_tensor **out)
{
    const struct hy3_shard_tensor *t = *out = hy3_shard_find(a->shard, p->name);
    int64_t shape[3];
    char name[HY3_PARAM_NAME];
    int dims;

    hy3_name_piece(p, NULL, HY3_OUTER, 0, name, &dims, shape);
    if (!t)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is missing", hy3_shard_path(a->shard), p->name);
    if (!t->is_float)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is %s; F32, F16 or BF16 is read",
                 hy3_shard_path(a->shard), p->name, t->dtype_name);
    if (t->dims != dims || t->shape[0] != shape[0] || t->shape[1] != shape[1])
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' must be [%lld, %lld] for this model and r = %lld",
                 hy3_shard_path(a->shard), p->name, (long long)shape[0], (long long)shape[1],
                 (long long)a->lora.rank);
    return HY3_OK;
}

static hy3_status read_piece(const struct hy3_adapter *a, const struct hy3_shard_tensor *t,
                             struct hy3_span span, float *data)
{
    int64_t bad;

    HY3_TRY(hy3_shard_read(a->shard, t, span, data, HY3_FP32));
    if ((bad = hy3_scan_not_finite(data, HY3_FP32, span.count)) >= 0)
        HY3_FAIL(HY3_EFORMAT, "%s: element %lld of tensor '%s' is NaN or infinite",
                 hy3_shard_path(a->shard), (long long)(span.first + bad), t->name);
    return HY3_OK;
}

/* A factor whose order is that of the file. */
static hy3_status load_plain(const struct hy3_adapter *a, const struct hy3_param *p,
                             const struct hy3_shard_tensor *t, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    struct hy3_span held = hy3_param_held(p);
    int64_t most = PIECE < held.count ? PIECE : held.count;
    float *piece = NULL;

    HY3_TRY_DONE(hy3_alloc(&piece, (size_t)most, sizeof *piece));
    for (int64_t i = 0; i < held.count; i += PIECE) {
        struct hy3_span span = hy3_span_piece(held, i, PIECE);

        HY3_TRY_DONE(read_piece(a, t, span, piece));
        HY3_TRY_DONE(values.put(values.of, HY3_MASTER, p, span, piece));
    }
done:
    hy3_free(piece);
    return status;
}

/* [out, rank, E] of the file, some rows at a time, to [E, out, rank]. */
static hy3_status load_reordered(const struct hy3_adapter *a, const struct hy3_param *p,
                                 const struct hy3_shard_tensor *t, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    int64_t experts = p->shape[0], out = p->shape[1], rank = p->shape[2], width = rank * experts;
    int64_t first_expert = p->first / (out * rank), held = p->held / (out * rank);
    int64_t step = PIECE / width > 0 ? PIECE / width : 1;
    float *rows = NULL, *ordered = NULL;

    HY3_TRY_DONE(hy3_alloc(&rows, (size_t)(step * width), sizeof *rows));
    HY3_TRY_DONE(hy3_alloc(&ordered, (size_t)(step * rank), sizeof *ordered));
    for (int64_t row = 0; row < out; row += step) {
        int64_t n = (step < out - row ? step : out - row) * rank;

        HY3_TRY_DONE(read_piece(a, t, (struct hy3_span){row * width, n * experts}, rows));
        for (int64_t e = first_expert; e < first_expert + held; e++) {
            for (int64_t i = 0; i < n; i++)
                ordered[i] = rows[i * experts + e];
            HY3_TRY_DONE(values.put(values.of, HY3_MASTER, p,
                                    (struct hy3_span){(e * out + row) * rank, n}, ordered));
        }
    }
done:
    hy3_free(rows);
    hy3_free(ordered);
    return status;
}

static bool is_factor(const struct hy3_params *params, const char *name)
{
    for (int i = params->base_count; i < params->count; i++)
        if (strcmp(params->params[i].name, name) == 0)
            return true;
    return false;
}

hy3_status hy3_adapter_account(const struct hy3_adapter *a, const struct hy3_params *params)
{
    const struct hy3_shard_tensor *tensor;

    for (int i = params->base_count; i < params->count; i++)
        HY3_TRY(check_tensor(a, &params->params[i], &tensor));
    for (int i = 0; i < hy3_shard_count(a->shard); i++)
        if (!is_factor(params, hy3_shard_tensor(a->shard, i)->name))
            HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is not part of the model",
                     hy3_shard_path(a->shard), hy3_shard_tensor(a->shard, i)->name);
    return HY3_OK;
}

static hy3_status load_factor(const struct hy3_adapter *a, const struct hy3_param *p,
                              struct hy3_values values)
{
    const struct hy3_shard_tensor *tensor;

    HY3_TRY(check_tensor(a, p, &tensor));
    return (hy3_transpose_needed(p) ? load_reordered : load_plain)(a, p, tensor, values);
}

static hy3_status keep(void *of, enum hy3_field field, const struct hy3_param *p,
                       struct hy3_span span, const float *in)
{
    memcpy((float *)of + span.first - p->first, in, (size_t)span.count * sizeof *in);
    return HY3_OK;
}

hy3_status hy3_adapter_read(const struct hy3_adapter *a, const struct hy3_param *param, float *out)
{
    return load_factor(a, param, (struct hy3_values){.of = out, .put = keep});
}

hy3_status hy3_adapter_load(const struct hy3_adapter *a, const struct hy3_params *params,
                            struct hy3_values values)
{
    HY3_TRY(hy3_adapter_account(a, params));
    for (int i = params->base_count; i < params->count; i++)
        HY3_TRY(load_factor(a, &params->params[i], values));
    return HY3_OK;
}
