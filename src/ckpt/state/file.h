/* SPDX-License-Identifier: Apache-2.0 */
/* file.h - the HDF5 side of state.h5: what the file holds and where. Only one rank reads it; all
 * ranks read values at the offsets found here. The file is created by state/layout.h and written by
 * state/output.h.
 *
 *     /param/NAME, /adam_m/NAME, /adam_v/NAME
 *         fp32, global shapes, contiguous; NAME is the tensor's outer name
 *     /checksums
 *         uint64 [slabs,5]: field, tensor, first, count, XXH3 of these elements
 *     attributes of the root
 *         see hy3_state_attributes; configuration; complete: 1, set last
 *
 * Metadata has HDF5's own checksums (format of 1.8), and one of ours behind the end
 * (base/hdf5_seal.h).
 * doc/formats.md describes the file for readers other than hy3. */
#pragma once

#include "base/hdf5.h"
#include "model/values.h"

enum { HY3_STATE_VERSION = 3, HY3_STATE_CONFIGURATION_LIMIT = 60000, HY3_STATE_SLAB_COLUMNS = 5 };

enum { HY3_STATE_TEXT = 512 }; /* bytes of a text with its final NUL */

/* What the tensors belong to; all texts are "" in a file of an earlier version. */
struct hy3_state_identity {
    char fingerprint[HY3_STATE_TEXT]; /* of the base's shape and values, 16 digits */
    char base[HY3_STATE_TEXT];        /* its path then, for messages */
    char adapter[HY3_STATE_TEXT];     /* settings that are no tensors; "": no adapter */
};

/* What the evaluations so far have shown; zero in a file of version 1 or 2. */
struct hy3_state_best {
    int64_t evaluated;  /* step of the last evaluation, 0: none */
    int64_t step;       /* of the evaluation with the best metric, 0: none */
    double metric;      /* of that one */
    int64_t stale;      /* evaluations since the last improvement that counted */
    int64_t checkpoint; /* step of the best checkpoint, this one or an earlier one, 0: none */
    double checkpoint_metric;
    uint64_t data; /* fingerprint of the evaluation data */
};

/* What resuming needs besides tensors. */
struct hy3_state_info {
    int64_t step;         /* steps done */
    int64_t global_batch; /* samples of a step: the order of samples depends on it */
    int64_t seed, total_steps;
    int64_t tokens;                /* trained so far */
    int64_t data_samples;          /* of the training data */
    uint64_t data_fingerprint;     /* of the training data */
    double log_loss;               /* sum of losses since the last line of the log */
    int64_t log_steps, log_tokens; /* steps and tokens since then */
    double elapsed;                /* seconds of training so far */
    struct hy3_state_identity identity;
    struct hy3_state_best best;
};

/* Attributes of the root: one list for writing and reading, ended by a name of NULL. type: i, u, or
 * r, a real number, of 64 bits each; t, a text of at most HY3_STATE_TEXT, which may be missing. */
struct hy3_state_attribute {
    const char *name;
    size_t offset; /* in struct hy3_state_info */
    char type;
    int64_t since; /* the version that has it; 0: all */
};

extern const struct hy3_state_attribute hy3_state_attributes[];

hid_t hy3_state_memory_type(char type);

struct hy3_state_tensor {
    char name[HY3_PARAM_NAME];
    int64_t dims, shape[3], count;
    int64_t offset[HY3_FIELDS]; /* bytes in the file */
};

/* Consecutive elements of a tensor with one checksum: a row of /checksums. */
struct hy3_state_slab {
    uint64_t field, tensor, first, count, checksum;
};

struct hy3_state_index {
    struct hy3_state_info info;
    int64_t tensor_count, slab_count, slabs_offset, file_bytes;
    struct hy3_state_tensor *tensors;
    struct hy3_state_slab *slabs;
    char *configuration;
};

/* Local. Reads everything but the tensors, and checks that the slabs cover each tensor exactly.
 * Errors: HY3_EFORMAT naming what is wrong. The caller owns the index (hy3_state_index_free). */
hy3_status hy3_state_file_inspect(const char *path, struct hy3_state_index *index);

void hy3_state_index_free(struct hy3_state_index *index);

/* "param", "adam_m", "adam_v". */
const char *hy3_state_field_name(enum hy3_field field);
