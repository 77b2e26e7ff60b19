/* SPDX-License-Identifier: Apache-2.0 */
/* A base in 8 bits (parallel/packed.h) is what its files say, however it is divided: gathered, its
 * units have the bits of the same weights expanded or quantized on one rank alone. */
#include "ckpt/fixture.h"
#include "support/golden.h"

struct division {
    int stage, group;
    double offload; /* share of the weights in host memory */
    bool whole_experts;
    int64_t prefetch;
};

/* A store for the frozen model of `directory`, loaded. */
static void open_packed(struct model *m, MPI_Comm comm, const char *directory,
                        const struct division *d, hy3_dtype dtype, bool packs)
{
    const struct hy3_backend *backend;
    struct hy3_store_options options = {.dtype = dtype,
                                        .packs = packs,
                                        .zero_stage = d->stage,
                                        .whole_experts = d->whole_experts,
                                        .offload = {.ratio = d->offload},
                                        .prefetch = d->prefetch};
    char path[HY3_PATH_MAX];
    int64_t held;

    snprintf(path, sizeof path, "%s/config.json", directory);
    assert_ok(hy3_shape_open(path, &m->shape));
    assert_ok(hy3_layout_open(comm, d->group, m->shape.experts, 0, 1, &m->layout));
    held = m->shape.experts / d->group;
    assert_ok(hy3_params_create(&m->shape, m->layout.experts.rank * held, held, &m->params));
    hy3_params_train(m->params, HY3_TRAIN_NOTHING, NULL);
    assert_ok(hy3_hf_dir_open(directory, &m->dir));
    assert_ok(hy3_backend_open(comm, "cpu", &backend));
    assert_ok(hy3_store_open(backend, &m->layout, m->params, &options, &m->store));
    assert_ok(hy3_hf_load(comm, m->dir, m->store, NULL));
}

/* Whether the gathered unit has the values of the same tensors in `whole`, a store of one rank. */
static bool unit_is_same(const struct model *m, const struct model *whole, int unit)
{
    const struct hy3_unit *u = &m->params->unit[unit];
    size_t size = hy3_dtype_size(hy3_store_dtype(m->store));
    bool same = true;

    assert_ok(hy3_store_gather(m->store, NULL, unit));
    assert_ok(hy3_store_gather(whole->store, NULL, unit));
    for (int i = u->first; i < u->end; i++) {
        const struct hy3_param *p = &m->params->params[i], *q = &whole->params->params[i];
        const char *got = hy3_store_weight(m->store, p), *want = hy3_store_weight(whole->store, q);

        if (p->unit == unit && memcmp(got, want + (size_t)p->first * size,
                                      (size_t)p->held * (u->wide ? 4 : size)) != 0) {
            printf("# %s differs\n", p->name);
            same = false;
        }
    }
    hy3_store_release(m->store, unit);
    hy3_store_release(whole->store, unit);
    return same;
}

/* Each division, twice gathered, against one rank with `packs`. */
static void check_divisions(const char *directory, bool packs, hy3_dtype dtype)
{
    static const struct division divisions[] = {{.stage = 0},
                                                {.stage = 1},
                                                {.stage = 3},
                                                {.stage = 3, .prefetch = 100000},
                                                {.stage = 3, .offload = 1},
                                                {.stage = 3, .offload = 0.4},
                                                {.stage = 3, .whole_experts = true}};
    const struct division alone = {.group = 1};
    int size = hy3_size(MPI_COMM_WORLD);
    struct model whole;
    bool same = true;

    open_packed(&whole, MPI_COMM_SELF, directory, &alone, dtype, packs);
    for (int group = 1; group <= size; group++)
        for (size_t i = 0; i < sizeof divisions / sizeof *divisions; i++) {
            struct division d = divisions[i];
            struct model m;

            d.group = group;
            if (size % group != 0 || whole.shape.experts % group != 0)
                continue;
            open_packed(&m, MPI_COMM_WORLD, directory, &d, dtype, true);
            for (int u = 0; u < 2 * m.params->units; u++)
                same = unit_is_same(&m, &whole, u % m.params->units) && same;
            model_close(&m);
        }
    model_close(&whole);
    assert_all(same);
}

static void codes_of_a_file_are_gathered_as_it_expands(void **state)
{
    (void)state;
    check_divisions(hy3_golden("fp8/mixed"), false, HY3_BF16);
    check_divisions(hy3_golden("fp8/mixed"), false, HY3_FP32);
    check_divisions(hy3_golden("fp8/block"), false, HY3_BF16);
}

static void quantized_weights_do_not_depend_on_the_ranks(void **state)
{
    (void)state;
    check_divisions(hy3_golden("a/inner"), true, HY3_BF16);
}

/* Their relative error is that of a rounding to 3 bits of fraction: at most 1/16, in the mean
 * 1/40. */
static void quantized_weights_are_near(void **state)
{
    const struct division alone = {.group = 1};
    struct model packed, plain;
    double errors = 0, values = 0;

    (void)state;
    open_packed(&packed, MPI_COMM_SELF, hy3_golden("a/inner"), &alone, HY3_BF16, true);
    open_packed(&plain, MPI_COMM_SELF, hy3_golden("a/inner"), &alone, HY3_BF16, false);
    for (int i = 0; i < plain.params->count; i++) {
        const struct hy3_param *p = &plain.params->params[i], *q = &packed.params->params[i];
        struct hy3_span all = {0, p->count};
        float *x, *y;

        assert_ok(hy3_alloc(&x, (size_t)p->count, sizeof *x));
        assert_ok(hy3_alloc(&y, (size_t)p->count, sizeof *y));
        assert_ok(hy3_store_get(plain.store, p, all, x));
        assert_ok(hy3_store_get(packed.store, q, all, y));
        if (!hy3_store_packed(packed.store, q))
            assert_memory_equal(x, y, (size_t)p->count * sizeof *x);
        for (int64_t j = 0; hy3_store_packed(packed.store, q) && j < p->count; j++) {
            errors += ((double)x[j] - y[j]) * ((double)x[j] - y[j]);
            values += (double)x[j] * x[j];
        }
        hy3_free(x);
        hy3_free(y);
    }
    assert_true(values > 0 && errors / values > 0.01 * 0.01 && errors / values < 0.04 * 0.04);
    model_close(&packed);
    model_close(&plain);
}

/* 8 bits take half of bf16's memory, but for the scales and what stays. */
static void memory_halves(void **state)
{
    const struct division d = {.stage = 3, .group = 1};
    struct model packed, plain;
    double units = 0, bytes;

    (void)state;
    open_packed(&packed, MPI_COMM_WORLD, hy3_golden("fp8/block"), &d, HY3_BF16, true);
    open_packed(&plain, MPI_COMM_WORLD, hy3_golden("fp8/block"), &d, HY3_BF16, false);
    for (int i = 0; i < plain.params->count; i++)
        if (hy3_store_packed(packed.store, &packed.params->params[i]))
            units += (double)hy3_store_kept(plain.store, &plain.params->params[i]).count;
    bytes = (double)hy3_store_memory(plain.store).weights -
            (double)hy3_store_memory(packed.store).weights;
    assert_all(bytes > 0.8 * units && bytes <= 1.01 * units);
    model_close(&packed);
    model_close(&plain);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_of_a_file_are_gathered_as_it_expands),
        cmocka_unit_test(quantized_weights_do_not_depend_on_the_ranks),
        cmocka_unit_test(quantized_weights_are_near),
        cmocka_unit_test(memory_halves),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
