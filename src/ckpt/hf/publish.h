/* SPDX-License-Identifier: Apache-2.0 */
/* publish.h - the last step of writing a directory: small files, final names, checksums, index,
 * removal of the old weights.
 *
 * Order: the old checksums.json is removed, so that it never stands beside anything new; small
 * files; the old index is removed (from here on the directory is visibly incomplete); the shards
 * get their final names; checksums.json, when all that it lists is there but the index; the new
 * index; old shards that are no longer listed are removed; the directory is flushed.
 *
 * files: what checksums.json will list (hf/checksums.h); each function adds what it writes. NULL:
 * there are no checksums. */
#pragma once

#include "base/output.h"
#include "ckpt/hf/plan.h"

/* Local. The names of a shard in `directory`: hy3_output_name. */
hy3_status hy3_hf_name_shard(const char *directory, const struct hy3_hf_file *file,
                             struct hy3_output *out);

/* Local, on one rank, when all shards are complete under their temporary names and in `files`. */
hy3_status hy3_hf_publish(const struct hy3_hf_writer_options *options,
                          const struct hy3_hf_plan *plan, json_t *files);

/* Local. Removes a file of the directory, if it is there. */
hy3_status hy3_hf_remove_file(const char *directory, const char *name);

/* Local. checksums.json, then the index of the planned shards if there is one, which completes the
 * directory; each atomically. */
hy3_status hy3_hf_complete(const char *output, const struct hy3_hf_plan *plan, bool has_index,
                           json_t *files);

/* Local. config.json of the base, or the one that is given, with the dtype of the weights;
 * atomically. */
hy3_status hy3_hf_write_config(const struct hy3_hf_writer_options *options, json_t *files);

/* Local, on one rank. Configuration, generation defaults and tokenizer files. */
hy3_status hy3_hf_write_small_files(const struct hy3_hf_writer_options *options, json_t *files);

/* Local, on one rank. Removes what is left under temporary names after a failure. */
void hy3_hf_discard(const struct hy3_hf_writer_options *options, const struct hy3_hf_plan *plan);

/* Local, on one rank. Whether a program may write its result into `output`: there is nothing, or
 * what it left unfinished itself, by its mark .hy3_unfinished. Errors: HY3_EUSAGE. */
hy3_status hy3_hf_may_write(const char *output, const char *program);

/* Local, on one rank, before anything else is written, and when all is. Sets the mark, in a
 * directory that is created if need be; removes it. */
hy3_status hy3_hf_begin(const char *output, const char *program);
hy3_status hy3_hf_end(const char *output);
