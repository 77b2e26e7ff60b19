/* SPDX-License-Identifier: Apache-2.0 */
/* sample.h - one line of text to one sample: parsed, rendered, encoded, labelled, truncated; or the
 * reason why it is rejected. */
#pragma once

#include "data/dataset_options.h"
#include "text/tokenizer.h"

#include <jansson.h>

struct hy3_sampler; /* opaque: a tokenizer and its buffers; for one thread */

struct hy3_encoded { /* arrays borrowed until the next line */
    size_t length;   /* tokens; 0: the line is blank, or it is dropped */
    size_t labels;   /* label tokens, without the first token of the sample: nothing predicts it */
    bool is_truncated;
    const int32_t *ids;
    const uint8_t *mask;
    const float *weights; /* of the losses, 0: no label; NULL: that of every label is 1 */
    size_t weighted;      /* labels whose weight is not 1 */
    const char *dropped;  /* why the sample is dropped; NULL: it is not */
    json_t *unread;       /* keys of the line that were not read, see hy3_conversation_unread */
    int64_t null_contents;
};

/* Local. Of the options max_seq_length, truncation, keep_unlabelled, content_tokens and reading are
 * read.
 * `tokenizer` is kept until hy3_sampler_free. The caller owns *out. */
hy3_status hy3_sampler_create(struct hy3_tokenizer *tokenizer,
                              const struct hy3_dataset_options *options, struct hy3_sampler **out);
void hy3_sampler_free(struct hy3_sampler *sampler);

/* The form of the lines that follow, copied; NULL, and at first: lines of "messages". */
void hy3_sampler_set_form(struct hy3_sampler *sampler, const struct hy3_form *form);

/* Local. size -1: a line too long to be read. Errors: HY3_EFORMAT, a text without file and line;
 * HY3_ENOMEM. */
hy3_status hy3_sampler_encode(struct hy3_sampler *sampler, const char *line, int64_t size,
                              struct hy3_encoded *out);

struct hy3_sample { /* without its ids and mask */
    int64_t line;   /* in its portion, from 0 */
    int64_t length, labels, is_truncated, null_contents, weighted;
    uint64_t checksum, weight_checksum;
};

struct hy3_reject { /* a rejected line */
    int64_t line;   /* in its portion, from 0 */
    bool is_bad;    /* else dropped */
    char reason[503];
};

/* Fills *out; a reason that is too long is truncated between characters. */
void hy3_sample_reject(int64_t line, bool is_bad, const char *reason, struct hy3_reject *out);

/* 64-bit xxh3 of the ids and the mask, as they stand in the file. */
uint64_t hy3_sample_checksum(const void *ids, const uint8_t *mask, size_t length);

enum { HY3_NO_WEIGHTS = 1 }; /* in the place of the checksum: all weights of the sample are 1 */

/* The same of the weights; neither 0, which zeroed blocks of a disk hold, nor HY3_NO_WEIGHTS. */
uint64_t hy3_sample_weight_checksum(const float *weights, size_t length);
