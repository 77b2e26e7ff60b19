/* SPDX-License-Identifier: Apache-2.0 */
/* params.c - the table is the reference's list of parameters; units hold all of it without
 * overlap. */
#include "model/params.h"

#include "base/memory.h"
#include "config/options.h"
#include "model/freeze.h"
#include "support/test.h"

static struct hy3_params *golden_params(int64_t first_expert, int64_t held)
{
    struct hy3_shape shape;
    struct hy3_params *params;

    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, first_expert, held < 0 ? shape.experts : held, &params));
    return params;
}

static void the_names_are_those_of_the_reference(void **state)
{
    json_t *forward = hy3_golden_json("a/forward.json"), *name;
    struct hy3_params *params = golden_params(0, -1);
    int trained = 0, buffers = 0;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(forward, "parameter_names"), i, name)
    {
        const struct hy3_param *p = hy3_params_named(params, json_string_value(name));

        assert_non_null(p);
        assert_true(p->trainable && p->unit >= 0);
        trained++;
    }
    json_array_foreach(json_object_get(forward, "buffer_names"), i, name)
    {
        const struct hy3_param *p = hy3_params_named(params, json_string_value(name));

        if (!p) /* tables of the rotation are no tensors of a checkpoint */
            continue;
        assert_true(!p->trainable && p->unit < 0);
        buffers++;
    }
    assert_int_equal(trained + buffers, params->count);
    assert_int_equal(params->total,
                     json_integer_value(json_object_get(forward, "parameter_count")));
    hy3_params_free(params);
    json_decref(forward);
}

static void decay_is_that_of_the_reference(void **state)
{
    json_t *train = hy3_golden_json("a/train_full.json"), *name;
    const json_t *run = json_object_get(train, "weight_decay_0.1");
    struct hy3_params *params = golden_params(0, -1);
    int seen = 0;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(run, "no_decay_parameters"), i, name)
    {
        assert_false(hy3_params_named(params, json_string_value(name))->decay);
        seen++;
    }
    json_array_foreach(json_object_get(run, "decay_parameters"), i, name)
    {
        assert_true(hy3_params_named(params, json_string_value(name))->decay);
        seen++;
    }
    assert_true(seen > 40);
    hy3_params_free(params);
    json_decref(train);
}

/* Units in order, each parameter in the unit that lists it, aligned, one behind the other. */
static void check_units(const struct hy3_params *params)
{
    int listed = 0;

    for (int u = 0; u < params->units; u++) {
        const struct hy3_unit *unit = &params->unit[u];
        int64_t at = 0;

        for (int i = unit->first; i < unit->end; i++) {
            const struct hy3_param *p = &params->params[i];

            assert_int_equal(p->unit, u);
            assert_int_equal(p->offset % HY3_PARAM_ALIGN, 0);
            assert_true(p->offset >= at && p->offset < at + HY3_PARAM_ALIGN);
            at = p->offset + p->held;
            listed++;
        }
        assert_true(unit->count >= at && unit->count < at + HY3_PARAM_ALIGN);
        assert_int_equal(unit->count % HY3_PARAM_ALIGN, 0);
        if (unit->layer >= 0)
            assert_int_equal(unit->wide ? hy3_params_router_unit(params, unit->layer)
                                        : hy3_params_unit(params, unit->layer, unit->expert),
                             u);
        for (int i = unit->first; i < unit->end; i++)
            assert_true(unit->wide == (params->params[i].kind == HY3_P_ROUTER));
    }
    for (int i = 0; i < params->count; i++)
        listed += params->params[i].unit < 0;
    assert_int_equal(listed, params->count);
}

static void units_hold_every_parameter_once(void **state)
{
    struct hy3_params *params = golden_params(0, -1);

    (void)state;
    check_units(params);
    assert_int_equal(params->unit[hy3_params_embedding_unit()].first, 0);
    assert_string_equal(params->unit[hy3_params_head_unit(params)].name, "head");
    assert_int_equal(hy3_params_unit(params, 0, true), -1);
    assert_int_equal(hy3_params_unit(params, (int)params->shape.layers, false), -1);
    assert_int_equal(hy3_params_router_unit(params, 0), -1);
    hy3_params_free(params);
}

static void every_kind_is_found_where_it_is(void **state)
{
    struct hy3_params *params = golden_params(0, -1);

    (void)state;
    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        assert_ptr_equal(hy3_params_find(params, p->kind, p->layer), p);
        assert_ptr_equal(hy3_params_named(params, p->name), p);
    }
    assert_null(hy3_params_find(params, HY3_P_ROUTER, 0));
    assert_null(hy3_params_find(params, HY3_P_GATE, 1));
    assert_null(hy3_params_find(params, HY3_P_Q, (int)params->shape.layers));
    assert_null(hy3_params_find(params, HY3_P_Q, -1));
    assert_null(hy3_params_named(params, "model.layers.77.input_layernorm.weight"));
    assert_null(hy3_params_named(params, "model.layers.x"));
    assert_null(hy3_params_named(params, ""));
    hy3_params_free(params);
}

static void a_share_of_the_experts_is_a_range(void **state)
{
    struct hy3_params *all = golden_params(0, -1), *part = golden_params(6, 2);

    (void)state;
    check_units(part);
    assert_int_equal(part->total, all->total);
    for (int i = 0; i < part->count; i++) {
        const struct hy3_param *p = &part->params[i];
        bool expert = p->kind == HY3_P_GATE_UP || p->kind == HY3_P_EXPERT_DOWN;

        assert_int_equal(p->count, all->params[i].count);
        assert_int_equal(p->first, expert ? p->count / 8 * 6 : 0);
        assert_int_equal(p->held, expert ? p->count / 4 : p->count);
    }
    hy3_params_free(all);
    hy3_params_free(part);
}

static void models_without_experts_or_shared_experts_have_none(void **state)
{
    struct hy3_shape shape;
    struct hy3_params *params;

    (void)state;
    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    shape.shared_experts = 0;
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    check_units(params);
    assert_null(hy3_params_find(params, HY3_P_SHARED_UP, 1));
    assert_non_null(hy3_params_find(params, HY3_P_GATE_UP, 2));
    hy3_params_free(params);
    shape.experts = 0;
    assert_ok(hy3_params_create(&shape, 0, 0, &params));
    check_units(params);
    assert_int_equal(params->buffer_count, 0);
    assert_int_equal(hy3_params_router_unit(params, 2), -1);
    assert_non_null(hy3_params_find(params, HY3_P_DOWN, 2));
    hy3_params_free(params);
}

/* What is trained lies in the span of its unit that has gradients; a unit without any has no
 * span. */
static void check_spans(const struct hy3_params *params)
{
    for (int u = 0; u < params->units; u++) {
        const struct hy3_unit *unit = &params->unit[u];
        int64_t end = unit->grad_first + unit->grad_count;
        bool any = false;

        for (int i = unit->first; i < unit->end; i++) {
            const struct hy3_param *p = &params->params[i];

            any |= p->trainable;
            assert_true(!p->trainable ||
                        (p->offset >= unit->grad_first && p->offset + p->held <= end));
        }
        assert_true(any == (unit->grad_count > 0));
        assert_true(unit->grad_first % HY3_PARAM_ALIGN == 0 && end <= unit->count);
    }
}

static void what_is_frozen_has_no_gradient_memory(void **state)
{
    struct hy3_params *params = golden_params(0, -1);
    struct hy3_lora lora = {.rank = 4, .alpha = 8};
    int64_t spans = 0, attention = 0;

    (void)state;
    check_spans(params);
    assert_int_equal(hy3_params_trained(params), params->total);
    hy3_params_train(params, HY3_TRAIN_ATTENTION, NULL);
    check_spans(params);
    for (int i = 0; i < params->count; i++) {
        assert_true(params->params[i].trainable ==
                    (strstr(params->params[i].name, "self_attn") != NULL));
        if (params->params[i].trainable)
            attention +=
                (params->params[i].held + HY3_PARAM_ALIGN - 1) / HY3_PARAM_ALIGN * HY3_PARAM_ALIGN;
    }
    for (int u = 0; u < params->units; u++)
        spans += params->unit[u].grad_count;
    assert_int_equal(spans, attention); /* attention tensors stand together: no gaps */
    lora.targets[HY3_P_Q] = lora.targets[HY3_P_GATE_UP] = lora.targets[HY3_P_EXPERT_DOWN] = true;
    assert_ok(hy3_params_add_adapter(params, &lora));
    check_spans(params);
    for (int u = 0; u < params->base_units; u++)
        assert_int_equal(params->unit[u].grad_count, 0);
    assert_int_equal(params->units - params->base_units,
                     3 + 2); /* layers, and those with experts */
    hy3_params_free(params);
}

/* The names of the tensors that are trained must be those that have one of `parts` in them. */
static void assert_trained(const struct hy3_params *params, const char *const *parts)
{
    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];
        bool wanted = false;

        for (int k = 0; parts[k] && p->unit >= 0; k++)
            wanted = wanted || strstr(p->name, parts[k]);
        if (p->trainable != wanted)
            fail_msg("'%s' is %strained", p->name, p->trainable ? "" : "not ");
    }
    check_spans(params);
}

/* The rule of LLaMA-Factory's freeze tuning: a tensor is trained if its name contains
 * ".LAYER.MODULE" of a chosen layer, or an extra module. */
static void chosen_layers_are_those_of_the_rule(void **state)
{
    struct hy3_params *params = golden_params(0, -1); /* 3 layers */
    struct hy3_selection s = {.layers = 2};

    (void)state;
    assert_ok(hy3_freeze_module("all", &s));
    hy3_params_train(params, HY3_TRAIN_LAYERS, &s);
    assert_trained(params, (const char *[]){".1.", ".2.", NULL});
    assert_int_equal(hy3_params_first_trained(params), 1);
    s.layers = -1;
    hy3_params_train(params, HY3_TRAIN_LAYERS, &s);
    assert_trained(params, (const char *[]){".0.", NULL});
    s = (struct hy3_selection){.layers = 1};
    assert_ok(hy3_freeze_module("self_attn", &s));
    assert_ok(hy3_freeze_module("input_layernorm", &s));
    assert_ok(hy3_freeze_extra("lm_head", &s));
    hy3_params_train(params, HY3_TRAIN_LAYERS, &s);
    assert_trained(params, (const char *[]){".2.self_attn", ".2.input_layernorm", "lm_head", NULL});
    assert_int_equal(hy3_params_first_trained(params), 2);
    assert_ok(hy3_freeze_extra("norm", &s));
    hy3_params_train(params, HY3_TRAIN_LAYERS, &s);
    assert_trained(params, (const char *[]){".2.self_attn", "norm", "lm_head", NULL});
    assert_int_equal(hy3_params_first_trained(params), 0);
    s = (struct hy3_selection){.layers = 99, .freeze_router = true};
    assert_ok(hy3_freeze_module("mlp", &s));
    hy3_params_train(params, HY3_TRAIN_LAYERS, &s);
    assert_trained(params, (const char *[]){".mlp.gate_proj", ".mlp.up_proj", ".mlp.down_proj",
                                            "experts", NULL});
    assert_fails(HY3_EUSAGE, "self_attn, post_attention_layernorm, mlp and all",
                 hy3_freeze_module("embed_tokens", &s));
    assert_fails(HY3_EUSAGE, "embed_tokens, norm, lm_head", hy3_freeze_extra("mlp", &s));
    hy3_params_free(params);
}

static void a_frozen_router_alone_is_not_trained(void **state)
{
    struct hy3_params *params = golden_params(0, -1);

    (void)state;
    hy3_params_train(params, HY3_TRAIN_FULL, &(struct hy3_selection){.freeze_router = true});
    for (int i = 0; i < params->count; i++)
        assert_true(params->params[i].trainable ==
                    (params->params[i].unit >= 0 && params->params[i].kind != HY3_P_ROUTER));
    check_spans(params);
    hy3_params_free(params);
}

static void factors_have_pefts_names_and_shapes(void **state)
{
    json_t *train = hy3_golden_json("a/train_lora_experts.json"), *name;
    struct hy3_params *params = golden_params(0, -1);
    struct hy3_lora lora = {.rank = 4, .alpha = 8};
    size_t i, count = 0;

    (void)state;
    for (int kind = HY3_P_GATE; kind <= HY3_P_EXPERT_DOWN; kind++)
        lora.targets[kind] = kind != HY3_P_ROUTER && kind != HY3_P_ROUTER_BIAS;
    assert_ok(hy3_params_add_adapter(params, &lora));
    assert_int_equal(hy3_params_trained(params),
                     json_integer_value(json_object_get(train, "trainable_parameters")));
    json_array_foreach(json_object_get(train, "trainable_names"), i, name)
    {
        char wanted[256]; /* without ".default" */
        const char *text = json_string_value(name), *at = strstr(text, ".default");

        snprintf(wanted, sizeof wanted, "%.*s%s", (int)(at - text), text, at + strlen(".default"));
        for (int j = params->base_count; j < params->count; j++)
            count += strcmp(params->params[j].name, wanted) == 0;
    }
    assert_int_equal(count, params->count - params->base_count);
    hy3_params_free(params);
    json_decref(train);
}

static void lora_target_offers_every_target_of_the_table(void **state)
{
    const char *help = hy3_option_find(hy3_options, "lora_target")->help;

    (void)state;
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (hy3_kinds[kind].target && !strstr(help, hy3_kinds[kind].target))
            fail_msg("'%s' is not in the help: %s", hy3_kinds[kind].target, help);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_names_are_those_of_the_reference),
        cmocka_unit_test(decay_is_that_of_the_reference),
        cmocka_unit_test(units_hold_every_parameter_once),
        cmocka_unit_test(every_kind_is_found_where_it_is),
        cmocka_unit_test(a_share_of_the_experts_is_a_range),
        cmocka_unit_test(models_without_experts_or_shared_experts_have_none),
        cmocka_unit_test(what_is_frozen_has_no_gradient_memory),
        cmocka_unit_test(chosen_layers_are_those_of_the_rule),
        cmocka_unit_test(a_frozen_router_alone_is_not_trained),
        cmocka_unit_test(factors_have_pefts_names_and_shapes),
        cmocka_unit_test(lora_target_offers_every_target_of_the_table),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
