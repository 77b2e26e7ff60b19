/* SPDX-License-Identifier: Apache-2.0 */
/* test.h - what every unit test includes: cmocka, TAP, several ranks, the golden case.
 *
 * On several ranks only rank 0 writes TAP, and every assertion is collective (assert_all): a rank
 * that left through longjmp would let the others hang. */
#pragma once

#include "base/error.h"
#include "base/json.h"

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <mpi.h>
#include <cmocka.h> /* needs the three above */
/* clang-format on */

/* Runs the tests on one rank without MPI being used by the test itself (MPI is initialised all the
 * same). */
int hy3_test_run(int *argc, char ***argv, const struct CMUnitTest *tests, size_t count);

/* Collective: fails on all ranks if `fact` is false on one of them. */
#define assert_all(fact) hy3_assert_all((fact), #fact, __FILE__, __LINE__)
void hy3_assert_all(bool fact, const char *text, const char *file, int line);

/* HY3_OK, or fails with the error text. */
#define assert_ok(call) hy3_assert_ok((call), #call, __FILE__, __LINE__)
void hy3_assert_ok(hy3_status status, const char *text, const char *file, int line);

/* The call fails with `code` and its error text contains `words`. */
#define assert_fails(code, words, call) \
    hy3_assert_fails((code), (words), (call), __FILE__, __LINE__)
void hy3_assert_fails(hy3_status code, const char *words, hy3_status status, const char *file,
                      int line);

/* The path of `name` below tests/golden/ of the source tree; static memory, valid until the fourth
 * call after. */
const char *hy3_golden(const char *name);

/* A JSON file of tests/golden/; the caller json_decref's it. Fails the test if it cannot be
 * read. */
json_t *hy3_golden_json(const char *name);

/* A fresh directory of this test (the same on all ranks), removed at the end of the program; its
 * path. Collective. */
const char *hy3_test_directory(void);

/* The emulated GPU becomes what device = "cuda" opens; false if it was not built (configure
 * --enable-cuda-emulation). A HY3_CUDA_MODULE in the environment stays what it is. */
bool hy3_test_gpu_module(void);
