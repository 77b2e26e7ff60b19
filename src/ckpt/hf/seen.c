/* SPDX-License-Identifier: Apache-2.0 */
/* seen.c - a mark for every inner piece of every parameter. */
#include "ckpt/hf/seen.h"

#include "base/memory.h"

static int64_t piece_count(const struct hy3_seen *seen, int index)
{
    return hy3_name_pieces(&seen->params->params[index], &seen->params->shape, HY3_INNER);
}

hy3_status hy3_seen_create(const struct hy3_params *params, int count, struct hy3_seen *seen)
{
    *seen = (struct hy3_seen){.params = params, .count = count};
    HY3_TRY(hy3_alloc(&seen->pieces, (size_t)count, sizeof *seen->pieces));
    for (int i = 0; i < count; i++)
        HY3_TRY(hy3_alloc(&seen->pieces[i], (size_t)piece_count(seen, i), 1));
    return HY3_OK;
}

void hy3_seen_free(struct hy3_seen *seen)
{
    for (int i = 0; seen->pieces && i < seen->count; i++)
        hy3_free(seen->pieces[i]);
    hy3_free(seen->pieces);
}

bool hy3_seen_mark(struct hy3_seen *seen, const struct hy3_place *place)
{
    int index = (int)(place->param - seen->params->params);
    int64_t first = place->piece, end = place->piece + 1;
    bool twice = false;

    if (place->pieces == 1) {
        first = 0;
        end = piece_count(seen, index);
    }
    for (int64_t i = first; i < end; i++) {
        twice |= seen->pieces[index][i] != 0;
        seen->pieces[index][i] = 1;
    }
    return twice;
}

static void tell_param(const struct hy3_seen *seen, int index, enum hy3_names names,
                       void (*tell)(void *context, const char *name), void *context)
{
    const struct hy3_param *param = &seen->params->params[index];
    int64_t pieces = piece_count(seen, index), gone = 0, extents[3];
    char name[HY3_PARAM_NAME];
    int dims;

    for (int64_t i = 0; i < pieces; i++)
        gone += !seen->pieces[index][i];
    if (gone == pieces && names == HY3_OUTER) {
        tell(context, param->name);
        return;
    }
    for (int64_t i = 0; gone > 0 && i < pieces; i++)
        if (!seen->pieces[index][i]) {
            hy3_name_piece(param, &seen->params->shape, HY3_INNER, i, name, &dims, extents);
            tell(context, name);
        }
}

void hy3_seen_missing(const struct hy3_seen *seen, enum hy3_names names,
                      void (*tell)(void *context, const char *name), void *context)
{
    for (int i = 0; i < seen->count; i++)
        tell_param(seen, i, names, tell, context);
}
