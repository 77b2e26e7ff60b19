/* SPDX-License-Identifier: Apache-2.0 */
/* parts.h - what the files of the dry backend share. */
#pragma once

#include "backend/kernels.h"

/* Kernels that compute nothing and take their time on the timeline. */
extern const struct hy3_kernels hy3_dry_kernels;

/* Whether the memory is the host's: allocated as such, or not by this backend. */
bool hy3_dry_is_host(const void *memory);
