/* SPDX-License-Identifier: Apache-2.0 */
/* links.h - what the GPUs of a run and the links between them achieve, measured at its start. */
#pragma once

#include "app/loaded_model.h"

/* Collective. On GPUs of several ranks: prints device, library, layout and the bytes per second of
 * each group, from 0.2 s of its own collective, and warns of a link at a tenth of what its kind
 * reaches, with the likely reason. The memory for it is given back. zero_stage: for the line of the
 * layout. Errors: HY3_EDEVICE, HY3_ENOMEM. */
hy3_status hy3_links_test(const struct hy3_loaded_model *model, int zero_stage);
