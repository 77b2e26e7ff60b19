/* SPDX-License-Identifier: Apache-2.0 */
/* generate.h - the next token of a text: forward passes over new tokens only, with cached keys and
 * values.
 *
 * One sample at a time on one rank. Layers run the same chain as in training (engine/chain.h). */
#pragma once

#include "parallel/store.h"

struct hy3_generator; /* opaque */

/* Local. For texts of at most max_tokens, prompt included. The store is kept until
 * hy3_generator_close. Errors: HY3_ENOMEM. */
hy3_status hy3_generator_open(const struct hy3_backend *backend, struct hy3_store *store,
                              int64_t max_tokens, struct hy3_generator **out);
void hy3_generator_close(struct hy3_generator *generator);

/* Local. Appends `count` tokens (1 or more) to the text; *logits [V] for the token after them,
 * HOST, borrowed until the next call. Errors: HY3_EUSAGE when the text grows beyond max_tokens. */
hy3_status hy3_generator_feed(struct hy3_generator *generator, const int32_t *ids, int64_t count,
                              const float **logits);

/* Forgets the text. */
void hy3_generator_reset(struct hy3_generator *generator);

/* A token from logits [V]: the largest for temperature 0 (ties: the smaller id), else drawn from
 * softmax(logits / temperature) with the random number of (seed, place). */
int32_t hy3_sample_token(const float *logits, int64_t V, double temperature, uint64_t seed,
                         uint64_t place);
