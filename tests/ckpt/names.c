/* SPDX-License-Identifier: Apache-2.0 */
/* names.c - inner and outer names map to each other, and the golden manifest is what the table and
 * the names give. */
#include "ckpt/hf/names.h"

#include "support/test.h"

static void check(const char *name, const char *outer, int layer, int64_t expert, int part,
                  bool is_inner, bool is_outer)
{
    struct hy3_name parsed;

    assert_true(hy3_name_parse(name, &parsed));
    assert_string_equal(parsed.outer, outer);
    assert_int_equal(parsed.layer, layer);
    assert_int_equal(parsed.expert, expert);
    assert_int_equal(parsed.part, part);
    assert_int_equal(parsed.is_inner, is_inner);
    assert_int_equal(parsed.is_outer, is_outer);
}

#define L7 "model.layers.7."

static void names_are_read(void **state)
{
    (void)state;
    check("model.norm.weight", "model.norm.weight", -1, -1, 0, false, false);
    check(L7 "self_attn.q_proj.weight", L7 "self_attn.q_proj.weight", 7, -1, 0, false, false);
    check(L7 "mlp.router.gate.weight", L7 "mlp.gate.weight", 7, -1, 0, true, false);
    check(L7 "mlp.gate.wg.weight", L7 "mlp.gate.weight", 7, -1, 0, true, false);
    check(L7 "mlp.gate.weight", L7 "mlp.gate.weight", 7, -1, 0, false, true);
    check(L7 "mlp.expert_bias", L7 "mlp.e_score_correction_bias", 7, -1, 0, true, false);
    check(L7 "mlp.shared_mlp.up_proj.weight", L7 "mlp.shared_experts.up_proj.weight", 7, -1, 0,
          true, false);
    check(L7 "mlp.experts.12.gate_proj.weight", L7 "mlp.experts.gate_up_proj", 7, 12, 0, true,
          false);
    check(L7 "mlp.experts.0.up_proj.weight", L7 "mlp.experts.gate_up_proj", 7, 0, 1, true, false);
    check(L7 "mlp.experts.3.down_proj.weight", L7 "mlp.experts.down_proj", 7, 3, 0, true, false);
    check(L7 "mlp.experts.down_proj", L7 "mlp.experts.down_proj", 7, -1, 0, false, true);
    check(L7 "eh_proj.weight", L7 "eh_proj.weight", 7, -1, 0, false, false);
}

static void names_that_only_look_alike_are_left_alone(void **state)
{
    static const char *const names[] = {"model.layers.7",
                                        "model.layers.07.mlp.expert_bias",
                                        "model.layers.-1.mlp.expert_bias",
                                        "model.layers.99999999999999999999.mlp.expert_bias",
                                        "model.layers..mlp.expert_bias",
                                        ""};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        check(names[i], names[i], -1, -1, 0, false, false);
    check(L7 "mlp.experts.01.down_proj.weight", L7 "mlp.experts.01.down_proj.weight", 7, -1, 0,
          false, false);
    check(L7 "mlp.experts.1.down_proj.bias", L7 "mlp.experts.1.down_proj.bias", 7, -1, 0, false,
          false);
}

static void a_name_too_long_is_refused(void **state)
{
    char name[200];
    struct hy3_name parsed;

    (void)state;
    memset(name, 'x', sizeof name);
    name[HY3_PARAM_NAME] = '\0';
    assert_false(hy3_name_parse(name, &parsed));
    name[HY3_PARAM_NAME - 1] = '\0';
    assert_true(hy3_name_parse(name, &parsed));
}

/* Pieces tile every parameter, and each piece's name leads back to its range. */
static void pieces_tile_every_parameter(void **state)
{
    struct hy3_shape shape;
    struct hy3_params *params;

    (void)state;
    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    for (int i = 0; i < params->count; i++)
        for (int names = HY3_INNER; names <= HY3_OUTER; names++) {
            const struct hy3_param *p = &params->params[i];
            int64_t pieces = hy3_name_pieces(p, &shape, (enum hy3_names)names), at = 0;

            for (int64_t j = 0; j < pieces; j++) {
                char name[HY3_PARAM_NAME];
                int64_t extents[3], product = 1;
                struct hy3_span span;
                struct hy3_place place;
                int dims;

                span = hy3_name_piece(p, &shape, (enum hy3_names)names, j, name, &dims, extents);
                for (int d = 0; d < dims; d++)
                    product *= extents[d];
                assert_int_equal(product, span.count);
                assert_int_equal(span.first, at);
                hy3_name_locate(params, name, &place);
                assert_ptr_equal(place.param, p);
                assert_int_equal(place.span.first, span.first);
                assert_int_equal(place.span.count, span.count);
                at += span.count;
            }
            assert_int_equal(at, p->count);
        }
    hy3_params_free(params);
}

/* The public converter's list holds every parameter under its outer name, and MTP tensors
 * besides. */
static void the_public_converter_gives_the_same_tensors(void **state)
{
    json_t *manifest = hy3_golden_json("a/outer_manifest.json"), *row;
    struct hy3_shape shape;
    struct hy3_params *params;
    int found = 0, mtp = 0;
    size_t i;

    (void)state;
    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    json_array_foreach(json_object_get(manifest, "tensors"), i, row)
    {
        const json_t *extents = json_object_get(row, "shape");
        struct hy3_place place;

        hy3_name_locate(params, json_string_value(json_object_get(row, "name")), &place);
        mtp += place.is_mtp;
        assert_true(place.param || place.is_mtp);
        if (!place.param)
            continue;
        found++;
        assert_int_equal(place.dims, json_array_size(extents));
        for (int d = 0; d < place.dims; d++)
            assert_int_equal(place.shape[d],
                             json_integer_value(json_array_get(extents, (size_t)d)));
    }
    assert_int_equal(found, params->count);
    assert_int_equal(mtp > 0, shape.mtp_layers > 0);
    hy3_params_free(params);
    json_decref(manifest);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_read),
        cmocka_unit_test(names_that_only_look_alike_are_left_alone),
        cmocka_unit_test(a_name_too_long_is_refused),
        cmocka_unit_test(pieces_tile_every_parameter),
        cmocka_unit_test(the_public_converter_gives_the_same_tensors),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
