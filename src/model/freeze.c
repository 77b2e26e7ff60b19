/* SPDX-License-Identifier: Apache-2.0 */
/* freeze.c - from the table of kinds. */
#include "model/freeze.h"

enum { NAME = 64, NAMES = 256 };

/* The module of a kind by which it is selected; false if it has none of that sort. */
static bool module_of(enum hy3_param_kind kind, bool in_layers, char out[NAME])
{
    const struct hy3_kind *k = &hy3_kinds[kind];
    const char *end = strrchr(k->name, '.'), *first;

    if (k->layers == HY3_IN_MTP || k->unit == HY3_OF_BUFFER ||
        in_layers == (k->layers == HY3_IN_OUTSIDE))
        return false;
    if (in_layers) {
        snprintf(out, NAME, "%.*s", (int)strcspn(k->name, "."), k->name);
        return true;
    }
    for (first = end; first > k->name && first[-1] != '.';)
        first--;
    snprintf(out, NAME, "%.*s", (int)(end - first), first);
    return true;
}

/* The modules, each once. */
static void list_modules(bool in_layers, char out[NAMES])
{
    size_t used = 0;
    char name[NAME], before[NAME];

    out[0] = '\0';
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT && used < NAMES; kind++) {
        bool told = !module_of(kind, in_layers, name);

        for (int i = 0; i < kind && !told; i++)
            told = module_of(i, in_layers, before) && strcmp(before, name) == 0;
        if (!told)
            used += (size_t)snprintf(out + used, NAMES - used, "%s%s", used ? ", " : "", name);
    }
}

hy3_status hy3_freeze_module(const char *name, struct hy3_selection *selection)
{
    bool all = strcmp(name, "all") == 0, found = false;
    char module[NAME], names[NAMES];

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (module_of(kind, true, module) && (all || strcmp(module, name) == 0))
            found = selection->in_layers[kind] = true;
    if (found)
        return HY3_OK;
    list_modules(true, names);
    HY3_FAIL(HY3_EUSAGE, "freeze_trainable_modules: there is no '%s'; the names are %s and all",
             name, names);
}

hy3_status hy3_freeze_extra(const char *name, struct hy3_selection *selection)
{
    bool found = false;
    char module[NAME], names[NAMES];

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        found = found || (module_of(kind, false, module) && strcmp(module, name) == 0);
    if (!found) {
        list_modules(false, names);
        HY3_FAIL(HY3_EUSAGE, "freeze_extra_modules: there is no '%s'; the names are %s", name,
                 names);
    }
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (hy3_kinds[kind].layers != HY3_IN_MTP && strstr(hy3_kinds[kind].name, name))
            selection->anywhere[kind] = true;
    return HY3_OK;
}
