/* SPDX-License-Identifier: Apache-2.0 */
/* init.c - a random model is complete, loads, and depends on its seed alone. */
#include "ckpt/hf/init.h"

#include "ckpt/fixture.h"

#include <math.h>

static struct hy3_init_options options_for(const char *output, enum hy3_names names,
                                           hy3_dtype dtype)
{
    return (struct hy3_init_options){.shape = hy3_golden("shape_a.json"),
                                     .tokenizer = hy3_golden("a/tokenizer"),
                                     .output = output,
                                     .overwrite = true,
                                     .seed = 7,
                                     .names = names,
                                     .dtype = dtype,
                                     .max_shard_bytes = 150000,
                                     .tokenizer_size = 1960,
                                     .bos = 1912,
                                     .eos = 1937,
                                     .pad = 1914};
}

static bool same_models(const char *a, const char *b)
{
    struct hy3_hf_dir *dir;
    bool same = true;

    assert_ok(hy3_hf_dir_open(a, &dir));
    for (int i = 0; i < hy3_hf_dir_shards(dir); i++) {
        char x[HY3_PATH_MAX], y[HY3_PATH_MAX];

        snprintf(x, sizeof x, "%s/%s", a, hy3_hf_dir_shard_name(dir, i));
        snprintf(y, sizeof y, "%s/%s", b, hy3_hf_dir_shard_name(dir, i));
        same = same && same_file(x, y);
    }
    hy3_hf_dir_close(dir);
    return same;
}

static void the_seed_decides_every_byte_and_the_number_of_ranks_none(void **state)
{
    struct hy3_init_options all = options_for(scratch("all"), HY3_INNER, HY3_BF16);
    struct hy3_init_options alone = options_for(scratch("alone"), HY3_INNER, HY3_BF16);
    struct hy3_init_options other = options_for(scratch("other"), HY3_INNER, HY3_BF16);
    bool good = true;

    (void)state;
    other.seed = 8;
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &all));
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &other));
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        assert_ok(hy3_init_write(MPI_COMM_SELF, &alone));
        good = same_models(scratch("alone"), scratch("all")) &&
               !same_models(scratch("other"), scratch("all"));
    }
    assert_all(good);
}

/* Both layouts load with every tensor accounted for and hold the same numbers. */
static void both_layouts_load_with_the_same_values(void **state)
{
    struct hy3_init_options inner = options_for(scratch("inner"), HY3_INNER, HY3_FP32);
    struct hy3_init_options outer = options_for(scratch("outer"), HY3_OUTER, HY3_FP32);
    struct model a, b;
    bool same = true;

    (void)state;
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &inner));
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &outer));
    model_open(&a, MPI_COMM_WORLD, scratch("inner"), HY3_FP32);
    model_open(&b, MPI_COMM_WORLD, scratch("outer"), HY3_FP32);
    assert_all(a.shape.mtp_layers == 1);
    assert_all(hy3_hf_dir_names(b.dir) == HY3_OUTER);
    assert_ok(hy3_hf_load(MPI_COMM_WORLD, a.dir, a.store, NULL));
    assert_ok(hy3_hf_load(MPI_COMM_WORLD, b.dir, b.store, NULL));
    for (int i = 0; i < a.params->count; i++)
        same = same && memcmp(hy3_store_weight(a.store, &a.params->params[i]),
                              hy3_store_weight(b.store, &b.params->params[i]),
                              (size_t)a.params->params[i].count * sizeof(float)) == 0;
    assert_all(same);
    model_close(&a);
    model_close(&b);
}

static void weights_are_normal_and_norms_are_one(void **state)
{
    struct hy3_init_options options = options_for(scratch("values"), HY3_INNER, HY3_FP32);
    struct model m;

    (void)state;
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &options));
    model_open(&m, MPI_COMM_WORLD, scratch("values"), HY3_FP32);
    assert_ok(hy3_hf_load(MPI_COMM_WORLD, m.dir, m.store, NULL));
    for (int i = 0; i < m.params->count; i++) {
        const struct hy3_param *p = &m.params->params[i];
        const float *x = hy3_store_weight(m.store, p);
        double sum = 0, squares = 0, n = (double)p->count;

        for (int64_t j = 0; j < p->count; j++) {
            sum += x[j];
            squares += (double)x[j] * x[j];
        }
        if (p->unit < 0)
            assert_true(squares == 0);
        else if (!p->decay)
            assert_true(sum == n && squares == n);
        else {
            assert_true(fabs(sum / n) < 5 * 0.006 / sqrt(n));
            assert_true(fabs(sqrt(squares / n) / 0.006 - 1) < 4 / sqrt(2 * n));
        }
    }
    model_close(&m);
}

static void wrong_requests_are_refused(void **state)
{
    struct hy3_init_options options = options_for(scratch("refused"), HY3_INNER, HY3_BF16);

    (void)state;
    options.tokenizer_size = 1985;
    assert_all(hy3_init_write(MPI_COMM_WORLD, &options) == HY3_EFORMAT);
    assert_all(strstr(hy3_error_text(), "'vocab_size' is 1984") != NULL);
    assert_all(!hy3_path_exists(scratch("refused")));
    options = options_for(hy3_golden("a/inner"), HY3_INNER, HY3_BF16);
    options.overwrite = false;
    assert_all(hy3_init_write(MPI_COMM_WORLD, &options) == HY3_EUSAGE);
    assert_all(strstr(hy3_error_text(), "is not empty") != NULL);
    options = options_for(scratch("refused"), HY3_INNER, HY3_BF16);
    options.shape = "/no/such/shape.json";
    assert_all(hy3_init_write(MPI_COMM_WORLD, &options) == HY3_EIO);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_seed_decides_every_byte_and_the_number_of_ranks_none),
        cmocka_unit_test(both_layouts_load_with_the_same_values),
        cmocka_unit_test(weights_are_normal_and_norms_are_one),
        cmocka_unit_test(wrong_requests_are_refused),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
