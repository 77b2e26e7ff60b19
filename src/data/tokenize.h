/* SPDX-License-Identifier: Apache-2.0 */
/* tokenize.h - JSONL lines to samples, shared by all ranks.
 *
 * Every rank keeps the samples of its pieces in spools (spool.h); in memory are the counts of each
 * portion. The samples and their order depend on the files alone: with max_samples the data ends
 * behind the line of the last sample. */
#pragma once

#include "base/span.h"
#include "data/dataset_options.h"
#include "data/portions.h"
#include "data/sample.h"

enum { HY3_BAD_LISTED = 20 }; /* bad lines named in an error message */

struct hy3_tokenized; /* opaque: this rank's samples, and the counts of all portions */

/* Collective on `comm`. Fills *summary (all but seconds and reused). Bad lines and an empty
 * result are the caller's matter. Ends early, is_complete false, when more than
 * max_bad_samples lines and at least HY3_BAD_LISTED are bad.
 * Errors: HY3_EIO, HY3_ENOMEM, HY3_EFORMAT (tokenizer). The caller owns *out
 * (hy3_tokenized_free). */
hy3_status hy3_tokenize(MPI_Comm comm, const struct hy3_dataset_options *options,
                        const struct hy3_source *sources, struct hy3_tokenizer *tokenizer,
                        struct hy3_tokenized **out, struct hy3_dataset_summary *summary,
                        bool *is_complete);
void hy3_tokenized_free(struct hy3_tokenized *tokenized);

int64_t hy3_tokenized_portions(const struct hy3_tokenized *tokenized);
const struct hy3_portion_counts *hy3_tokenized_counts(const struct hy3_tokenized *tokenized,
                                                      int64_t p);
int hy3_tokenized_owner(const struct hy3_tokenized *tokenized, int64_t p); /* a rank */
bool hy3_tokenized_is_mine(const struct hy3_tokenized *tokenized, int64_t p);
int hy3_tokenized_file(const struct hy3_tokenized *tokenized, int64_t p);
const struct hy3_source *hy3_tokenized_source(const struct hy3_tokenized *tokenized, int64_t p);

/* Local. Elements of a portion of this rank. */
hy3_status hy3_tokenized_ids(const struct hy3_tokenized *tokenized, int64_t p, struct hy3_span span,
                             uint32_t *out);
hy3_status hy3_tokenized_mask(const struct hy3_tokenized *tokenized, int64_t p,
                              struct hy3_span span, uint8_t *out);
/* 0 where there is no label. */
hy3_status hy3_tokenized_weights(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, float *out);
hy3_status hy3_tokenized_samples(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, struct hy3_sample *out);
hy3_status hy3_tokenized_rejects(const struct hy3_tokenized *tokenized, int64_t p,
                                 struct hy3_span span, struct hy3_reject *out);

/* The source fingerprint: sizes of all files and bytes of the first `hashed` portions, those
 * that were needed. */
int64_t hy3_tokenized_hashed(const struct hy3_tokenized *tokenized);
uint64_t hy3_tokenized_fingerprint(const struct hy3_tokenized *tokenized);
