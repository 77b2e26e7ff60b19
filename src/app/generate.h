/* SPDX-License-Identifier: Apache-2.0 */
/* generate.h - a model that answers conversations: template, tokens, generation, text. */
#ifndef HY3_APP_GENERATE_H
#define HY3_APP_GENERATE_H

#include "base/error.h"
#include "text/message.h"

#include <mpi.h>

#include <stdio.h>

struct hy3_answerer; /* opaque */

struct hy3_answer_options {
    const char *directory; /* a Hugging Face model directory with its tokenizer */
    const char *adapter;   /* a PEFT adapter directory; NULL: none */
    const char *device;
    int64_t max_new_tokens;
    double temperature; /* 0: greedy */
    uint64_t seed;
};

/* Collective on `comm`, which must have one rank. Loads the model in the precision its config.json
 * names (fp32, else bf16). The caller owns *out (hy3_answerer_close). */
hy3_status hy3_answerer_open(MPI_Comm comm, const struct hy3_answer_options *options,
                             struct hy3_answerer **out);
void hy3_answerer_close(struct hy3_answerer *answerer);

/* Local. Writes the assistant's next turn to `out`, token by token, then a line end; ends at the
 * end-of-turn token, at max_new_tokens or when the model's positions are used up. A trailing
 * assistant turn of the conversation is left out. */
hy3_status hy3_answer(struct hy3_answerer *answerer, struct hy3_conversation *conversation,
                      FILE *out);

#endif
