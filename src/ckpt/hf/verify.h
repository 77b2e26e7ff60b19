/* SPDX-License-Identifier: Apache-2.0 */
/* verify.h - compares the files of a directory with its checksums.json, and with a list of SHA-256
 * that a user gives. */
#pragma once

#include "ckpt/hf/safetensors.h"

#include <jansson.h>

struct hy3_verify {
    const char *directory;
    json_t *sums;     /* the files of checksums.json (hf/checksums.h); NULL: there is none */
    json_t *list;     /* those of the user's list; NULL: none was given */
    const char *path; /* of the list */
    /* a finding, "FILE: what is wrong" */
    void (*tell)(void *context, const char *text);
    void *context;
};

/* Local. Reads both. directory, path (NULL: no list), tell and context are set. A checksums.json of
 * another form is a finding, as if there were none. Errors: those of the list; HY3_ENOMEM. */
hy3_status hy3_verify_open(struct hy3_verify *v);
void hy3_verify_close(struct hy3_verify *v);

/* Local, on one rank. Each file that one of the two lists: whether it is there, its size and its
 * SHA-256; each file that the user's list lacks. Shards (*.safetensors) are read with `all` only,
 * and not those in `read`, an object of their names (NULL: none), which have been compared
 * (hf/examine.h). */
hy3_status hy3_verify_files(const struct hy3_verify *v, bool all, const json_t *read);

/* Local. Whether checksums.json and the header of a shard name the same tensors. */
void hy3_verify_names(const struct hy3_verify *v, const char *file, const struct hy3_shard *shard);

/* Local. Tells what hy3_examine_shard, or hy3_examine_tensor, found. `tensors` may be those of any
 * rank; file: 0 if the shard was not read as a whole. */
void hy3_verify_tell(const struct hy3_verify *v, const char *file, const struct hy3_shard *shard,
                     const int64_t *tensors, int64_t found);
