/* SPDX-License-Identifier: Apache-2.0 */
/* training.h - a run of hy3_sft inside a test, and what it logged. */
#pragma once

#include "support/test.h"

enum { HY3_TEST_SETTINGS = 40 };

/* Collective on `comm`. A run with these key=value settings (NULL ends them) and output in `out`;
 * an earlier run there is overwritten. Its
 * status: a test may expect another than HY3_OK. */
hy3_status hy3_test_try_to_train(MPI_Comm comm, const char *out, const char *const *settings);

/* The same, which must succeed. */
void hy3_test_train(MPI_Comm comm, const char *out, const char *const *settings);

/* The sequence_parallel_size among settings (NULL ends them), or 1: each group of so many ranks
 * takes the samples of one. */
int hy3_test_shared_by(const char *const *settings);

/* Object number `step` (from 0) of out/train_log.jsonl; the caller json_decref's it. */
json_t *hy3_test_logged(const char *out, size_t step);

/* How far the gradients of the first step of two runs are apart, in shares of their size: by the
 * first moments of checkpoint-1. */
double hy3_test_distance(const char *a, const char *b);

/* Losses, gradient norms and evaluations of the steps of two runs, and the gradients of the first,
 * are the same within 2e-5. */
void hy3_test_same_steps(const char *a, const char *b, size_t steps);

double hy3_json_number(const json_t *object, const char *key);
