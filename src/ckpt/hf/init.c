/* SPDX-License-Identifier: Apache-2.0 */
/* init.c - a shape file becomes a complete config.json and a parameter table with the MTP layers in
 * it. */
#include "ckpt/hf/init.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/planted.h"
#include "base/random.h"
#include "ckpt/hf/companions.h"
#include "ckpt/hf/publish.h"
#include "ckpt/hf/writer.h"
#include "comm/agree.h"
#include "comm/comm.h"

enum { SHAPE_LIMIT = 1 << 20 };

static const char program[] = "hy3_init";

/* clang-format off */
static const struct published { /* defaults, under any of the names of a key */
    const char *keys[3];
    int64_t value;
} published[] = {
    {{"num_hidden_layers"},                          80},
    {{"hidden_size"},                                4096},
    {{"intermediate_size"},                          13312},
    {{"num_attention_heads"},                        64},
    {{"num_key_value_heads"},                        8},
    {{"head_dim", "attention_head_dim"},             128},
    {{"vocab_size"},                                 120832},
    {{"num_experts", "n_routed_experts", "num_local_experts"}, 192},
    {{"num_experts_per_tok", "moe_topk"},            8},
    {{"moe_intermediate_size", "expert_hidden_dim"}, 1536},
    {{"num_nextn_predict_layers"},                   1},
};

static const struct flag { /* published keys that do not change the shape */
    const char *key;
    bool value;
} flags[] = {
    {"enable_attention_fp32_softmax", false},
    {"enable_lm_head_fp32",           false},
    {"enable_moe_fp32_combine",       true},
    {"moe_router_enable_expert_bias", true},
    {"moe_router_use_sigmoid",        true},
    {"output_router_logits",          false},
    {"qk_norm",                       true},
    {"route_norm",                    true},
    {"tie_word_embeddings",           false},
    {"use_cache",                     true},
    {"use_grouped_mm",                false},
};

/* clang-format on */

struct init {
    const struct hy3_init_options *options;
    MPI_Comm comm;
    json_t *config;
    json_t *generation; /* for a tokenizer that has none: the ids at which an answer ends */
    struct hy3_shape shape;
    struct hy3_params *params; /* MTP layers are ordinary layers here */
};

/* Reads the shape file; missing keys become as published. */
static hy3_status read_shape(struct init *init)
{
    hy3_status status = HY3_OK;
    const struct hy3_init_options *o = init->options;
    json_t *given = NULL;

    HY3_TRY_DONE(hy3_json_read(o->shape, SHAPE_LIMIT, &given));
    if (!json_object_get(given, "model_type"))
        json_object_set_new(given, "model_type", json_string("hy_v3"));
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        bool found = false;

        for (int j = 0; j < 3 && published[i].keys[j]; j++)
            found |= json_object_get(given, published[i].keys[j]) != NULL;
        if (!found)
            json_object_set_new(given, published[i].keys[0], json_integer(published[i].value));
    }
    HY3_TRY_DONE(hy3_shape_read(given, o->shape, &init->shape));
    if (init->shape.vocab < o->tokenizer_size)
        HY3_FAIL_DONE(HY3_EFORMAT,
                      "%s: 'vocab_size' is %lld, the tokenizer '%s' needs at least %lld", o->shape,
                      (long long)init->shape.vocab, o->tokenizer, (long long)o->tokenizer_size);
    init->config = HY3_TAKE(given);
done:
    json_decref(given);
    return status;
}

static void put_int(json_t *config, const char *key, int64_t value)
{
    json_object_set_new(config, key, json_integer(value));
}

/* The list of layer kinds, which transformers reads instead of first_k_dense_replace. */
static json_t *layer_types(const struct hy3_shape *shape)
{
    json_t *types = json_array();

    for (int i = 0; i < shape->layers; i++)
        json_array_append_new(types, json_string(hy3_shape_is_moe(shape, i) ? "sparse" : "dense"));
    return types;
}

static void put_shape(json_t *config, const struct hy3_shape *s)
{
    put_int(config, "first_k_dense_replace", s->dense_layers);
    put_int(config, "head_dim", s->head_dim);
    put_int(config, "hidden_size", s->hidden);
    put_int(config, "intermediate_size", s->intermediate);
    put_int(config, "max_position_embeddings", s->max_positions);
    put_int(config, "num_attention_heads", s->heads);
    put_int(config, "num_experts", s->experts);
    put_int(config, "num_hidden_layers", s->layers);
    put_int(config, "num_key_value_heads", s->kv_heads);
    put_int(config, "num_nextn_predict_layers", s->mtp_layers);
    put_int(config, "num_shared_experts", s->shared_experts);
    put_int(config, "vocab_size", s->vocab);
    if (s->experts > 0) { /* else 0, which no reader accepts */
        put_int(config, "expert_hidden_dim", s->expert_intermediate);
        put_int(config, "moe_intermediate_size", s->expert_intermediate);
        put_int(config, "num_experts_per_tok", s->top_k);
    }
    json_object_set_new(config, "initializer_range", json_real(s->initializer_range));
    json_object_set_new(config, "rms_norm_eps", json_real(s->rms_eps));
    json_object_set_new(config, "router_scaling_factor", json_real(s->router_scaling));
    json_object_set_new(
        config, "rope_parameters",
        json_pack("{s:f, s:s}", "rope_theta", s->rope_theta, "rope_type", "default"));
    if (s->dense_layers != 1)
        json_object_set_new(config, "mlp_layer_types", layer_types(s));
}

/* The keys as published, in alphabetical order. */
static hy3_status build_config(struct init *init)
{
    hy3_status status = HY3_OK;
    const struct hy3_init_options *o = init->options;
    const json_t *eod = json_object_get(init->config, "eod_token_id");
    json_t *config = json_pack("{s:[s], s:s, s:s}", "architectures", "HYV3ForCausalLM",
                               "model_type", "hy_v3", "hidden_act", "silu");
    char *text = NULL;
    bool value;

    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        HY3_TRY_DONE(
            hy3_json_bool_or(init->config, flags[i].key, o->shape, flags[i].value, &value));
        json_object_set_new(config, flags[i].key, json_boolean(value));
    }
    put_shape(config, &init->shape);
    put_int(config, "bos_token_id", o->bos);
    put_int(config, "eos_token_id", o->eos);
    put_int(config, "pad_token_id", o->pad);
    if (json_is_integer(eod))
        put_int(config, "eod_token_id", json_integer_value(eod));
    json_object_set_new(config, "dtype", json_string("")); /* the writer fills it in */
    if (!(text = json_dumps(config, JSON_SORT_KEYS | JSON_COMPACT)))
        HY3_FAIL_DONE(HY3_ENOMEM, "no memory for config.json");
    json_decref(init->config);
    init->config = json_loads(text, 0, NULL);
done:
    json_decref(config);
    free(text);
    return status;
}

/* No mark where a model is replaced: what is there now is not ours to throw away. */
static hy3_status claim_output(const struct hy3_init_options *options)
{
    hy3_status status = HY3_OK;

    HY3_TRY(hy3_hf_check_companions(options->tokenizer, false));
    HY3_TRY(hy3_planted_check(options->output, NULL));
    status = hy3_hf_may_write(options->output, program);
    if (status == HY3_EUSAGE && options->overwrite)
        return HY3_OK;
    if (status == HY3_EUSAGE)
        HY3_FAIL(HY3_EUSAGE,
                 "the directory '%s' is not empty; choose another, or give --overwrite to "
                 "replace the model in it",
                 options->output);
    HY3_TRY(status);
    return hy3_hf_begin(options->output, program);
}

static hy3_status prepare(struct init *init)
{
    const struct hy3_init_options *o = init->options;

    HY3_TRY(read_shape(init));
    HY3_TRY(build_config(init));
    HY3_TRY(hy3_params_create_mtp(&init->shape, &init->params));
    init->generation = json_pack("{s:i, s:[i], s:i}", "bos_token_id", (int)o->bos, "eos_token_id",
                                 (int)o->eos, "pad_token_id", (int)o->pad);
    return hy3_rank(init->comm) == 0 ? claim_output(o) : HY3_OK;
}

/* Four weights come from one counter: elements 4 i .. 4 i + 3 of tensor `index`. */
static void random_block(const struct init *init, uint64_t index, int64_t block, float out[4])
{
    uint32_t words[4];
    double normal[4];

    hy3_random(init->options->seed, HY3_RANDOM_WEIGHT, index, (uint64_t)block, words);
    hy3_random_normal(words[0], words[1], normal);
    hy3_random_normal(words[2], words[3], normal + 2);
    for (int i = 0; i < 4; i++)
        out[i] = (float)(normal[i] * init->shape.initializer_range);
}

static hy3_status draw(void *of, enum hy3_field field, const struct hy3_param *param,
                       struct hy3_span span, float *out)
{
    const struct init *init = of;
    uint64_t index = (uint64_t)(param - init->params->params);
    int64_t low = span.first / 4, high = (hy3_span_end(span) + 3) / 4;

    if (!param->decay) { /* norms one, router biases zero */
        for (int64_t i = 0; i < span.count; i++)
            out[i] = param->unit < 0 ? 0 : 1;
        return HY3_OK;
    }
#pragma omp parallel for schedule(static)
    for (int64_t block = low; block < high; block++) {
        float values[4];

        random_block(init, index, block, values);
        for (int i = 0; i < 4; i++) {
            int64_t at = 4 * block + i - span.first;

            if (at >= 0 && at < span.count)
                out[at] = values[i];
        }
    }
    return HY3_OK;
}

static struct hy3_span share(void *of, const struct hy3_param *param)
{
    const struct init *init = of;

    return hy3_span_share(param->count, hy3_rank(init->comm), hy3_size(init->comm));
}

hy3_status hy3_init_write(MPI_Comm comm, const struct hy3_init_options *options)
{
    hy3_status status = HY3_OK;
    struct init init = {.options = options, .comm = comm};
    struct hy3_values drawn = {.of = &init, .get = draw, .share = share};
    struct hy3_hf_writer_options writer = {.output = options->output,
                                           .names = options->names,
                                           .dtype = options->dtype,
                                           .max_shard_bytes = options->max_shard_bytes,
                                           .tokenizer_directory = options->tokenizer,
                                           .program = program};

    HY3_AGREE_DONE(comm, prepare(&init), "preparing the model");
    writer.config = init.config;
    writer.generation = init.generation;
    hy3_log(HY3_LOG_INFO, "a model of %.3g parameters in %lld layers for '%s'",
            (double)init.params->total, (long long)init.shape.layers, options->output);
    HY3_TRY_DONE(hy3_hf_write(comm, &writer, init.params, drawn));
    HY3_AGREE_DONE(comm, hy3_rank(comm) == 0 ? hy3_hf_end(options->output) : HY3_OK,
                   "completing the model directory");
done:
    hy3_params_free(init.params);
    json_decref(init.config);
    json_decref(init.generation);
    return status;
}
