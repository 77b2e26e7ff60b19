/* SPDX-License-Identifier: Apache-2.0 */
/* budget.h - the work that cutting one text may take, in steps of about 10 ns, so that no pattern
 * and no added token of a tokenizer makes a line take quadratic time. */
#pragma once

#include "base/error.h"

struct hy3_budget {
    int64_t left; /* steps; negative: spent */
};

/* Published tokenizers take up to 20 steps a byte. */
static inline struct hy3_budget hy3_budget_of(size_t bytes)
{
    return (struct hy3_budget){20000000 + 100 * (int64_t)bytes};
}
