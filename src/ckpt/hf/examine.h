/* SPDX-License-Identifier: Apache-2.0 */
/* examine.h - reads tensors of a shard once: what their values are, and whether they are those of
 * checksums.json. */
#pragma once

#include "ckpt/hf/safetensors.h"

#include <jansson.h>

/* What was found of a tensor: the worst enum hy3_content of its values, and bits. */
enum {
    HY3_CONTENT = 3,    /* the bits of the content */
    HY3_CHANGED = 4,    /* not what checksums.json says */
    HY3_UNREADABLE = 8, /* what follows in the file neither */
    HY3_BAD_SCALE = 16, /* a scale (hf/scales.h) that is not above 0 */
};

/* What was found of the file. */
enum {
    HY3_FILE_CHANGED = 1, /* its SHA-256 is not that of checksums.json */
    HY3_FILE_OTHER = 2,   /* … not that of the user's list */
};

struct hy3_examine {
    const struct hy3_shard *shard;
    const json_t *entry;  /* of the shard in checksums.json; NULL: there is none */
    const json_t *listed; /* of the shard in the user's list; NULL: there is none */
    /* after each tensor or piece of it; NULL: nobody is told */
    void (*progress)(void *context, int64_t bytes);
    void *context;
};

/* Local. Reads one tensor. Errors: HY3_STOPPED, HY3_ENOMEM. */
hy3_status hy3_examine_tensor(const struct hy3_examine *e, const struct hy3_shard_tensor *tensor,
                              int64_t *found);

/* Local. Reads the whole file. tensors: [hy3_shard_count]. Errors as above. */
hy3_status hy3_examine_shard(const struct hy3_examine *e, int64_t *tensors, int64_t *file);
