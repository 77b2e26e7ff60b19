/* SPDX-License-Identifier: Apache-2.0 */
/* unread.c - a record for each line and name goes to a spool, since max_samples decides only in the
 * end which lines count; then rank 0 adds up the names of all ranks. */
#include "data/unread.h"

#include "base/memory.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "data/spool.h"
#include "text/keys.h"

enum { PACKET = 4096 }; /* records read back at once */

static const char phase[] = "counting the keys that are not read";

struct record {
    int64_t portion, line, name;
};

struct name {
    const char *text; /* when they are printed */
    int64_t portion;  /* the last one it was seen in, and its line */
    int64_t line;
    int64_t lines;
};

struct hy3_unread {
    struct hy3_spool *records;
    int64_t record_count;
    json_t *numbers; /* name: its place in `names` */
    struct name *names;
    size_t count, capacity;
    int64_t portion; /* the last one, and how many names it has */
    int portion_names;
};

hy3_status hy3_unread_create(const char *directory, struct hy3_unread **out)
{
    hy3_status status = HY3_OK;
    struct hy3_unread *u = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&u, 1, sizeof *u));
    u->portion = -1;
    HY3_TRY_DONE(hy3_spool_open(directory, &u->records));
    if (!(u->numbers = json_object()))
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    *out = HY3_TAKE(u);
done:
    hy3_unread_free(u);
    return status;
}

void hy3_unread_free(struct hy3_unread *unread)
{
    if (!unread)
        return;
    hy3_spool_close(unread->records);
    json_decref(unread->numbers);
    hy3_free(unread->names);
    hy3_free(unread);
}

/* The place of a name, which is added if it is new. */
static hy3_status find(struct hy3_unread *u, const char *text, int64_t *place)
{
    const json_t *known = json_object_get(u->numbers, text);

    if (known) {
        *place = json_integer_value(known);
        return HY3_OK;
    }
    *place = (int64_t)u->count;
    HY3_TRY(hy3_grow(&u->names, &u->capacity, u->count + 1, sizeof *u->names));
    if (json_object_set_new(u->numbers, text, json_integer(*place)) != 0)
        HY3_FAIL(HY3_ENOMEM, "out of host memory");
    u->names[u->count++] = (struct name){.portion = -1};
    return HY3_OK;
}

static hy3_status add_record(struct hy3_unread *u, int64_t line, int64_t name)
{
    struct record record = {u->portion, line, name};

    u->names[name].portion = u->portion;
    u->names[name].line = line;
    HY3_TRY(hy3_spool_append(u->records, &record, sizeof record));
    u->record_count++;
    return HY3_OK;
}

static hy3_status add_name(struct hy3_unread *u, int64_t line, const char *text)
{
    bool is_full = u->portion_names >= HY3_UNREAD_NAMES;
    int64_t name;

    HY3_TRY(find(u, is_full && !json_object_get(u->numbers, text) ? HY3_KEYS_OTHERS : text, &name));
    if (is_full && u->names[name].portion != u->portion)
        HY3_TRY(find(u, HY3_KEYS_OTHERS, &name));
    else if (u->names[name].portion != u->portion)
        u->portion_names++;
    if (u->names[name].portion == u->portion && u->names[name].line == line)
        return HY3_OK; /* several names of a line that are not told apart */
    return add_record(u, line, name);
}

hy3_status hy3_unread_add(struct hy3_unread *unread, int64_t portion, int64_t line, json_t *names)
{
    const char *text;
    json_t *value;

    if (portion != unread->portion) {
        unread->portion = portion;
        unread->portion_names = 0;
    }
    json_object_foreach(names, text, value) HY3_TRY(add_name(unread, line, text));
    return HY3_OK;
}

/* This rank's counts, as text of a JSON object; the caller owns *out (free). */
static hy3_status count(struct hy3_unread *u, const int64_t *lines, size_t stride, char **out)
{
    hy3_status status = HY3_OK;
    struct record *packet = NULL;
    json_t *counts = json_object(), *number;
    const char *text;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&packet, PACKET, sizeof *packet));
    for (int64_t at = 0; at < u->record_count; at += PACKET) {
        int64_t part = u->record_count - at < PACKET ? u->record_count - at : PACKET;

        HY3_TRY_DONE(hy3_spool_read(u->records, packet, (size_t)part * sizeof *packet,
                                    at * (int64_t)sizeof *packet));
        for (int64_t i = 0; i < part; i++)
            u->names[packet[i].name].lines +=
                packet[i].line < lines[(size_t)packet[i].portion * stride];
    }
    json_object_foreach(u->numbers, text, number)
    {
        int64_t sum = u->names[json_integer_value(number)].lines;

        if (sum > 0 && json_object_set_new(counts, text, json_integer(sum)) != 0)
            HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    }
    *out = json_dumps(counts, JSON_COMPACT);
    if (!*out)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
done:
    hy3_free(packet);
    json_decref(counts);
    return status;
}

/* Rank 0. Adds the counts of `text`. */
static hy3_status merge(json_t *sum, const char *text, size_t size)
{
    json_t *counts = json_loadb(text, size, 0, NULL), *number;
    hy3_status status = HY3_OK;
    const char *name;

    if (!counts)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    json_object_foreach(counts, name, number)
    {
        json_int_t lines = json_integer_value(json_object_get(sum, name));

        if (json_object_set_new(sum, name, json_integer(lines + json_integer_value(number))) != 0)
            HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    }
done:
    json_decref(counts);
    return status;
}

static int most_first(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    if (x->lines != y->lines)
        return x->lines < y->lines ? 1 : -1;
    return strcmp(x->text, y->text);
}

/* As many names as there is room for, and how many are left. */
static void print(const struct name *names, size_t count, char *out, size_t size)
{
    enum { MORE = 40 }; /* room for the end */

    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        char text[256];
        int length = snprintf(text, sizeof text, "%s%s (%lld line%s)", i > 0 ? ", " : "",
                              names[i].text, (long long)names[i].lines, hy3_s(names[i].lines));

        if (used + (size_t)length + MORE > size) {
            snprintf(out + used, size - used, ", and %zu more", count - i);
            return;
        }
        memcpy(out + used, text, (size_t)length + 1);
        used += (size_t)length;
    }
}

/* Rank 0. */
static hy3_status format(json_t *sum, char *out, size_t size)
{
    hy3_status status = HY3_OK;
    struct name *names = NULL;
    size_t count = 0;
    const char *text;
    json_t *number;

    HY3_TRY_DONE(hy3_alloc(&names, json_object_size(sum) + 1, sizeof *names));
    json_object_foreach(sum, text, number) names[count++] =
        (struct name){.text = text, .lines = json_integer_value(number)};
    qsort(names, count, sizeof *names, most_first);
    print(names, count, out, size);
done:
    hy3_free(names);
    return status;
}

/* Collective. Rank 0 adds up what each rank has in `mine`. */
static hy3_status merge_all(MPI_Comm comm, const char *mine, json_t *sum)
{
    hy3_status status = HY3_OK;
    int64_t *sizes = NULL, longest = 0;
    char *text = NULL;

    HY3_AGREE_DONE(comm, hy3_alloc(&sizes, (size_t)hy3_size(comm), sizeof *sizes), phase);
    hy3_allgather_int(comm, (int64_t)strlen(mine), sizes, phase);
    for (int r = 0; r < hy3_size(comm); r++)
        longest = sizes[r] > longest ? sizes[r] : longest;
    HY3_AGREE_DONE(comm, hy3_alloc(&text, (size_t)longest, 1), phase);
    for (int r = 0; r < hy3_size(comm); r++) {
        if (r == hy3_rank(comm))
            memcpy(text, mine, (size_t)sizes[r]);
        hy3_broadcast(comm, r, text, (size_t)sizes[r], phase);
        if (hy3_rank(comm) == 0 && status == HY3_OK)
            status = merge(sum, text, (size_t)sizes[r]);
    }
done:
    hy3_free(text);
    hy3_free(sizes);
    return status;
}

hy3_status hy3_unread_sum(MPI_Comm comm, struct hy3_unread *unread, const int64_t *lines,
                          size_t stride, char *out, size_t size)
{
    hy3_status status = HY3_OK;
    json_t *sum = json_object();
    char *mine = NULL;

    memset(out, 0, size);
    HY3_AGREE_DONE(comm, count(unread, lines, stride, &mine), phase);
    status = merge_all(comm, mine, sum);
    if (status == HY3_OK && hy3_rank(comm) == 0)
        status = format(sum, out, size);
    HY3_AGREE_DONE(comm, status, phase);
    hy3_broadcast(comm, 0, out, size, phase);
done:
    free(mine);
    json_decref(sum);
    return status;
}
