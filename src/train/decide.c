/* SPDX-License-Identifier: Apache-2.0 */
/* decide.c - the decision, row by row; doc/design.md, "Lifecycle of a run", has it as a table. */
#include "train/decide.h"

/* resume_from_checkpoint = auto, and a run is there. */
static enum hy3_decision decide_auto(const struct hy3_situation *s, enum hy3_distance distance)
{
    int64_t reached = s->is_finished && s->done > s->newest ? s->done : s->newest;

    if (distance != HY3_SAME && s->overwrite)
        return HY3_SET_ASIDE;
    if (distance == HY3_OTHER)
        return HY3_REFUSE_OTHER;
    if (s->steps < reached)
        return HY3_BEHIND;
    if (s->is_finished && s->ends_early && distance == HY3_SAME)
        return HY3_FINISHED;
    if (s->is_finished && s->steps == s->done)
        return distance == HY3_SAME ? HY3_FINISHED : HY3_REFUSE_CHANGED;
    if (s->newest < 0) /* only models were saved */
        return distance == HY3_SAME && !s->is_finished && (s->saves_models || s->overwrite)
                   ? HY3_SET_ASIDE
                   : HY3_REFUSE_STATE;
    return HY3_CONTINUE;
}

enum hy3_decision hy3_decide(const struct hy3_situation *s)
{
    enum hy3_distance distance = s->distance;

    if (distance == HY3_SAME && s->planned > 0 && s->steps != s->planned)
        distance = HY3_CHANGED;
    if (!s->has_results)
        return HY3_START;
    switch (s->from) {
    case HY3_FROM_HERE:
        if (distance == HY3_OTHER && !s->overwrite)
            return HY3_REFUSE_OTHER;
        return s->steps < s->named ? HY3_BEHIND : HY3_BRANCH;
    case HY3_FROM_THERE:
        return s->overwrite ? HY3_SET_ASIDE : HY3_REFUSE_OTHER;
    case HY3_FROM_START:
        if (s->overwrite || (s->is_finished && distance == HY3_SAME))
            return HY3_SET_ASIDE;
        return distance == HY3_OTHER ? HY3_REFUSE_OTHER : HY3_REFUSE_NONE;
    default:
        return decide_auto(s, distance);
    }
}
