/* SPDX-License-Identifier: Apache-2.0 */
/* differences.h - in what a run differs from the one in its output_dir. */
#pragma once

#include "config/config.h"
#include "train/decide.h"
#include "train/mark.h"

/* Local, on rank 0. Sets s->distance from config.cfg in output_dir and the mark there (zero: none),
 * and writes the differences into `text`, a line each after a line feed and two spaces, at most
 * `size` bytes. has_results and planned are known. */
hy3_status hy3_differences_find(const struct hy3_config *config, const struct hy3_mark *mark,
                                const struct hy3_run_facts *facts, struct hy3_situation *s,
                                char *text, size_t size);

/* Local, on rank 0. Prints in what the settings differ from those that a checkpoint elsewhere was
 * saved with (`saved`: its configuration): a warning, if with one of them it were another run. */
void hy3_differences_tell(const char *path, const char *saved, const struct hy3_config *config);
