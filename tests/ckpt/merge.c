/* SPDX-License-Identifier: Apache-2.0 */
/* merge.c - merged weights against the public script's in all dtypes: the same bits in 16, rounding
 * of a sum apart in 32. */
#include "ckpt/adapter/merge.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/golden.h"

#include <stdio.h>

/* The model of `prefix` "ADAPTER.DTYPE." merged by us against all tensors that the golden file has
 * of it. */
static void compare(const char *adapter, hy3_dtype dtype, double limit, int least)
{
    char directory[HY3_PATH_MAX], from[HY3_PATH_MAX], base[HY3_PATH_MAX], prefix[64];
    struct hy3_merge merge = {
        .base = base, .adapter = from, .output = directory, .dtype = dtype, .workers = 2};
    struct hy3_shard *golden, *ours;
    int compared = 0;

    snprintf(prefix, sizeof prefix, "%s.%s.", adapter, hy3_dtype_name(dtype));
    snprintf(directory, sizeof directory, "%s/%s", hy3_test_directory(), prefix);
    snprintf(base, sizeof base, "%s", hy3_golden("a/inner"));
    snprintf(from, sizeof from, "%s/%s/final", hy3_golden("a"), adapter);
    assert_ok(hy3_merge(MPI_COMM_WORLD, &merge));
    assert_ok(hy3_shard_open(hy3_golden("a/merged_selected.safetensors"), &golden));
    for (int s = 1; s <= 5; s++) {
        char path[HY3_PATH_MAX + 64];

        snprintf(path, sizeof path, "%s/model-%05d-of-00005.safetensors", directory, s);
        assert_ok(hy3_shard_open(path, &ours));
        for (int i = 0; i < hy3_shard_count(golden); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(golden, i);
            const char *name = t->name + strlen(prefix);
            float *a, *b;
            int64_t n;

            if (strncmp(t->name, prefix, strlen(prefix)) != 0 || !hy3_shard_find(ours, name))
                continue;
            assert_string_equal(hy3_shard_find(ours, name)->dtype_name, t->dtype_name);
            a = hy3_golden_floats(golden, t->name, &n);
            b = hy3_golden_floats(ours, name, NULL);
            hy3_assert_within(t->name, hy3_max_difference(a, b, n), limit);
            hy3_free(a);
            hy3_free(b);
            compared++;
        }
        hy3_shard_close(ours);
    }
    hy3_shard_close(golden);
    assert_true(compared >= least);
}

static void merged_weights_in_16_bits_are_equal(void **state)
{
    (void)state;
    compare("adapter", HY3_BF16, 0, 1);
    compare("adapter", HY3_FP16, 0, 1);
    compare("adapter_experts", HY3_BF16, 0, 1);
    compare("adapter_experts", HY3_FP16, 0, 1);
}

static void merged_weights_in_fp32_differ_by_the_order_of_a_sum(void **state)
{
    (void)state;
    compare("adapter", HY3_FP32, 6e-8, 2);
    compare("adapter_experts", HY3_FP32, 6e-8, 7);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_weights_in_16_bits_are_equal),
        cmocka_unit_test(merged_weights_in_fp32_differ_by_the_order_of_a_sum),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
