/* SPDX-License-Identifier: Apache-2.0 */
/* previous.h - output_dir/previous: what a run found in its directory and has no use for, until its
 * own first checkpoint or result is complete. One generation.
 *
 * Invariants
 *  1. Setting aside is renames only: each file is at any moment in output_dir, in previous.part or
 *     in previous, and in one of them.
 *  2. previous.part becomes previous in one rename, after the last file and after the generation
 *     before it went. So a previous.part that is found was interrupted, and all that it holds goes
 *     back (hy3_previous_restore) before anything else looks at the directory. Bringing back is
 *     that on purpose: previous becomes previous.part first.
 *  3. Nothing but files with names that a run gives (hy3_previous_is_result) is moved or removed.
 *  4. previous is removed after its successor was published, under another name: a half removed one
 *     is not mistaken for a whole one.
 *  5. Names that a user could give (previous, previous.part) count as ours only with a mark inside;
 *     what is removed or replaced has a name that begins with .hy3_ before it goes. */
#pragma once

#include "base/error.h"

struct hy3_previous_options {
    int64_t after;    /* checkpoints of steps above this one go; -1: all */
    bool takes_run;   /* also the result, the log and the configuration: all that a run wrote */
    bool takes_model; /* also the result; copies of the log and the configuration go with it */
};

/* Local. Whether a run writes a file or directory of this name into its output_dir, besides caches
 * and marks. */
bool hy3_previous_is_result(const char *name);

/* Local. Undoes an interrupted hy3_previous_set_aside or hy3_previous_replace. *restored: whether
 * there was one. */
hy3_status hy3_previous_restore(const char *directory, bool *restored);

/* Local. Moves what the options say into directory/previous, and writes what it was into `names`
 * (at most `size` bytes), "" where there is nothing to move; directory/previous is then left
 * alone. */
hy3_status hy3_previous_set_aside(const char *directory, const struct hy3_previous_options *options,
                                  char *names, size_t size);

/* Local. Moves all of directory/previous back into the directory, where a run without a checkpoint
 * stands: its mark, configuration and log are replaced. A crash in it is completed by
 * hy3_previous_restore. */
hy3_status hy3_previous_bring_back(const char *directory);

/* Local. Removes directory/previous, if it is there. */
hy3_status hy3_previous_remove(const char *directory);

/* Local. Renames the checkpoint `part` in the directory to `name`; an older one of that name is
 * removed after that. */
hy3_status hy3_previous_replace(const char *directory, const char *part, const char *name);
