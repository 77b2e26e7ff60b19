/* SPDX-License-Identifier: Apache-2.0 */
/* decide.h - what the command means, given what lies in output_dir: the whole table of continuing,
 * starting over and refusing, as one pure function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum hy3_resume_from { /* resume_from_checkpoint */
                       HY3_FROM_NEWEST,
                       HY3_FROM_START,
                       HY3_FROM_HERE, /* a checkpoint in output_dir */
                       HY3_FROM_THERE /* one elsewhere */
};

/* How far the new settings and data are from those of the run in output_dir. */
enum hy3_distance {
    HY3_SAME,    /* no number differs */
    HY3_CHANGED, /* in keys that may change when a run continues */
    HY3_OTHER    /* it is another run */
};

struct hy3_situation {
    bool has_results;  /* checkpoints or a model of a run lie in output_dir */
    bool is_finished;  /* that run has come to its end, and its result is there */
    bool ends_early;   /* early stopping ended it, before the steps it was to have */
    int64_t newest;    /* step of the newest checkpoint that can be continued, -1: none */
    int64_t done;      /* steps of the result, where is_finished */
    bool saves_models; /* save_only_model */
    int64_t planned;   /* steps that run was to have, 0: not known */

    enum hy3_resume_from from;
    int64_t named;  /* step of the named checkpoint */
    bool overwrite; /* overwrite_output_dir */
    int64_t steps;  /* the new run is to have */
    enum hy3_distance distance;
};

enum hy3_decision {
    HY3_START,          /* nothing is in the way */
    HY3_SET_ASIDE,      /* the old run goes to output_dir/previous, then start */
    HY3_CONTINUE,       /* from the newest checkpoint */
    HY3_BRANCH,         /* from the named one here; newer ones are set aside */
    HY3_FINISHED,       /* nothing is left to do */
    HY3_BEHIND,         /* the run is beyond the wanted steps already */
    HY3_REFUSE_OTHER,   /* another run is there */
    HY3_REFUSE_NONE,    /* an unfinished run is there, and is not to be continued */
    HY3_REFUSE_CHANGED, /* it is finished: the changed settings would have no step to act on */
    HY3_REFUSE_STATE    /* it would continue, but no checkpoint has a state */
};

enum hy3_decision hy3_decide(const struct hy3_situation *situation);
