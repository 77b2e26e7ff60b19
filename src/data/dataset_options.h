/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_options.h - what a dataset is built from, and its counts. */
#pragma once

#include "text/form.h"

/* What a control token is that stands inside a text of a line. */
enum hy3_content_tokens { HY3_CONTENT_REJECT, HY3_CONTENT_TEXT, HY3_CONTENT_TOKEN };

/* What becomes of a sample that is too long: its end goes, its beginning, or all of it. */
enum hy3_truncation { HY3_TRUNCATE_RIGHT, HY3_TRUNCATE_LEFT, HY3_TRUNCATE_DELETE };

struct hy3_dataset_options {
    const char *const *files;     /* JSONL, in order */
    const struct hy3_form *forms; /* of each file; NULL: all have lines of "messages" */
    const int *sets;              /* of each file: the data set, ascending; NULL: each its own */
    const int64_t *limits;        /* of each file: samples of its set that must be there and count;
                                     0: max_samples; NULL: all 0 */
    int file_count;
    const char *tokenizer_directory;
    const char *cache_directory; /* where the HDF5 file and rejected.jsonl go */
    const char *name;            /* "train" or "eval": NAME.h5, NAME.rejected.jsonl */
    int64_t max_seq_length;
    enum hy3_truncation truncation;
    int64_t max_samples;     /* first n usable samples of each file, or set of files; 0: all */
    int64_t max_bad_samples; /* bad lines allowed */
    /* a sample without a label is kept, so that in file order every line keeps its place in its
     * step */
    bool keep_unlabelled;
    enum hy3_content_tokens content_tokens;
    struct hy3_reading reading;
    bool overwrite;  /* rebuild even if it is usable */
    bool only_looks; /* never build: no dataset where no file is there that was built of these */
    /* a file that is there is replaced by hy3_dataset_publish alone, when the new one was found
     * right */
    bool is_tentative;
    bool is_private; /* what is created is its owner's alone */
};

struct hy3_dataset_summary {
    int64_t lines, samples, tokens, label_tokens, longest, truncated, dropped, bad;
    int64_t weighted;      /* label tokens whose weight is not 1 */
    int64_t unlabelled;    /* samples that are kept without a label token */
    int64_t null_contents; /* messages of the samples whose content is null */
    char unread[1000];  /* the keys of the samples that were not read: "messages[].name (3 lines),
                              …" */
    int64_t bytes;      /* of the JSONL files */
    double seconds;     /* from opening to done */
    int64_t taken_over; /* pieces that a run which was ended had tokenized */
    bool reused;        /* an existing file was usable */
};
