/* SPDX-License-Identifier: Apache-2.0 */
/* scalar.h - what a scalar of YAML 1.1 means, with the wider floats of OmegaConf. */
#pragma once

#include "base/error.h"

/* A number: `real` always, `integer` where it is whole and fits. */
struct hy3_scalar_number {
    double real;
    int64_t integer;
    bool is_whole;
};

/* Whether the text, unquoted, is YAML's null: "", ~, null, Null, NULL. */
bool hy3_scalar_is_null(const char *text);

/* Whether the text is a truth value: true, yes, on, 1 and false, no, off, 0, in lower case, in
 * upper case or capitalized. */
bool hy3_scalar_truth(const char *text, bool *truth);

/* Whether the text is a number: 1e-5, .1, +0.5, 1_000; is_yaml: also 0x10, 0b11 and 017 (= 15),
 * else a zero in front means nothing. Infinity and NaN are none. */
bool hy3_scalar_number(const char *text, bool is_yaml, struct hy3_scalar_number *number);
