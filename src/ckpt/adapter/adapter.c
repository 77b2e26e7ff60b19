/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.c - PEFT's names of tensors, and the order of their elements. */
#include "ckpt/adapter/adapter.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "ckpt/adapter/config.h"
#include "ckpt/adapter/transpose.h"
#include "ckpt/hf/names.h"
#include "ckpt/hf/safetensors.h"
#include "ckpt/hf/scan.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PIECE = 4 << 20 }; /* elements read at a time */

struct hy3_adapter {
    struct hy3_shard *shard;
    struct hy3_lora lora;
    bool *matrices; /* [layers, HY3_PARAM_KIND_COUNT] that have factors */
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

/* Which of the two fused matrices of experts a module's factors are for: their shapes tell. NULL:
 * neither. */
static const struct hy3_param *experts_of(const struct hy3_adapter *a,
                                          const struct hy3_params *params, const char *module)
{
    const struct hy3_shard_tensor *ta, *tb;
    const struct hy3_param *up, *down;
    char name[HY3_PARAM_NAME + 32];
    bool wrapped = hy3_ends_with(module, ".base_layer");
    int length = (int)strlen(module) - (wrapped ? (int)strlen(".base_layer") : 0);

    snprintf(name, sizeof name, "%s%s.lora_A.weight", prefix, module);
    ta = hy3_shard_find(a->shard, name);
    snprintf(name, sizeof name, "%s%s.lora_B.weight", prefix, module);
    tb = hy3_shard_find(a->shard, name);
    snprintf(name, sizeof name, "%.*s.gate_up_proj", length, module);
    up = hy3_params_named(params, name);
    snprintf(name, sizeof name, "%.*s.down_proj", length, module);
    down = hy3_params_named(params, name);
    if (!up || !down)
        return NULL;
    if (tb && tb->dims == 2 && up->shape[1] != down->shape[1] &&
        (tb->shape[0] == up->shape[1] || tb->shape[0] == down->shape[1]))
        return tb->shape[0] == up->shape[1] ? up : down;
    if (ta && ta->dims == 2 && up->shape[2] != down->shape[2] &&
        (ta->shape[1] == up->shape[2] || ta->shape[1] == down->shape[2]))
        return ta->shape[1] == up->shape[2] ? up : down;
    return wrapped ? up : down;
}

/* The matrix that a tensor is a factor for. NULL: none of the model, or none that has adapters. */
static const struct hy3_param *matrix_of(const struct hy3_adapter *a,
                                         const struct hy3_params *params, const char *tensor)
{
    char module[HY3_PARAM_NAME - 16], name[HY3_PARAM_NAME];
    const struct hy3_param *param;

    if (!module_name(tensor, module, sizeof module))
        return NULL;
    if (hy3_ends_with(module, ".mlp.experts") || hy3_ends_with(module, ".mlp.experts.base_layer"))
        return experts_of(a, params, module);
    snprintf(name, sizeof name, "%s.weight", module);
    param = hy3_params_named(params, name);
    return param && param->layer >= 0 && hy3_kinds[param->kind].target ? param : NULL;
}

/* Whether a tensor is one of the model's that the adapter has whole. */
static bool is_saved(const struct hy3_lora *lora, const struct hy3_params *params, const char *name)
{
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        const struct hy3_param *p = lora->saved[kind] ? hy3_params_find(params, kind, -1) : NULL;
        char own[HY3_PARAM_NAME];
        int64_t shape[3];
        int dims;

        if (!p)
            continue;
        hy3_name_in_adapter(p, own, &dims, shape);
        if (strcmp(own, name) == 0)
            return true;
    }
    return false;
}

/* The matrices with factors must be those that the configuration names, as far as that can be told:
 * a factor that is lost, or that PEFT would leave out, would make another model. */
static hy3_status check_cover(const struct hy3_adapter *a, const struct hy3_params *params,
                              const json_t *document)
{
    for (int i = 0; i < params->base_count; i++) {
        const struct hy3_param *p = &params->params[i];
        enum hy3_cover cover;
        bool has;

        if (p->layer < 0 || p->layer >= params->shape.layers || !hy3_kinds[p->kind].target)
            continue;
        cover = hy3_adapter_config_covers(document, p);
        has = a->matrices[p->layer * HY3_PARAM_KIND_COUNT + (int)p->kind];
        if (!has && cover == HY3_COVERED)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: the factors of '%s' are missing, which adapter_config.json names "
                     "(target_modules); an adapter of some layers says which by "
                     "layers_to_transform or exclude_modules",
                     hy3_shard_path(a->shard), p->name);
        if (has && cover == HY3_NOT_COVERED)
            HY3_FAIL(HY3_EFORMAT,
                     "%s has factors of '%s', which adapter_config.json leaves out "
                     "(target_modules, exclude_modules, layers_to_transform): the two files do "
                     "not belong together",
                     hy3_shard_path(a->shard), p->name);
    }
    return HY3_OK;
}

/* The targets are the matrices with tensors: target_modules may be anything from a list of endings
 * to a regular expression. Unless it leaves out layers, a target without a tensor is a loss. */
static hy3_status read_targets(struct hy3_adapter *a, const struct hy3_params *params,
                               const struct hy3_adapter_config *config)
{
    HY3_TRY(hy3_alloc(&a->matrices, (size_t)params->shape.layers * HY3_PARAM_KIND_COUNT,
                      sizeof *a->matrices));
    for (int i = 0; i < hy3_shard_count(a->shard); i++) {
        const char *name = hy3_shard_tensor(a->shard, i)->name;
        const struct hy3_param *p = matrix_of(a, params, name);

        if (!p && is_saved(&a->lora, params, name))
            continue;
        if (!p)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: tensor '%s' belongs to no matrix of the model that hy3 has adapters for "
                     "(attention, MLP, experts), and to no module of modules_to_save; merge this "
                     "adapter with PEFT",
                     hy3_shard_path(a->shard), name);
        a->lora.targets[p->kind] = true;
        a->matrices[p->layer * HY3_PARAM_KIND_COUNT + (int)p->kind] = true;
    }
    if (hy3_shard_count(a->shard) == 0)
        HY3_FAIL(HY3_EFORMAT, "'%s' holds no tensor", hy3_shard_path(a->shard));
    HY3_TRY(check_cover(a, params, config->document));
    if (config->partial)
        a->lora.matrices = a->matrices;
    return HY3_OK;
}

/* The file of weights; what else there may be is named. */
hy3_status hy3_adapter_open_weights(const char *directory, struct hy3_shard **out)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/adapter_model.safetensors", directory));
    if (!hy3_path_exists(path) && hy3_path_exists_in(directory, "adapter_model.bin"))
        HY3_FAIL(
            HY3_EFORMAT,
            "'%s/adapter_model.bin' is a file of Python's pickle, which hy3 does not read; with "
            "PEFT make it safetensors: PeftModel.from_pretrained(model, directory)"
            ".save_pretrained(new_directory, safe_serialization=True)",
            directory);
    return hy3_shard_open(path, out);
}

static hy3_status expect_adapter(const char *directory)
{
    if (hy3_path_exists_in(directory, "adapter_config.json"))
        return HY3_OK;
    if (hy3_path_exists_in(directory, "model.safetensors") ||
        hy3_path_exists_in(directory, "model.safetensors.index.json"))
        HY3_FAIL(HY3_EIO, "'%s' is a model, not an adapter: it has no adapter_config.json",
                 directory);
    if (hy3_path_exists_in(directory, "state.h5"))
        HY3_FAIL(HY3_EIO,
                 "'%s' is a checkpoint of a run without an adapter: it has no adapter_config.json",
                 directory);
    HY3_FAIL(HY3_EIO, "'%s' is no adapter: it has no adapter_config.json", directory);
}

hy3_status hy3_adapter_open(const char *directory, const struct hy3_params *params,
                            struct hy3_adapter **out)
{
    hy3_status status = HY3_OK;
    struct hy3_adapter *a = NULL;
    struct hy3_adapter_config config = {0};
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY_DONE(expect_adapter(directory));
    HY3_TRY_DONE(hy3_alloc(&a, 1, sizeof *a));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/adapter_config.json", directory));
    HY3_TRY_DONE(hy3_adapter_config_read(path, &config));
    a->lora = config.lora;
    HY3_TRY_DONE(hy3_adapter_open_weights(directory, &a->shard));
    HY3_TRY_DONE(read_targets(a, params, &config));
    *out = HY3_TAKE(a);
done:
    json_decref(config.document);
    hy3_adapter_close(a);
    return status;
}

void hy3_adapter_close(struct hy3_adapter *a)
{
    if (!a)
        return;
    hy3_shard_close(a->shard);
    hy3_free(a->matrices);
    hy3_free(a);
}

const struct hy3_lora *hy3_adapter_lora(const struct hy3_adapter *a)
{
    return &a->lora;
}

static hy3_status check_tensor(const struct hy3_adapter *a, const struct hy3_param *p,
                               const struct hy3_shard_tensor **out)
{
    const struct hy3_shard_tensor *t;
    int64_t shape[3];
    char name[HY3_PARAM_NAME];
    int dims;

    hy3_name_in_adapter(p, name, &dims, shape);
    t = *out = hy3_shard_find(a->shard, name);
    if (!t)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is missing", hy3_shard_path(a->shard), name);
    if (!t->is_float)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is %s; F32, F16 or BF16 is read",
                 hy3_shard_path(a->shard), name, t->dtype_name);
    if (t->dims != dims || t->shape[0] != shape[0] || t->shape[1] != shape[1])
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' must be [%lld, %lld] for this model and r = %lld",
                 hy3_shard_path(a->shard), name, (long long)shape[0], (long long)shape[1],
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

hy3_status hy3_adapter_account_for(const struct hy3_adapter *a, const struct hy3_param *param)
{
    const struct hy3_shard_tensor *tensor;

    return check_tensor(a, param, &tensor);
}

hy3_status hy3_adapter_account(const struct hy3_adapter *a, const struct hy3_params *params)
{
    const struct hy3_shard_tensor *tensor;

    for (int i = 0; i < params->count; i++)
        if (hy3_param_is_adapters(params, &params->params[i]))
            HY3_TRY(check_tensor(a, &params->params[i], &tensor));
    for (int i = 0; i < hy3_shard_count(a->shard); i++)
        if (!is_factor(params, hy3_shard_tensor(a->shard, i)->name) &&
            !is_saved(&a->lora, params, hy3_shard_tensor(a->shard, i)->name))
            HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is not part of the model",
                     hy3_shard_path(a->shard), hy3_shard_tensor(a->shard, i)->name);
    return HY3_OK;
}

static hy3_status load_tensor(const struct hy3_adapter *a, const struct hy3_param *p,
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
    return load_tensor(a, param, (struct hy3_values){.of = out, .put = keep});
}

hy3_status hy3_adapter_load(const struct hy3_adapter *a, const struct hy3_params *params,
                            struct hy3_values values)
{
    HY3_TRY(hy3_adapter_account(a, params));
    for (int i = 0; i < params->count; i++)
        if (hy3_param_is_adapters(params, &params->params[i]))
            HY3_TRY(load_tensor(a, &params->params[i], values));
    return HY3_OK;
}

/* Whether all of a tensor of the file is zero. */
static hy3_status is_zero(const struct hy3_adapter *a, const struct hy3_shard_tensor *t, bool *zero)
{
    hy3_status status = HY3_OK;
    int64_t most = PIECE < t->count ? PIECE : t->count;
    float *piece = NULL;

    *zero = true;
    HY3_TRY_DONE(hy3_alloc(&piece, (size_t)most, sizeof *piece));
    for (int64_t i = 0; i < t->count && *zero; i += PIECE) {
        struct hy3_span span = hy3_span_piece((struct hy3_span){0, t->count}, i, PIECE);

        HY3_TRY_DONE(read_piece(a, t, span, piece));
        *zero = hy3_scan(piece, HY3_FP32, span.count) == HY3_ALL_ZERO;
    }
done:
    hy3_free(piece);
    return status;
}

hy3_status hy3_adapter_zeros(const struct hy3_adapter *a, const struct hy3_params *params,
                             struct hy3_adapter_zeros *out)
{
    *out = (struct hy3_adapter_zeros){0};
    for (int i = params->base_count; i < params->count; i++) {
        const struct hy3_shard_tensor *tensor;
        bool zero;

        if (params->params[i].part != HY3_LORA_B)
            continue;
        HY3_TRY(check_tensor(a, &params->params[i], &tensor));
        HY3_TRY(is_zero(a, tensor, &zero));
        out->matrices++;
        out->zeros += zero;
        out->first = zero && !out->first ? params->params[i].name : out->first;
    }
    return HY3_OK;
}

const char *hy3_adapter_path(const struct hy3_adapter *a)
{
    return hy3_shard_path(a->shard);
}

hy3_status hy3_adapter_fingerprint(const struct hy3_adapter *a, uint64_t *out)
{
    hy3_status status = HY3_OK;
    double scale[3] = {(double)a->lora.rank, a->lora.alpha, 1};
    XXH3_state_t *state = XXH3_createState();
    const char *path = hy3_shard_path(a->shard);
    char *piece = NULL;
    int64_t bytes;

    HY3_TRY_DONE(hy3_alloc(&piece, PIECE, 1));
    HY3_TRY_DONE(hy3_file_size(path, &bytes));
    if (!state || XXH3_64bits_reset(state) != XXH_OK)
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for the fingerprint of '%s'", path);
    XXH3_64bits_update(state, scale, (a->lora.rslora ? 3 : 2) * sizeof *scale);
    for (int64_t at = 0; at < bytes; at += PIECE) {
        size_t size = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;

        HY3_TRY_DONE(hy3_file_read_at(hy3_shard_fd(a->shard), piece, size, at, path));
        XXH3_64bits_update(state, piece, size);
    }
    *out = XXH3_64bits_digest(state);
done:
    XXH3_freeState(state);
    hy3_free(piece);
    return status;
}

void hy3_adapter_tell_base(const struct hy3_adapter *a, const char *path, const char *fingerprint)
{
    const char *own = hy3_shard_base(a->shard);

    if (own[0] != '\0' && strcmp(own, fingerprint) != 0)
        hy3_log(HY3_LOG_WARN,
                "'%s' was trained on a base with the fingerprint %s; '%s' has %s: other weights",
                hy3_shard_path(a->shard), own, path, fingerprint);
}
