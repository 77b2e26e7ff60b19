/* SPDX-License-Identifier: Apache-2.0 */
/* generate.h - text from a model directory: template, tokens, generation, text. */
#pragma once

#include "base/error.h"

#include <mpi.h>

#include <stdio.h>

struct hy3_generate; /* opaque: a model and its tokenizer */

struct hy3_generate_options {
    const char *directory; /* a Hugging Face model directory with its tokenizer */
    const char *adapter;   /* a PEFT adapter directory; NULL: none */
    const char *device;
    int64_t max_new_tokens;
    double temperature; /* 0: greedy */
    uint64_t seed;
};

/* Collective on `comm`, which must have one rank. Loads the model in the precision its config.json
 * names (fp32, else bf16). The caller owns *out (hy3_generate_close). */
hy3_status hy3_generate_open(MPI_Comm comm, const struct hy3_generate_options *options,
                             struct hy3_generate **out);
void hy3_generate_close(struct hy3_generate *generate);

/* Local. Writes the assistant's turn after one user message to `out`, token by token, then a line
 * end; ends at the end-of-turn token, at max_new_tokens or when the model's positions are used
 * up. */
hy3_status hy3_generate_prompt(struct hy3_generate *generate, const char *prompt, FILE *out);

/* Local. The same for each conversation of a JSONL file; a trailing assistant turn is left out.
 * Errors: HY3_EFORMAT with file and line. */
hy3_status hy3_generate_file(struct hy3_generate *generate, const char *path, FILE *out);
