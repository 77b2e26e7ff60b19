/* SPDX-License-Identifier: Apache-2.0 */
/* random_model.h - a random model that goes with a tokenizer. */
#pragma once

#include "ckpt/hf/init.h"

/* Collective on `comm`. hy3_init_write with the size and the special ids of options->tokenizer; the
 * options for them are not read. */
hy3_status hy3_random_model_write(MPI_Comm comm, const struct hy3_init_options *options);
