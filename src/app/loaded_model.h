/* SPDX-License-Identifier: Apache-2.0 */
/* loaded_model.h - a model directory in memory, ready to run: backend, layout, shape, tensors,
 * weights. */
#pragma once

#include "ckpt/adapter/adapter.h"
#include "ckpt/hf/directory.h"
#include "parallel/store.h"

struct hy3_config; /* config/config.h */

struct hy3_loaded_model {
    const struct hy3_backend *backend;
    size_t device_free; /* bytes, before the groups of ranks took theirs */
    struct hy3_layout layout;
    struct hy3_shape shape;
    struct hy3_params *params;
    struct hy3_hf_dir *base;
    char base_fingerprint[HY3_SHARD_BASE]; /* "" before hy3_identity_of */
    struct hy3_adapter *adapter;           /* NULL: none was given */
    struct hy3_store *store;
    bool is_over_nodes; /* expert groups exchange by way of their nodes (parallel/exchange.h) */
    bool dummy;         /* the weights are those of dummy_weights.h, */
    uint64_t seed;      /* with this seed */
};

struct hy3_loaded_model_options {
    const char *directory; /* model_name_or_path */
    const char *device;
    bool dummy;    /* of the directory only config.json is read, the weights are random */
    uint64_t seed; /* of dummy weights */
    int expert_parallel_size;   /* 0: chosen by hy3_layout_open, or by lay_out */
    int zero_group_size;        /* 0: chosen by hy3_layout_open; stage 0 has none */
    int sequence_parallel_size; /* 0: 1 */
    /* Collective. Called with `run` when the ranks have been laid out, to do it again in a better
     * way; NULL: no */
    hy3_status (*lay_out)(MPI_Comm comm, const struct hy3_config *run,
                          struct hy3_loaded_model *model);
    const struct hy3_config *run;
    struct hy3_store_options store; /* with_grads follows from training */
    enum hy3_training training;
    struct hy3_selection selection;
    const char *adapter; /* directory of an adapter; NULL: none */
    /* of a new adapter if there is none; rank 0: no adapter. dropout holds for both */
    struct hy3_lora lora;
};

/* Collective on `comm`. Reads and checks everything but the weights: cheap, so that wrong input is
 * reported before any long work. The caller owns *model (hy3_loaded_model_close), also after an
 * error. */
hy3_status hy3_loaded_model_open(MPI_Comm comm, const struct hy3_loaded_model_options *options,
                                 struct hy3_loaded_model *model);

/* Collective. Allocates the weights. */
hy3_status hy3_loaded_model_allocate(struct hy3_loaded_model *model,
                                     const struct hy3_loaded_model_options *options);

/* Collective. Loads them. masters: see hy3_hf_load. */
hy3_status hy3_loaded_model_read(struct hy3_loaded_model *model, const struct hy3_values *masters);

/* Collective. Both, without an optimizer. */
hy3_status hy3_loaded_model_load(struct hy3_loaded_model *model,
                                 const struct hy3_loaded_model_options *options);

/* Collective. Puts the adapter of the options, or a new one, into `values`: those of the store, or
 * of the optimizer over it. */
hy3_status hy3_loaded_model_load_adapter(struct hy3_loaded_model *model, uint64_t seed,
                                         struct hy3_values values);

void hy3_loaded_model_close(struct hy3_loaded_model *model);
