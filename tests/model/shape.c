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

static void other_models_are_refused_by_feature(void **state)
{
    static const char *const features[][2] = {
        {"tie_word_embeddings", "true"},
        {"attention_bias", "true"},
        {"mlp_bias", "true"},
        {"qk_norm", "false"},
        {"route_norm", "false"},
        {"moe_router_use_sigmoid", "false"},
        {"moe_router_enable_expert_bias", "false"},
        {"hidden_act", "\"gelu\""},
        {"attention_dropout", "0.1"},
        {"quantization_config", "{\"quant_method\":\"fp8\"}"},
        {"model_type", "\"qwen3_moe\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        char change[128];

        snprintf(change, sizeof change, "{\"%s\":%s}", features[i][0], features[i][1]);
        refuses(features[i][0], NULL, change);
    }
    refuses("rope_parameters.rope_type", NULL, "{\"rope_parameters\":{\"rope_type\":\"yarn\"}}");
    refuses("rope_scaling.type", NULL, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}");
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
        cmocka_unit_test(other_models_are_refused_by_feature),
        cmocka_unit_test(sizes_out_of_range_are_refused),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
