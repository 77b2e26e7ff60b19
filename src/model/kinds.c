/* SPDX-License-Identifier: Apache-2.0 */
/* kinds.c - the entries as an array, and what follows from one of them. */
#include "model/kinds.h"

/* clang-format off */
const struct hy3_kind hy3_kinds[] = {
#define X(kind, name, inner, second, layers, unit, experts, rows, columns, role, target)            \
    [kind] = {name, {inner, second}, HY3_IN_##layers, HY3_OF_##unit,                                \
              {HY3_SIZE_##experts, HY3_SIZE_##rows, HY3_SIZE_##columns}, HY3_ROLE_##role, target},
    HY3_PARAM_KINDS(X)
#undef X
};

/* clang-format on */

static int64_t value(const struct hy3_shape *s, enum hy3_size size)
{
    switch (size) {
#define X(letter, value)    \
    case HY3_SIZE_##letter: \
        return value;
        HY3_SIZES(X)
#undef X
    }
    HY3_BUG("a size without a value");
}

int hy3_kind_extents(const struct hy3_shape *shape, enum hy3_param_kind kind, int64_t extents[3])
{
    int dims = 0;

    memset(extents, 0, 3 * sizeof *extents);
    for (int i = 0; i < 3; i++) {
        enum hy3_size size = hy3_kinds[kind].extents[i];

        if (size == HY3_SIZE__)
            continue;
        extents[dims] = value(shape, size);
        if (extents[dims++] == 0)
            return 0;
    }
    return dims;
}

bool hy3_kind_matrix(const struct hy3_shape *shape, enum hy3_param_kind kind, int64_t *out,
                     int64_t *in)
{
    int64_t extents[3];
    int dims = hy3_kind_extents(shape, kind, extents);

    if (dims < 2 || hy3_kinds[kind].layers == HY3_IN_OUTSIDE)
        return false;
    *out = extents[dims - 2];
    *in = extents[dims - 1];
    return true;
}
