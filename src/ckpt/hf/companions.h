/* SPDX-License-Identifier: Apache-2.0 */
/* companions.h - the files that are published beside weights: a white list, so that nothing of a
 * run (training data, logs, configuration) gets into a model directory. */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* Local. Copies one of them, unless it is no regular file; *copied: so. A link is followed within
 * the directory, from a snapshot of the hub's cache into its blobs, and to a file of the same name
 * beside the one that the link of tokenizer.json or config.json leads to. One that leads elsewhere
 * would publish somebody's file: it is named and left out, HY3_EFORMAT for config.json and the
 * files of the tokenizer. files: of checksums.json, to which the copy is added (hf/checksums.h);
 * NULL: to none. */
hy3_status hy3_hf_copy_companion(const char *base, const char *output, const char *name,
                                 json_t *files, bool *copied);

/* Local. That error before any work: of the tokenizer, and of config.json where it is copied. */
hy3_status hy3_hf_check_companions(const char *base, bool with_config);

/* Local. Copies from `base` what belongs to a model: configuration, tokenizer, chat template,
 * licence, model card, and the modules that auto_map names. All else but weights, their index and
 * their checksums is left out and named in one line of the log. files: as above.
 * Errors: HY3_EIO. */
hy3_status hy3_hf_copy_companions(const char *base, const char *output, json_t *files);

/* Local. Copies only the modules that auto_map of configuration and tokenizer names, and those that
 * these import. files: as above, or NULL. Errors: HY3_EIO. */
hy3_status hy3_hf_copy_modules(const char *base, const char *output, json_t *files);

/* Files of a tokenizer, ended by NULL; none is required. */
extern const char *const hy3_hf_tokenizer_files[];
bool hy3_hf_is_tokenizer_file(const char *name);

/* Whether a directory of weights has files of this name, other than weights and their index. */
bool hy3_hf_is_companion(const char *name);
