/* SPDX-License-Identifier: Apache-2.0 */
/* dims.h - the sizes that the kernels are tested with. */
#pragma once

#include "base/dtype.h"

/* What a case is run with. */
struct dims {
    int64_t T, H, heads, kv_heads, D, I, E, k, V, S;
    int64_t starts[5]; /* of samples, starts[S] = T */
    hy3_dtype dtype;
};

/* clang-format off */
static const struct dims all_dims[] = {
    /* T     H  heads kv    D   I   E   k      V  S  starts */
    {    0,      8,  2,  1,    4,   5,   3,   2,      7,  0, {0}, HY3_FP32},
    {    1,      1,  1,  1,    2,   1,   1,   1,      1,  1, {0, 1}, HY3_FP32},
    {    7,     40,  4,  2,   16,  24,   8,   2,     33,  2, {0, 3, 7}, HY3_FP32},
    {  201,     67,  6,  3,   34,  95,   5,   3,   1500,  4, {0, 130, 131, 131, 201}, HY3_FP32},
    {   64,    128,  2,  2,   64,  80,   4,   4,   1024,  1, {0, 64}, HY3_FP32},
    {  150,     64,  4,  2,  128,  16,   8,   8,     40,  3, {0, 1, 80, 150}, HY3_FP32},
    /* several tiles of attention, several steps in each */
    {  333,     16,  2,  1,  128,   8,   3,   2,      9,  2, {0, 40, 333}, HY3_FP32},
    {  270,     16,  2,  1,   64,   8,   3,   2,      9,  1, {0, 270}, HY3_FP32},
    /* long rows of logits, many experts */
    {    6,     72,  3,  3,  128,  16,  70,  10,  16420,  1, {0, 6}, HY3_FP32},
    /* rows longer than what a block takes at once, or keeps of them */
    {    3,  12304,  2,  1,   72,   6,   3,   2,      9,  1, {0, 3}, HY3_FP32},
};
/* clang-format on */
