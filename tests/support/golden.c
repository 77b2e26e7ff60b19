/* SPDX-License-Identifier: Apache-2.0 */
/* golden.c - access to golden tensors. */
#include "support/golden.h"

#include "base/memory.h"

#include <math.h>

float *hy3_golden_floats(const struct hy3_shard *shard, const char *name, int64_t *n)
{
    const struct hy3_shard_tensor *tensor = hy3_shard_find(shard, name);
    float *data;

    if (!tensor || !tensor->is_float)
        fail_msg("no float tensor %s", name);
    assert_ok(hy3_alloc(&data, (size_t)tensor->count, sizeof *data));
    assert_ok(hy3_shard_read(shard, tensor, (struct hy3_span){0, tensor->count}, data, HY3_FP32));
    if (n)
        *n = tensor->count;
    return data;
}

int64_t *hy3_golden_ints(const struct hy3_shard *shard, const char *name, int64_t *n)
{
    const struct hy3_shard_tensor *tensor = hy3_shard_find(shard, name);
    int64_t *data;

    if (!tensor || strcmp(tensor->dtype_name, "I64") != 0)
        fail_msg("no I64 tensor %s", name);
    assert_ok(hy3_alloc(&data, (size_t)tensor->count, sizeof *data));
    assert_ok(hy3_shard_read_raw(shard, tensor, 0, tensor->bytes, data));
    if (n)
        *n = tensor->count;
    return data;
}

double hy3_max_difference(const float *a, const float *b, int64_t n)
{
    double worst = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        if (!(d <= worst))
            worst = isnan(d) ? (double)INFINITY : d;
    }
    return worst;
}

double hy3_mean_difference(const float *a, const float *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - (double)b[i]);
    return n > 0 ? sum / (double)n : 0;
}

void hy3_assert_within(const char *what, double value, double limit)
{
    if (getenv("HY3_VERBOSE"))
        fprintf(stderr, "# %s: %.3g (limit %.3g)\n", what, value, limit);
    if (!(value <= limit))
        fail_msg("%s: %.9g is above %.3g", what, value, limit);
}
