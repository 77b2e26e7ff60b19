/* SPDX-License-Identifier: Apache-2.0 */
/* shape.c - every name of a key is understood, every contradiction and every other model is refused
 * by name. */
#include "model/shape.h"

#include "support/test.h"

static json_t *golden_config(void)
{
    return hy3_golden_json("a/inner/config.json");
}

static void the_golden_config_is_read(void **state)
{
    json_t *given = hy3_golden_json("shape_a.json");
    struct hy3_shape shape;

    (void)state;
#define SAME(key, field) \
    assert_int_equal(json_integer_value(json_object_get(given, key)), shape.field)
    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    SAME("hidden_size", hidden);
    SAME("intermediate_size", intermediate);
    SAME("num_hidden_layers", layers);
    SAME("num_attention_heads", heads);
    SAME("num_key_value_heads", kv_heads);
    SAME("head_dim", head_dim);
    SAME("num_experts", experts);
    SAME("num_experts_per_tok", top_k);
    SAME("num_shared_experts", shared_experts);
    SAME("moe_intermediate_size", expert_intermediate);
    SAME("first_k_dense_replace", dense_layers);
    SAME("num_nextn_predict_layers", mtp_layers);
    SAME("max_position_embeddings", max_positions);
    SAME("vocab_size", vocab);
#undef SAME
    assert_true(shape.rms_eps == json_number_value(json_object_get(given, "rms_norm_eps")));
    assert_true(shape.rope_theta == json_number_value(json_object_get(given, "rope_theta")));
    assert_true(shape.router_scaling ==
                json_number_value(json_object_get(given, "router_scaling_factor")));
    json_decref(given);
}

static void every_hostile_config_is_refused_by_name(void **state)
{
    json_t *list = hy3_golden_json("a/bad_inputs.json"), *row;
    int judged = 0;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(list, "files"), i, row)
    {
        const char *file = json_string_value(json_object_get(row, "file"));
        char name[256];
        struct hy3_shape shape;
        hy3_status status;

        if (strcmp(json_string_value(json_object_get(row, "kind")), "config") != 0)
            continue;
        judged++;
        snprintf(name, sizeof name, "a/bad_inputs/%s", file);
        status = hy3_shape_open(hy3_golden(name), &shape);
        if (strcmp(json_string_value(json_object_get(row, "expect")), "reject") == 0)
            assert_fails(HY3_EFORMAT, file, status);
    }
    assert_true(judged >= 12);
    json_decref(list);
}

/* The golden config without `drop` (may be NULL) and with `add`, a JSON object, laid over it. */
static hy3_status read_changed(const char *drop, const char *add, struct hy3_shape *shape)
{
    json_t *config = golden_config(), *changes = json_loads(add, 0, NULL);
    hy3_status status;

    assert_non_null(changes);
    if (drop)
        json_object_del(config, drop);
    json_object_update(config, changes);
    status = hy3_shape_read(config, "config.json", shape);
    json_decref(config);
    json_decref(changes);
    return status;
}

static void other_names_say_the_same(void **state)
{
    struct hy3_shape shape;

    (void)state;
    assert_ok(read_changed("moe_intermediate_size", "{\"expert_hidden_dim\":24}", &shape));
    assert_int_equal(shape.expert_intermediate, 24);
    assert_ok(read_changed("router_scaling_factor", "{\"route_scale\":1.5}", &shape));
    assert_true(shape.router_scaling == 1.5);
    assert_ok(read_changed("num_experts", "{\"n_routed_experts\":6}", &shape));
    assert_int_equal(shape.experts, 6);
    assert_ok(read_changed("rope_parameters", "{\"rope_theta\":10000}", &shape));
    assert_true(shape.rope_theta == 10000);
    assert_ok(read_changed("first_k_dense_replace",
                           "{\"mlp_layer_types\":[\"dense\",\"dense\",\"sparse\"]}", &shape));
    assert_int_equal(shape.dense_layers, 2);
    assert_ok(read_changed("first_k_dense_replace", "{}", &shape));
    assert_int_equal(shape.dense_layers, 1);
    assert_ok(read_changed("head_dim", "{}", &shape));
    assert_int_equal(shape.head_dim, 10);
    assert_ok(read_changed("num_nextn_predict_layers", "{\"rope_scaling\":null}", &shape));
    assert_int_equal(shape.mtp_layers, 0);
}

static void refuses(const char *words, const char *drop, const char *add)
{
    struct hy3_shape shape;

    assert_fails(HY3_EFORMAT, words, read_changed(drop, add, &shape));
    assert_non_null(strstr(hy3_error_text(), "config.json"));
}

static void contradictions_name_both_keys(void **state)
{
    (void)state;
    refuses("'moe_intermediate_size' is 24 but 'expert_hidden_dim' is 25", NULL,
            "{\"expert_hidden_dim\":25}");
    refuses("'router_scaling_factor' is 2.8260000000000001 but 'route_scale' is 1", NULL,
            "{\"route_scale\":1}");
    refuses("'rope_theta' is 5 but 'rope_parameters.rope_theta' is 11158840", NULL,
            "{\"rope_theta\":5}");
    refuses("'first_k_dense_replace' is 1 but 'mlp_layer_types' begins with 2", NULL,
            "{\"mlp_layer_types\":[\"dense\",\"dense\",\"sparse\"]}");
    refuses("'num_experts' is 8 but 'num_local_experts' is 4", NULL, "{\"num_local_experts\":4}");
}

/* Every key of config.json by which transformers' hy_v3, its relatives or earlier publications
 * compute something else, with an odd value; the last column: what the message advises. */
static void every_key_that_changes_arithmetic_is_refused(void **state)
{
    static const char *const features[][3] = {
        {"tie_word_embeddings", "true", "lm_head.weight"},
        {"attention_bias", "true", "another architecture"},
        {"mlp_bias", "true", "another architecture"},
        {"qk_norm", "false", "another architecture"},
        {"use_qk_norm", "false", "another architecture"},
        {"route_norm", "false", "another architecture"},
        {"norm_topk_prob", "false", "another architecture"},
        {"moe_router_use_sigmoid", "false", "another architecture"},
        {"moe_router_enable_expert_bias", "false", "another architecture"},
        {"use_sliding_window", "true", "another architecture"},
        {"use_cla", "true", "another architecture"},
        {"use_mla", "true", "another architecture"},
        {"sliding_window", "4096", "remove it"},
        {"layer_types", "[\"full_attention\",\"sliding_attention\"]", "another architecture"},
        {"layer_types", "7", "must be a list"},
        {"hidden_act", "\"gelu\"", "another architecture"},
        {"scoring_func", "\"softmax\"", "another architecture"},
        {"topk_method", "\"greedy\"", "another architecture"},
        {"model_type", "\"qwen3_moe\"", "another architecture"},
        {"attention_dropout", "0.1", "another architecture"},
        {"hidden_dropout", "0.1", "another architecture"},
        {"router_jitter_noise", "0.01", "another architecture"},
        {"attn_logit_softcapping", "50", "another architecture"},
        {"final_logit_softcapping", "30", "another architecture"},
        {"n_group", "8", "another architecture"},
        {"topk_group", "4", "another architecture"},
        {"partial_rotary_factor", "0.5", "another architecture"},
        {"attention_dropout", "\"none\"", "must be a number"},
        {"quantization_config", "{\"quant_method\":\"awq\"}", "bf16 or fp8 publication"},
        {"quantization_config", "{\"quant_method\":7}", "bf16 or fp8 publication"},
        {"quantization_config", "true", "bf16 or fp8 publication"},
        {"quantization_config",
         "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\"}",
         "bf16 or fp8 publication"},
        {"quantization_config", "{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}",
         "weight_block_size"},
        {"enable_lm_head_fp32", "\"yes\"", "true or false"},
        {"enable_moe_fp32_combine", "2", "true or false"},
        {"enable_attention_fp32_softmax", "[]", "true or false"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        char change[128];

        snprintf(change, sizeof change, "{\"%s\":%s}", features[i][0], features[i][1]);
        refuses(features[i][0], NULL, change);
        assert_non_null(strstr(hy3_error_text(), features[i][2]));
    }
}

static void every_scaling_of_the_rotation_is_refused(void **state)
{
    static const char *const scalings[][2] = {
        {"rope_type", "\"rope_type\":\"yarn\",\"factor\":4"},
        {"type", "\"type\":\"linear\",\"factor\":2"},
        {"rope_type", "\"rope_type\":\"llama3\""},
        {"factor", "\"rope_type\":\"default\",\"factor\":2"},
        {"attention_factor", "\"attention_factor\":1.2"},
        {"partial_rotary_factor", "\"partial_rotary_factor\":0.25"},
        {"alpha", "\"alpha\":1000.0"},
        {"mrope_section", "\"mrope_section\":[16,24,24]"},
        {"original_max_position_embeddings", "\"original_max_position_embeddings\":4096"},
    };
    static const char *const groups[] = {"rope_parameters", "rope_scaling"};
    struct hy3_shape shape;

    (void)state;
    for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++)
        for (int g = 0; g < 2; g++) {
            char change[192], shown[96];

            snprintf(change, sizeof change, "{\"%s\":{%s}}", groups[g], scalings[i][1]);
            snprintf(shown, sizeof shown, "'%s.%s'", groups[g], scalings[i][0]);
            refuses(shown, NULL, change);
        }
    assert_ok(read_changed("rope_parameters",
                           "{\"rope_scaling\":{\"type\":\"default\",\"factor\":1.0,"
                           "\"attention_factor\":null,\"rope_theta\":10000}}",
                           &shape));
    assert_true(shape.rope_theta == 10000);
}

static void what_changes_nothing_is_accepted(void **state)
{
    static const char *const keys[] = {"\"enable_lm_head_fp32\":true",
                                       "\"enable_lm_head_fp32\":false",
                                       "\"enable_moe_fp32_combine\":true",
                                       "\"enable_moe_fp32_combine\":false",
                                       "\"enable_attention_fp32_softmax\":true",
                                       "\"enable_attention_fp32_softmax\":false",
                                       "\"attention_dropout\":0.0",
                                       "\"n_group\":1,\"topk_group\":1",
                                       "\"sliding_window\":4096,\"use_sliding_window\":false",
                                       "\"sliding_window\":null",
                                       "\"layer_types\":[\"full_attention\"]",
                                       "\"quantization_config\":null",
                                       "\"use_cache\":false,\"output_router_logits\":true"};
    struct hy3_shape shape;

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char change[128];

        snprintf(change, sizeof change, "{%s}", keys[i]);
        assert_ok(read_changed(NULL, change, &shape));
    }
}

static void sizes_out_of_range_are_refused(void **state)
{
    static const char *const keys[] = {
        "num_hidden_layers",   "hidden_size",        "intermediate_size",    "num_attention_heads",
        "num_key_value_heads", "head_dim",           "vocab_size",           "num_experts",
        "num_experts_per_tok", "num_shared_experts", "moe_intermediate_size"};

    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char change[128];

        snprintf(change, sizeof change, "{\"%s\":1099511627776}", keys[i]);
        refuses(keys[i], NULL, change);
        snprintf(change, sizeof change, "{\"%s\":-1}", keys[i]);
        refuses(keys[i], NULL, change);
        snprintf(change, sizeof change, "{\"%s\":1.5}", keys[i]);
        refuses(keys[i], NULL, change);
    }
    refuses("rms_norm_eps", NULL, "{\"rms_norm_eps\":0}");
    refuses("num_experts", "num_experts", "{}");
    refuses("parameters", NULL,
            "{\"hidden_size\":1048576,\"moe_intermediate_size\":1048576,"
            "\"expert_hidden_dim\":1048576,\"num_experts\":16384}");
    refuses("mlp_layer_types", NULL, "{\"mlp_layer_types\":[\"dense\",\"sparse\"]}");
    refuses("mlp_layer_types", NULL, "{\"mlp_layer_types\":[\"sparse\",\"dense\",\"sparse\"]}");
    refuses("mlp_layer_types", NULL, "{\"mlp_layer_types\":[\"dense\",\"sparse\",7]}");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_config_is_read),
        cmocka_unit_test(every_hostile_config_is_refused_by_name),
        cmocka_unit_test(other_names_say_the_same),
        cmocka_unit_test(contradictions_name_both_keys),
        cmocka_unit_test(every_key_that_changes_arithmetic_is_refused),
        cmocka_unit_test(every_scaling_of_the_rotation_is_refused),
        cmocka_unit_test(what_changes_nothing_is_accepted),
        cmocka_unit_test(sizes_out_of_range_are_refused),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
