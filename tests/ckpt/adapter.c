/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.c - PEFT's files: golden ones come back bit for bit, damaged ones are refused by name. */
#include "ckpt/adapter/adapter.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/adapter/draw.h"
#include "ckpt/adapter/writer.h"
#include "comm/comm.h"
#include "support/golden.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

/* All factors of an adapter in host memory, in the order of our table. */
struct values {
    const struct hy3_params *params;
    float *data[128]; /* by place behind the model's parameters */
};

static float *at(const struct values *v, const struct hy3_param *p)
{
    return v->data[p - v->params->params - v->params->base_count];
}

static hy3_status put(void *of, enum hy3_field field, const struct hy3_param *p,
                      struct hy3_span span, const float *in)
{
    assert_int_equal(field, HY3_MASTER);
    memcpy(at(of, p) + span.first, in, (size_t)span.count * sizeof *in);
    return HY3_OK;
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *p,
                      struct hy3_span span, float *out)
{
    assert_int_equal(field, HY3_MASTER);
    memcpy(out, at(of, p) + span.first, (size_t)span.count * sizeof *out);
    return HY3_OK;
}

static struct hy3_span share(void *of, const struct hy3_param *p)
{
    (void)of;
    return hy3_span_share(p->count, hy3_rank(MPI_COMM_WORLD), hy3_size(MPI_COMM_WORLD));
}

static struct hy3_values values_of(struct values *v)
{
    return (struct hy3_values){.of = v, .get = get, .put = put, .share = share};
}

static struct hy3_params *model(void)
{
    struct hy3_shape shape;
    struct hy3_params *params;

    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    return params;
}

static void allocate(struct values *v, const struct hy3_params *params)
{
    *v = (struct values){.params = params};
    for (int i = params->base_count; i < params->count; i++)
        assert_ok(hy3_alloc(&v->data[i - params->base_count], (size_t)params->params[i].count,
                            sizeof(float)));
}

static void release(struct values *v)
{
    for (int i = 0; i < 128; i++)
        hy3_free(v->data[i]);
}

static void same_tensors(const char *a, const char *b)
{
    struct hy3_shard *x, *y;

    assert_ok(hy3_shard_open(a, &x));
    assert_ok(hy3_shard_open(b, &y));
    assert_int_equal(hy3_shard_count(x), hy3_shard_count(y));
    for (int i = 0; i < hy3_shard_count(x); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(x, i);
        const struct hy3_shard_tensor *u = hy3_shard_find(y, t->name);
        float *p, *q;
        int64_t n;

        assert_true(u && u->dims == 2 && u->shape[0] == t->shape[0] && u->shape[1] == t->shape[1]);
        p = hy3_golden_floats(x, t->name, &n);
        q = hy3_golden_floats(y, t->name, NULL);
        assert_memory_equal(p, q, (size_t)n * sizeof *p);
        hy3_free(p);
        hy3_free(q);
    }
    hy3_shard_close(x);
    hy3_shard_close(y);
}

/* Reads a golden adapter and writes it again. */
static void copy(const char *name)
{
    char from[HY3_PATH_MAX], file[HY3_PATH_MAX], to[HY3_PATH_MAX], written[HY3_PATH_MAX + 32];
    struct hy3_params *params = model();
    struct hy3_adapter *adapter;
    struct values v;
    json_t *ours, *theirs;

    snprintf(from, sizeof from, "%s", hy3_golden(name));
    snprintf(to, sizeof to, "%s/copy", hy3_test_directory());
    assert_ok(hy3_adapter_open(from, params, &adapter));
    assert_ok(hy3_params_add_adapter(params, hy3_adapter_lora(adapter)));
    allocate(&v, params);
    assert_ok(hy3_adapter_load(adapter, params, values_of(&v)));
    assert_ok(hy3_adapter_write(MPI_COMM_WORLD,
                                &(struct hy3_adapter_writer){.output = to, .base_path = "inner"},
                                params, values_of(&v)));
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        snprintf(file, sizeof file, "%.900s/adapter_model.safetensors", from);
        snprintf(written, sizeof written, "%.900s/adapter_model.safetensors", to);
        same_tensors(file, written);
        snprintf(file, sizeof file, "%.900s/adapter_config.json", from);
        snprintf(written, sizeof written, "%.900s/adapter_config.json", to);
        assert_ok(hy3_json_read(file, 1 << 20, &theirs));
        assert_ok(hy3_json_read(written, 1 << 20, &ours));
        for (const char *const *key = (const char *const[]){"r", "lora_alpha", "target_modules",
                                                            "target_parameters", "peft_type", NULL};
             *key; key++)
            assert_true(json_equal(json_object_get(ours, *key), json_object_get(theirs, *key)));
        json_decref(ours);
        json_decref(theirs);
    }
    hy3_adapter_close(adapter);
    release(&v);
    hy3_params_free(params);
}

static void golden_adapters_come_back_bit_for_bit(void **state)
{
    (void)state;
    copy("a/adapter/final");
    copy("a/adapter_experts/final");
}

static void a_new_adapter_is_drawn_as_peft_draws_it(void **state)
{
    struct hy3_params *params = model();
    struct hy3_lora lora = {.rank = 3, .alpha = 6};
    struct values v;

    (void)state;
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        lora.targets[kind] = kind != HY3_P_ROUTER;
    lora.targets[HY3_P_EMBED] = lora.targets[HY3_P_HEAD] = false;
    assert_ok(hy3_params_add_adapter(params, &lora));
    allocate(&v, params);
    assert_ok(hy3_adapter_draw(params, 7, values_of(&v)));
    for (int i = params->base_count; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];
        double bound = 1 / sqrt((double)p->shape[p->dims - 1]), sum = 0, squares = 0;

        for (int64_t j = 0; j < p->count; j++) {
            double x = at(&v, p)[j];

            assert_true(fabs(x) <= bound && (p->part == HY3_LORA_A || x == 0));
            sum += x;
            squares += x * x;
        }
        if (p->part != HY3_LORA_A)
            continue;
        assert_true(fabs(sum / (double)p->count) < bound * 4 / sqrt(3.0 * (double)p->count));
        assert_true(fabs(sqrt(3 * squares / (double)p->count) / bound - 1) <
                    3 / sqrt((double)p->count));
    }
    release(&v);
    hy3_params_free(params);
}

/* Copies a golden adapter and changes its configuration or one run of bytes in its file. */
static void damage(const char *key, json_t *value, const char *old, const char *new)
{
    char path[HY3_PATH_MAX + 32], *text;
    const char *directory = hy3_test_directory();
    size_t size;
    json_t *config = hy3_golden_json("a/adapter_experts/final/adapter_config.json");

    if (key)
        json_object_set_new(config, key, value);
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    assert_ok(hy3_json_write(path, config));
    json_decref(config);
    assert_ok(hy3_file_read(hy3_golden("a/adapter_experts/final/adapter_model.safetensors"),
                            1 << 20, &text, &size));
    if (old) {
        char *found = memmem(text, size, old, strlen(old));

        assert_non_null(found);
        assert_int_equal(strlen(old), strlen(new));
        memcpy(found, new, strlen(new));
    }
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", directory);
    assert_ok(hy3_output_replace(path, text, size));
    hy3_free(text);
}

static hy3_status load(void)
{
    struct hy3_params *params = model();
    struct hy3_adapter *adapter;
    hy3_status status = hy3_adapter_open(hy3_test_directory(), params, &adapter);
    struct values v = {0};

    if (status == HY3_OK) {
        assert_ok(hy3_params_add_adapter(params, hy3_adapter_lora(adapter)));
        allocate(&v, params);
        status = hy3_adapter_load(adapter, params, values_of(&v));
        release(&v);
    }
    hy3_adapter_close(adapter);
    hy3_params_free(params);
    return status;
}

static void adapters_that_do_not_fit_are_refused_by_name(void **state)
{
    (void)state;
    if (hy3_rank(MPI_COMM_WORLD) != 0)
        return;
    damage(NULL, NULL, NULL, NULL);
    assert_ok(load());
    damage("peft_type", json_string("IA3"), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'peft_type'", load());
    damage("use_dora", json_true(), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'use_dora' is set", load());
    damage("rank_pattern", json_pack("{s:i}", "q_proj", 3), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'rank_pattern' is set", load());
    damage("init_lora_weights", json_string("pissa"), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'init_lora_weights' is \"pissa\"", load());
    damage("init_lora_weights", json_string("gaussian"), NULL, NULL);
    assert_ok(load());
    damage("layers_to_transform", json_pack("[i]", 1), NULL, NULL);
    assert_fails(HY3_EFORMAT, "which adapter_config.json leaves out", load());
    damage("alpha_pattern", json_pack("{s:i}", "up_proj", 3), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'alpha_pattern' is set", load());
    damage("bias", json_string("all"), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'bias'", load());
    damage("r", json_integer(5), NULL, NULL);
    assert_fails(HY3_EFORMAT, "for this model and r = 5", load());
    damage("r", json_null(), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'r'", load());
    damage("lora_alpha", json_integer(0), NULL, NULL);
    assert_fails(HY3_EFORMAT, "'lora_alpha'", load());
    damage(NULL, NULL, "layers.0.mlp.up_proj.lora_A", "layers.0.mlp.up_proj.lora_C");
    assert_fails(HY3_EFORMAT, "up_proj.lora_C.weight' belongs to no matrix", load());
    damage(NULL, NULL, "layers.2.mlp.shared_experts.up_proj.lora_A",
           "layers.9.mlp.shared_experts.up_proj.lora_A");
    assert_fails(HY3_EFORMAT, "layers.9.mlp.shared_experts.up_proj.lora_A.weight", load());
    damage(NULL, NULL, "layers.2.mlp.experts.lora_B", "layers.1.mlp.experts.lora_B");
    assert_int_equal(load(), HY3_EFORMAT);
    damage(NULL, NULL, "[48,32]", "[32,48]");
    assert_fails(HY3_EFORMAT, "must be [48, 32]", load());
}

static void a_value_that_is_not_finite_is_named(void **state)
{
    char path[HY3_PATH_MAX + 32];
    struct hy3_shard *shard;
    const float bad = NAN;
    int64_t place;
    int fd;

    (void)state;
    if (hy3_rank(MPI_COMM_WORLD) != 0)
        return;
    damage(NULL, NULL, NULL, NULL);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", hy3_test_directory());
    assert_ok(hy3_shard_open(path, &shard));
    place =
        hy3_shard_find(shard, "base_model.model.model.layers.1.mlp.experts.lora_B.weight")->begin;
    hy3_shard_close(shard);
    assert_true((fd = open(path, O_WRONLY)) >= 0);
    assert_ok(hy3_file_write_at(fd, &bad, sizeof bad, place + 12, path));
    close(fd);
    assert_fails(HY3_EFORMAT,
                 "element 3 of tensor 'base_model.model.model.layers.1.mlp.experts.lora_B", load());
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_adapters_come_back_bit_for_bit),
        cmocka_unit_test(a_new_adapter_is_drawn_as_peft_draws_it),
        cmocka_unit_test(adapters_that_do_not_fit_are_refused_by_name),
        cmocka_unit_test(a_value_that_is_not_finite_is_named),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
