/* SPDX-License-Identifier: Apache-2.0 */
/* reference.h - every kernel written in the plainest way, with fp64 sums: what the backends are
 * compared with. */
#pragma once

#include "backend/kernels.h"

extern const struct hy3_kernels hy3_reference_kernels;
