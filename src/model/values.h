/* SPDX-License-Identifier: Apache-2.0 */
/* values.h - one way to reach the values of tensors, whoever has them: the parameter store, the
 * optimizer, a state.h5, an adapter, the generator of random weights.
 *
 * Readers and writers of files are given this struct and know nothing of who stands behind it.
 * Functions that nobody will call may be NULL. All are local. */
#pragma once

#include "model/params.h"

/* What there is of a tensor, in fp32: the weight itself, and the two moments of Adam if it is
 * trained. */
enum hy3_field { HY3_MASTER, HY3_ADAM_M, HY3_ADAM_V, HY3_FIELDS };

struct hy3_values {
    void *of;
    /* Elements that share or kept gave; out and in are [span.count], host. */
    hy3_status (*get)(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out);
    /* Elements outside of kept are ignored. */
    hy3_status (*put)(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, const float *in);
    /* The elements that this rank writes: those of all ranks cover the tensor exactly once. */
    struct hy3_span (*share)(void *of, const struct hy3_param *param);
    /* The elements that this rank has to be given; those of several ranks may overlap. */
    struct hy3_span (*kept)(void *of, const struct hy3_param *param);
};
