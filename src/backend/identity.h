/* SPDX-License-Identifier: Apache-2.0 */
/* identity.h - whether every rank has a GPU of its own. */
#pragma once

#include "backend/device.h"
#include "comm/comm.h"

/* Collective on `comm`; node: this node's part of it. Compares the devices of the ranks of each
 * node. Warns where a device is a slice or shared with other processes. Errors, on every rank:
 * HY3_EDEVICE, two ranks have the same device or slices of one. */
hy3_status hy3_identity_compare(MPI_Comm comm, MPI_Comm node, const struct hy3_device *device);
