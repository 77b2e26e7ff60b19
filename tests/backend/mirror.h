/* SPDX-License-Identifier: Apache-2.0 */
/* mirror.h - a device's kernels for callers with host memory: tests whose cases are written once
 * for all tables. */
#pragma once

#include "backend/kernels.h"

/* Kernels that take host memory. Around each call all arrays added are copied to the device and
 * back; a field of the arguments that points into one points to its copy meanwhile. Other pointers
 * stay as they are. */
const struct hy3_kernels *hy3_mirror(const struct hy3_device *device,
                                     const struct hy3_kernels *kernels);
void hy3_mirror_add(void *data, size_t bytes);
void hy3_mirror_forget(void); /* all arrays */
