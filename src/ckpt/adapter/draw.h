/* SPDX-License-Identifier: Apache-2.0 */
/* draw.h - a new adapter of random weights. */
#pragma once

#include "model/values.h"

/* Local. As PEFT initializes it: A uniform in +-1/sqrt(in) (Kaiming with a = sqrt 5), B zero. An
 * element depends on the seed and its place alone. */
hy3_status hy3_adapter_draw(const struct hy3_params *params, uint64_t seed,
                            struct hy3_values values);
