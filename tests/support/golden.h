/* SPDX-License-Identifier: Apache-2.0 */
/* golden.h - tensors of the golden case, and comparison within its tolerances. */
#pragma once

#include "ckpt/hf/safetensors.h"
#include "support/test.h"

/* A whole float tensor as fp32 (count in *n if not NULL); the caller frees it. Fails the test if it
 * is not there. */
float *hy3_golden_floats(const struct hy3_shard *shard, const char *name, int64_t *n);

/* A whole I64 tensor; the caller frees it. */
int64_t *hy3_golden_ints(const struct hy3_shard *shard, const char *name, int64_t *n);

/* Largest |a - b| and mean |a - b|. NaN counts as infinite. */
double hy3_max_difference(const float *a, const float *b, int64_t n);
double hy3_mean_difference(const float *a, const float *b, int64_t n);

/* Fails, naming `what`, unless value <= limit. Prints value and limit either way when HY3_VERBOSE
 * is set. */
void hy3_assert_within(const char *what, double value, double limit);
