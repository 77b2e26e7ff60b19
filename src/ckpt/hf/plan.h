/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - the layout of a directory to be written: every tensor, its shard and its place in the
 * file.
 *
 * The plan is a pure function of the parameter table, the base's headers and the options: all ranks
 * make the same one without a message. Inside a shard wider dtypes come first, so that every tensor
 * is aligned to its elements. */
#pragma once

#include "ckpt/hf/directory.h"

/* What is to be written. */
struct hy3_hf_writer_options {
    const char *output; /* directory, created if need be */
    /* MTP tensors and config.json come from here; NULL: none (hy3_init) */
    const struct hy3_hf_dir *base;
    const json_t *config;     /* written as config.json when there is no base; NULL: none */
    const json_t *generation; /* as generation_config.json when nobody has one; NULL: none */
    enum hy3_names names;
    /* of weights; router biases are fp32, and so are router weights that the base has in fp32 */
    hy3_dtype dtype;
    int64_t max_shard_bytes;
    const char *tokenizer_directory; /* its tokenizer files are copied; NULL: none */
    bool adapter;        /* the adapter's tensors instead of the model's, under PEFT's file names */
    bool keeps_on;       /* after a request to stop (comm/stop.h): what is written is to be kept */
    const char *program; /* stands in the headers of the shards as hy3_program; NULL: hy3_sft */
    const char *trained_on; /* of an adapter, as hy3_base: its base's fingerprint; NULL: none */
};

/* Bytes copied from a tensor of the base. */
struct hy3_hf_piece {
    int shard; /* of the base */
    const struct hy3_shard_tensor *tensor;
    int64_t from, to, bytes; /* byte in the base's tensor; byte in the written one */
};

/* A tensor to write: a range of a parameter, or pieces of the base's tensors. */
struct hy3_hf_entry {
    char name[HY3_PARAM_NAME];
    const char *dtype_name;
    int width; /* bytes of an element, for the order in a shard */
    int order; /* place in the model, before shards reorder it */
    int home;  /* shard of the base with its first piece, in the order of their names */
    /* elements change on the way (hf/rewrite.h); pieces count bytes of the base's dtype */
    bool converts;
    int dims;
    int64_t shape[HY3_SHARD_DIMS];
    int64_t begin, bytes;          /* place in the shard, from the file's first byte */
    const struct hy3_param *param; /* NULL: pieces of the base */
    hy3_dtype dtype;               /* of a parameter */
    struct hy3_span span;          /* of the flattened parameter */
    size_t piece, pieces;          /* plan->pieces[piece .. piece + pieces) */
};

enum { HY3_SHARD_NAME = 256 };

struct hy3_hf_file {
    char name[HY3_SHARD_NAME];
    char *header; /* the length, the JSON text and its padding */
    size_t header_bytes;
    int64_t bytes;  /* of the whole file */
    int first, end; /* its tensors: entries[first .. end) */
};

struct hy3_hf_plan {
    struct hy3_hf_entry *entries;
    struct hy3_hf_piece *pieces;
    struct hy3_hf_file *files;
    int count, file_count;
    bool *wide; /* [params->count] fp32 whatever the options say; NULL: none */
    bool bare;  /* no __metadata__ in the headers: the public converter writes none */
    /* metadata of the headers, or of the index where they have none; "" and NULL: none */
    const char *program;    /* hy3_program */
    char source[20];        /* hy3_source: what the result was made from, 16 digits */
    const char *trained_on; /* hy3_base: the fingerprint of an adapter's base */
    size_t piece_count, entry_capacity, piece_capacity, file_capacity;
    int64_t total_bytes;     /* of all tensors */
    struct hy3_shard **base; /* [shards of the base]; those with tensors to copy are open */
    int base_count;
};

/* Local. The base must have been accounted for (hy3_hf_load). The caller owns *out
 * (hy3_hf_plan_free). */
hy3_status hy3_hf_plan_create(const struct hy3_hf_writer_options *options,
                              const struct hy3_params *params, struct hy3_hf_plan **out);

struct hy3_hf_rewrite_layout {
    enum hy3_names names;
    bool keep_residue; /* keep shards that have no tensor left, empty */
    /* cut into new shards; 0: a tensor stays in the first of its old ones */
    int64_t max_shard_bytes;
};

/* Local. The plan of a directory whose tensors are those of `base` in another layout. Tensors of a
 * shard are in the order of the safetensors library: wider dtypes first, then by name. Errors:
 * HY3_EFORMAT naming a tensor that is missing, surplus or of another shape than its like. To be
 * laid out (hy3_hf_plan_lay_out) when entries have their final dtypes. */
hy3_status hy3_hf_plan_rewrite(const struct hy3_hf_dir *base, int64_t experts,
                               const struct hy3_hf_rewrite_layout *layout,
                               struct hy3_hf_plan **out);
hy3_status hy3_hf_plan_lay_out(struct hy3_hf_plan *plan);

/* Whether a tensor of the base is fp32 in every file that is made from it: the router's bias, and
 * its weights where the base has them so. transformers from 5.24 on keeps both in fp32. */
bool hy3_hf_stays_wide(const struct hy3_param *param, const struct hy3_shard_tensor *tensor);

/* Whether the plan is one file, model.safetensors, which needs no index. */
bool hy3_hf_plan_is_single(const struct hy3_hf_plan *plan);

/* Adds the marks of the plan, by which a result of hy3 is recognised. */
void hy3_hf_plan_mark(const struct hy3_hf_plan *plan, json_t *metadata);
void hy3_hf_plan_free(struct hy3_hf_plan *plan);
