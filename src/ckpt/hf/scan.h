/* SPDX-License-Identifier: Apache-2.0 */
/* scan.h - what the values of a tensor are: all zero, finite, or not finite. */
#pragma once

#include "base/dtype.h"

/* The worst of several parts counts. */
enum hy3_content { HY3_ALL_ZERO, HY3_FINITE, HY3_NOT_FINITE };

/* Local. data: host, [count]. */
enum hy3_content hy3_scan(const void *data, hy3_dtype dtype, int64_t count);

/* Local. The place of the first NaN or infinity, -1: there is none. */
int64_t hy3_scan_not_finite(const void *data, hy3_dtype dtype, int64_t count);
