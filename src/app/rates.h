/* SPDX-License-Identifier: Apache-2.0 */
/* rates.h - reads the rates of a kind of device. */
#pragma once

#include "backend/device.h"
#include "backend/dry/rates.h"
#include "base/file.h"

/* Local. The rates of etc/devices: `device` is a file, or a name ("h100") of one that is installed
 * or, for a program that is not, in its build tree; the environment's HY3_DATADIR takes the place
 * of both. Every key must be there. Errors: HY3_EUSAGE with all of them, HY3_EIO. */
hy3_status hy3_rates_read(const char *device, struct hy3_rates *rates);

/* Local. What hy3_rates_read is to read for a run on this device: `given` unless that is NULL, else
 * the file that is installed for a word of the GPU's name ("NVIDIA H100 80GB HBM3": h100.cfg), else
 * "". Errors: those of device->identify. */
hy3_status hy3_rates_name(const char *given, const struct hy3_device *device,
                          char name[HY3_PATH_MAX]);

/* Local. Whether hy3_rates_write may write that file: there is none, or one that it has written,
 * or `overwrite`. Errors: HY3_EUSAGE, HY3_EIO. */
hy3_status hy3_rates_may_write(const char *path, bool overwrite);

/* Local. Writes such a file, with `about` as a comment, whole or not at all. Errors: HY3_EIO. */
hy3_status hy3_rates_write(const char *path, const char *about, const struct hy3_rates *rates);
