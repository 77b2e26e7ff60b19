/* SPDX-License-Identifier: Apache-2.0 */
/* writer.h - writes an adapter as PEFT's files, all ranks together. */
#pragma once

#include "ckpt/hf/writer.h"

struct hy3_adapter_writer {
    const char *output;              /* directory, created if need be */
    const char *base_path;           /* of the model it belongs to */
    const char *base_fingerprint;    /* of its values (hf/fingerprint.h); "": not known */
    const char *tokenizer_directory; /* its files are copied; NULL: none */
};

/* Collective on `comm`. Writes fp32 files that PEFT loads, by the writer of hf/writer.h and with
 * its promises. */
hy3_status hy3_adapter_write(MPI_Comm comm, const struct hy3_adapter_writer *options,
                             const struct hy3_params *params, struct hy3_values values);
