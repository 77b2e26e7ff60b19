/* state_file.h - the HDF5 side of state.h5: what the file holds and where. Only one rank needs it; all ranks read the data itself
 * at the offsets found here, and write it with state_output.h.
 *
 *     /param/NAME, /adam_m/NAME, /adam_v/NAME   fp32, global shapes, contiguous; NAME is the tensor's outer name
 *     /checksums                               uint64 [slabs,5]: field, tensor, first, count, XXH3 of these elements
 *     attributes of the root: see hy3_state_attributes; configuration; complete: 1, set last
 *
 * Metadata has HDF5's own checksums (format of 1.8). doc/formats.md describes the file for others. */
#ifndef HY3_CKPT_STATE_FILE_H
#define HY3_CKPT_STATE_FILE_H

#include "base/hdf5.h"
#include "model/params.h"
#include "optim/optimizer.h"

/* What a run must know to go on, besides tensors. */
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
};

struct hy3_state_tensor {
    char name[HY3_PARAM_NAME];
    int64_t dims, shape[3], count;
    int64_t offset[HY3_OPTIMIZER_FIELDS]; /* bytes in the file */
};

/* What one rank wrote at a time. */
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

/* Local. A new file with room for everything and without the mark: fills in the offsets and file_bytes of the index, whose other
 * fields but the slabs themselves are given. Errors: HY3_EIO, a full disk among them. */
hy3_status hy3_state_file_create(const char *path, struct hy3_state_index *index);

/* Local. Says that the file is complete, and flushes it. */
hy3_status hy3_state_file_complete(const char *path);

/* Local. Reads everything but the tensors, and checks that the slabs cover each tensor exactly. Errors: HY3_EFORMAT naming what is
 * wrong. The caller owns the index (hy3_state_index_free). */
hy3_status hy3_state_file_inspect(const char *path, struct hy3_state_index *index);

void hy3_state_index_free(struct hy3_state_index *index);

/* "param", "adam_m", "adam_v". */
const char *hy3_state_field_name(enum hy3_optimizer_field field);

#endif
