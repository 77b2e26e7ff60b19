/* SPDX-License-Identifier: Apache-2.0 */
/* save.h - what a directory of weights holds: the model or its adapter, the configuration that
 * other programs read, the tokenizer's files. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"
#include "optim/sharded_optimizer.h"

struct hy3_save {
    const struct hy3_loaded_model *model; /* its adapter is saved if it has one */
    const char *output;                   /* directory, created if it does not exist */
    const char *base_path;                /* the model that an adapter says it belongs to */
    const char *tokenizer_directory;      /* its files are copied */
    enum hy3_names names;                 /* of a model; adapters have PEFT's names */
    hy3_dtype dtype;                      /* of a model; adapters are fp32 */
    int64_t max_shard_bytes;
    bool keeps_on; /* after a request to stop (comm/stop.h): of a checkpoint */
};

/* Local. How a run saves its model into `output`. Everything is borrowed. */
hy3_status hy3_save_options(const struct hy3_config *config, const struct hy3_loaded_model *model,
                            const char *output, struct hy3_save *out);

/* Bytes of the weights that hy3_save_trained writes: those of a model in `dtype`, its routers in
 * fp32, which they are where the base has them so. */
double hy3_save_bytes(const struct hy3_params *params, hy3_dtype dtype);

/* Collective on `comm`. Writes the whole directory. Errors: see hy3_hf_write. */
hy3_status hy3_save_weights(MPI_Comm comm, const struct hy3_save *save, struct hy3_values values);

/* Collective on the model's layout. The same with the weights being trained: a model's from the
 * store, an adapter's from the optimizer's fp32 masters. */
hy3_status hy3_save_trained(const struct hy3_save *save, struct hy3_sharded_optimizer *optimizer);

/* Local. All but the weights, of a model. */
hy3_status hy3_save_small_files(const struct hy3_save *save);
