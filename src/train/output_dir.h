/* SPDX-License-Identifier: Apache-2.0 */
/* output_dir.h - the output directory of a run: whose it is, what lies in it, what that means for
 * this command, and only when all of the run has been checked, the changes that start it.
 *
 *     look      whose directory it is; nothing of a run is changed
 *     decide    start, continue, set aside, nothing to do, or refuse
 *     begin     sets aside, writes mark and configuration
 *     saved     a checkpoint is complete
 *     finish    the result is complete
 *
 * Between look and begin the run reads its data, weights and state: whatever fails there leaves the
 * directory as it was. */
#pragma once

#include "comm/lock_wait.h"
#include "config/config.h"
#include "train/decide.h"
#include "train/mark.h"

/* Collective on `comm`. Creates output_dir and gets its lock, before anything there is looked at or
 * changed. Rank 0 owns *out (hy3_lock_close). Errors: HY3_EUSAGE: another run has it. */
hy3_status hy3_output_dir_lock(MPI_Comm comm, const struct hy3_config *config,
                               struct hy3_lock **out);

struct hy3_output_dir {
    const struct hy3_config *config;
    MPI_Comm comm;
    bool changes_nothing; /* --dry-run */
    struct hy3_mark mark; /* rank 0: of the run in the directory, from `begin` on of this one */
    bool has_mark;        /* rank 0 */
    /* of all ranks, after hy3_output_dir_decide: */
    enum hy3_decision decision;
    bool loads_named;      /* the state comes from resume_from_checkpoint */
    bool loads_newest;     /* the state comes from the newest usable checkpoint */
    bool brings_back;      /* the run is in output_dir/previous until `begin` */
    int64_t newest, named; /* steps; -1: none */
};

/* Collective on `comm`. Creates output_dir, if it does not exist, and its mark, if it is empty.
 * Refused (HY3_EUSAGE): no directory; one with files that hy3 did not make, unless
 * overwrite_output_dir, which still refuses to replace any of them; the directory of the base model
 * or the adapter; a named checkpoint that is none. `config` is kept. */
hy3_status hy3_output_dir_look(MPI_Comm comm, const struct hy3_config *config, bool changes_nothing,
                               struct hy3_output_dir *dir);

/* Collective. Prints in what the settings differ from those of the run there, and decides. Errors:
 * HY3_EUSAGE, where that run must not be continued or set aside. */
hy3_status hy3_output_dir_decide(struct hy3_output_dir *dir, const struct hy3_run_facts *facts);

/* Collective. From here on the directory is this run's, which starts after step `first`: what it
 * does not continue is set aside. */
hy3_status hy3_output_dir_begin(struct hy3_output_dir *dir, const struct hy3_run_facts *facts,
                                int64_t first);

/* Local, on rank 0, in whichever thread saves. A checkpoint of that step is complete. */
hy3_status hy3_output_dir_saved(struct hy3_output_dir *dir, int64_t step);

/* Collective. The result after that step is complete: what was set aside goes. */
hy3_status hy3_output_dir_finish(struct hy3_output_dir *dir, int64_t step);
