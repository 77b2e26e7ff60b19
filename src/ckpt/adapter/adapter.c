/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.c - PEFT's configuration, names and order of elements. */
#include "ckpt/adapter/adapter.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/random.h"
#include "ckpt/adapter/transpose.h"
#include "ckpt/hf/names.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <math.h>

enum { CONFIG_LIMIT = 1 << 20, PIECE = 4 << 20 }; /* bytes; elements read at a time */

struct hy3_adapter {
    char path[HY3_PATH_MAX]; /* of adapter_config.json */
    struct hy3_shard *shard;
    struct hy3_lora lora;
};

static const char prefix[] = "base_model.model.";

/* What an adapter may not have: keys whose values change the formula or the tensors. */
static const char *const refused[] = {
    "use_dora",
    "use_rslora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "alpha_pattern",
    "rank_pattern",
    "modules_to_save",
    "layer_replication",
    "use_bdlora",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
    "layers_to_transform",
};

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Initialisations that change the base's weights as well (pissa, olora, corda, loftq): the adapter
 * is meant for the changed ones. */
static bool changes_base(const json_t *init)
{
    static const char *const harmless[] = {"gaussian", "orthogonal", "eva"};

    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (is_text(init, harmless[i]))
            return false;
    return json_is_string(init);
}

static hy3_status read_config(struct hy3_adapter *a, const json_t *config)
{
    const json_t *bias = json_object_get(config, "bias");
    const json_t *init = json_object_get(config, "init_lora_weights");

    if (!is_text(json_object_get(config, "peft_type"), "LORA"))
        HY3_FAIL(HY3_EFORMAT, "%s: 'peft_type' is not \"LORA\"", a->path);
    if (!is_off(bias) && !is_text(bias, "none"))
        HY3_FAIL(HY3_EFORMAT, "%s: 'bias' must be \"none\"; hy_v3 has no biases", a->path);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_off(json_object_get(config, refused[i])))
            HY3_FAIL(HY3_EFORMAT, "%s: '%s' is set; only plain LoRA is read, W + alpha / r * B A",
                     a->path, refused[i]);
    if (changes_base(init))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'init_lora_weights' is \"%s\", which has changed the model's weights too; "
                 "convert the adapter to plain LoRA with PEFT first",
                 a->path, json_string_value(init));
    HY3_TRY(hy3_json_int(config, "r", a->path, 1, 65536, &a->lora.rank));
    HY3_TRY(hy3_json_real_or(config, "lora_alpha", a->path, 0, &a->lora.alpha));
    if (!isfinite(a->lora.alpha) || a->lora.alpha <= 0)
        HY3_FAIL(HY3_EFORMAT, "%s: 'lora_alpha' is missing or not above 0", a->path);
    return HY3_OK;
}

/* Whether one of target_parameters ends so. */
static bool has_target_parameter(const json_t *config, const char *end)
{
    const json_t *list = json_object_get(config, "target_parameters"), *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (json_is_string(item) && hy3_ends_with(json_string_value(item), end))
            return true;
    }
    return false;
}

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

/* The kind that a tensor's module is. HY3_PARAM_KIND_COUNT: no matrix of the model. */
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

/* The targets are what has tensors: target_modules may be anything from a list of endings to a
 * regular expression. */
static hy3_status read_targets(struct hy3_adapter *a, const struct hy3_params *params,
                               const json_t *config)
{
    bool wrapped = false, gate_up_alone = has_target_parameter(config, "gate_up_proj") &&
                                          !has_target_parameter(config, "down_proj");

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
    json_t *config = NULL;
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&a, 1, sizeof *a));
    HY3_TRY_DONE(hy3_path_format(a->path, sizeof a->path, "%s/adapter_config.json", directory));
    HY3_TRY_DONE(hy3_json_read(a->path, CONFIG_LIMIT, &config));
    HY3_TRY_DONE(read_config(a, config));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/adapter_model.safetensors", directory));
    HY3_TRY_DONE(hy3_shard_open(path, &a->shard));
    HY3_TRY_DONE(read_targets(a, params, config));
    *out = a;
    a = NULL;
done:
    json_decref(config);
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

/* Whether its elements stand in another order in the file. */
static bool is_reordered(const struct hy3_param *p)
{
    return p->dims == 3 && p->part == HY3_LORA_B;
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
    HY3_TRY(hy3_shard_read(a->shard, t, span, data, HY3_FP32));
    for (int64_t i = 0; i < span.count; i++)
        if (!isfinite(data[i]))
            HY3_FAIL(HY3_EFORMAT, "%s: element %lld of tensor '%s' is NaN or infinite",
                     hy3_shard_path(a->shard), (long long)(span.first + i), t->name);
    return HY3_OK;
}

/* A factor whose order is the file's. */
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
            HY3_FAIL(HY3_EFORMAT, "%s: the model has no place for tensor '%s'",
                     hy3_shard_path(a->shard), hy3_shard_tensor(a->shard, i)->name);
    return HY3_OK;
}

static hy3_status load_factor(const struct hy3_adapter *a, const struct hy3_param *p,
                              struct hy3_values values)
{
    const struct hy3_shard_tensor *tensor;

    HY3_TRY(check_tensor(a, p, &tensor));
    return (is_reordered(p) ? load_reordered : load_plain)(a, p, tensor, values);
}

static hy3_status keep(void *of, enum hy3_field field, const struct hy3_param *p,
                       struct hy3_span span, const float *in)
{
    (void)field;
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

static void draw_piece(const struct hy3_param *p, uint64_t seed, struct hy3_span span, float *out)
{
    double bound = 1 / sqrt((double)p->shape[p->dims - 1]);
    uint64_t which = hy3_kind_place(p->layer, p->kind);
    uint32_t word[4];

    for (int64_t i = span.first; i < hy3_span_end(span); i++) {
        if (i == span.first || i % 4 == 0)
            hy3_random(seed, HY3_RANDOM_ADAPTER, which, (uint64_t)i / 4, word);
        out[i - span.first] = (float)(bound * (2 * (double)hy3_random_uniform(word[i % 4]) - 1));
    }
}

hy3_status hy3_adapter_draw(const struct hy3_params *params, uint64_t seed,
                            struct hy3_values values)
{
    hy3_status status = HY3_OK;
    float *piece = NULL;

    HY3_TRY_DONE(hy3_alloc(&piece, PIECE, sizeof *piece));
    for (int i = params->base_count; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        for (int64_t at = 0; at < p->held; at += PIECE) {
            struct hy3_span span = hy3_span_piece(hy3_param_held(p), at, PIECE);

            if (p->part == HY3_LORA_A)
                draw_piece(p, seed, span, piece);
            else
                memset(piece, 0, (size_t)span.count * sizeof *piece);
            HY3_TRY_DONE(values.put(values.of, HY3_MASTER, p, span, piece));
        }
    }
done:
    hy3_free(piece);
    return status;
}

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
        if (is_reordered(&o->params->params[i]))
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

    if (!is_reordered(p))
        return o->values.share(o->values.of, p);
    rows = hy3_transpose_share(p, hy3_rank(o->comm), hy3_size(o->comm));
    return (struct hy3_span){rows.first * p->shape[0], rows.count * p->shape[0]};
}

static hy3_status get_ordered(void *of, enum hy3_field field, const struct hy3_param *p,
                              struct hy3_span span, float *out)
{
    const struct ordered *o = of;

    if (!is_reordered(p))
        return o->values.get(o->values.of, field, p, span, out);
    memcpy(out, o->rows[p - o->params->params] + span.first - share_ordered(of, p).first,
           (size_t)span.count * sizeof *out);
    return HY3_OK;
}

/* Puts a text into a list in the order of the alphabet, as PEFT writes them; once. */
static void insert_name(json_t *list, const char *name)
{
    size_t i = 0;

    while (i < json_array_size(list) &&
           strcmp(json_string_value(json_array_get(list, i)), name) < 0)
        i++;
    if (i == json_array_size(list) || strcmp(json_string_value(json_array_get(list, i)), name) != 0)
        json_array_insert_new(list, i, json_string(name));
}

static json_t *config_of(const struct hy3_lora *lora)
{
    json_t *names = json_array(), *parameters = json_array();
    bool whole = lora->alpha == floor(lora->alpha), experts;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (lora->targets[kind] && hy3_kind_is_expert(kind))
            insert_name(parameters, hy3_kinds[kind].name);
        else if (lora->targets[kind] && hy3_kinds[kind].target)
            insert_name(names, hy3_kinds[kind].target);
    experts = json_array_size(parameters) > 0;
    /* PEFT refuses to load target_parameters with a dropout, which matters in training only */
    return json_pack(
        "{s:s, s:s, s:s, s:{}, s:{}, s:b, s:b, s:b, s:I, s:o, s:f, s:n, s:o, s:o, s:b, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "bias", "none", "alpha_pattern",
        "rank_pattern", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "r",
        (json_int_t)lora->rank, "lora_alpha",
        whole ? json_integer((json_int_t)lora->alpha) : json_real(lora->alpha), "lora_dropout",
        experts ? 0.0 : lora->dropout, "modules_to_save", "target_modules", names,
        "target_parameters", experts ? parameters : (json_decref(parameters), json_null()),
        "use_dora", 0, "use_rslora", 0);
}

hy3_status hy3_adapter_write(MPI_Comm comm, const struct hy3_adapter_writer *options,
                             const struct hy3_params *params, struct hy3_values values)
{
    hy3_status status = HY3_OK;
    struct ordered ordered = {.comm = comm, .params = params, .values = values};
    json_t *config = config_of(&params->lora);
    struct hy3_hf_writer_options writer = {.output = options->output,
                                           .adapter = true,
                                           .config = config,
                                           .names = HY3_OUTER,
                                           .dtype = HY3_FP32,
                                           .max_shard_bytes = INT64_MAX,
                                           .tokenizer_directory = options->tokenizer_directory};

    if (config)
        json_object_set_new(config, "base_model_name_or_path", json_string(options->base_path));
    HY3_TRY_DONE(transpose_all(&ordered));
    HY3_TRY_DONE(hy3_hf_write(
        comm, &writer, params,
        (struct hy3_values){.of = &ordered, .get = get_ordered, .share = share_ordered}));
done:
    ordered_free(&ordered);
    json_decref(config);
    return status;
}
