/* SPDX-License-Identifier: Apache-2.0 */
/* settings.c - lists of settings and of texts. */
#include "config/settings.h"

#include "base/memory.h"

hy3_status hy3_list_add(struct hy3_list *list, const char *text, size_t size)
{
    size_t count = (size_t)list->count, capacity = count;
    char *copy = NULL;

    /* the capacity is 8 or the next power of two: a list need not store it */
    if (count == 0 || (count >= 8 && (count & (count - 1)) == 0))
        HY3_TRY(hy3_grow(&list->items, &capacity, count + 1, sizeof *list->items));
    HY3_TRY(hy3_alloc(&copy, size + 1, 1));
    memcpy(copy, text, size);
    list->items[list->count++] = copy;
    return HY3_OK;
}

hy3_status hy3_list_copy(struct hy3_list *list, const struct hy3_list *from)
{
    for (int i = 0; i < from->count; i++)
        HY3_TRY(hy3_list_add(list, from->items[i], strlen(from->items[i])));
    return HY3_OK;
}

void hy3_list_free(struct hy3_list *list)
{
    for (int i = 0; i < list->count; i++)
        hy3_free(list->items[i]);
    hy3_free(list->items);
    *list = (struct hy3_list){0};
}

hy3_status hy3_settings_add(struct hy3_settings *settings, const char *key, const char *where,
                            struct hy3_setting **out)
{
    struct hy3_setting *setting;

    HY3_TRY(hy3_grow(&settings->items, &settings->capacity, settings->count + 1,
                     sizeof *settings->items));
    setting = &settings->items[settings->count++]; /* zeroed: freed even if a copy fails */
    HY3_TRY(hy3_strdup(key, &setting->key));
    HY3_TRY(hy3_strdup(where, &setting->where));
    *out = setting;
    return HY3_OK;
}

hy3_status hy3_settings_copy(struct hy3_settings *settings, const char *key,
                             const struct hy3_setting *from, struct hy3_setting **out)
{
    HY3_TRY(hy3_settings_add(settings, key, from->where, out));
    (*out)->type = from->type;
    return hy3_list_copy(&(*out)->texts, &from->texts);
}

hy3_status hy3_settings_place(struct hy3_settings *settings, const char *where)
{
    for (size_t i = 0; i < settings->count; i++) {
        hy3_free(settings->items[i].where);
        settings->items[i].where = NULL;
        HY3_TRY(hy3_strdup(where, &settings->items[i].where));
    }
    return HY3_OK;
}

void hy3_settings_free(struct hy3_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++) {
        hy3_free(settings->items[i].key);
        hy3_free(settings->items[i].where);
        hy3_list_free(&settings->items[i].texts);
    }
    hy3_free(settings->items);
    *settings = (struct hy3_settings){0};
}
