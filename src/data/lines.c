/* SPDX-License-Identifier: Apache-2.0 */
/* lines.c - one line after the other through a buffer that grows up to the longest line. */
#include "data/lines.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/item_state.h"

#include <unistd.h>
#include <xxhash.h>

/* Bytes per read within the portion, and beyond its end. */
enum { READ = 1 << 20, READ_ON = 1 << 16 };

static int64_t test_line_max;

/* Between the items of an array: what stands before. */
enum gap { AFTER_OPENING, AFTER_ITEM, AFTER_COMMA };

struct hy3_lines {
    const struct hy3_source *source;
    int fd;
    int64_t end;  /* of the portion */
    int64_t at;   /* in the file: the first byte not in the buffer */
    int64_t line; /* in the file: where the next line begins */
    char *buffer;
    size_t capacity, begin, filled; /* the next line is at buffer + begin */
    struct hy3_item_state state;    /* before the byte at `line`, of a file of items */
    bool is_in_word;                /* that byte goes on with a value that is no object, no list */
    enum gap gap;                   /* what may follow, of an array */
    XXH3_state_t *hash;
};

void hy3_lines_override(int64_t bytes)
{
    test_line_max = bytes;
}

static int64_t line_max(void)
{
    return test_line_max > 0 ? test_line_max : HY3_LINE_MAX;
}

hy3_status hy3_lines_create(struct hy3_lines **out)
{
    hy3_status status = HY3_OK;
    struct hy3_lines *r = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&r, 1, sizeof *r));
    r->fd = -1;
    if (!(r->hash = XXH3_createState()))
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory");
    *out = HY3_TAKE(r);
done:
    hy3_lines_free(r);
    return status;
}

void hy3_lines_free(struct hy3_lines *lines)
{
    if (!lines)
        return;
    if (lines->fd >= 0)
        close(lines->fd);
    XXH3_freeState(lines->hash);
    hy3_free(lines->buffer);
    hy3_free(lines);
}

/* Reads more; at least one byte unless at the end of the file. */
static hy3_status fill(struct hy3_lines *r)
{
    int64_t left = r->source->size - r->at, size = r->end - r->at;

    if (r->begin > 0) {
        memmove(r->buffer, r->buffer + r->begin, r->filled - r->begin);
        r->filled -= r->begin;
        r->begin = 0;
    }
    size = size > READ ? READ : size < READ_ON ? READ_ON : size;
    size = size > left ? left : size;
    HY3_TRY(hy3_grow(&r->buffer, &r->capacity, r->filled + (size_t)size, 1));
    HY3_TRY(hy3_file_read_at(r->fd, r->buffer + r->filled, (size_t)size, r->at, r->source->path));
    r->filled += (size_t)size;
    r->at += size;
    return HY3_OK;
}

/* Skips to just behind the next line end, or to the end of the file. Stops at `limit`: lines that
 * begin there or later belong to the next portion. */
static hy3_status skip_line(struct hy3_lines *r, int64_t limit, bool is_hashed)
{
    for (;;) {
        char *from = r->buffer + r->begin, *stop;
        size_t size = r->filled - r->begin;

        stop = size > 0 ? memchr(from, '\n', size) : NULL;
        if (stop)
            size = (size_t)(stop - from) + 1;
        if (is_hashed)
            XXH3_64bits_update(r->hash, from, size);
        r->begin += size;
        r->line += (int64_t)size;
        if (stop || r->line >= limit || r->at >= r->source->size)
            break;
        HY3_TRY(fill(r));
    }
    return HY3_OK;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Whether a value that is no object and no list ends before the byte, outside of a string. */
static bool ends_word(char c)
{
    return c == '\0' || strchr(" \t\r\n,[]{}", c);
}

/* What stands before byte `at`, which is between the items of an array. */
static hy3_status find_gap(struct hy3_lines *r, int64_t at)
{
    char block[4096], last = ' ';

    while (at > 0 && is_space(last)) {
        int64_t size = at < (int64_t)sizeof block ? at : (int64_t)sizeof block, i = size;

        at -= size;
        HY3_TRY(hy3_file_read_at(r->fd, block, (size_t)size, at, r->source->path));
        while (i > 0 && is_space(last))
            last = block[--i];
    }
    r->gap = last == ',' ? AFTER_COMMA : last == '[' ? AFTER_OPENING : AFTER_ITEM;
    return HY3_OK;
}

static hy3_status begin_items(struct hy3_lines *r, const struct hy3_portion *portion)
{
    char before = ' ';

    if (portion->begin > 0)
        HY3_TRY(hy3_file_read_at(r->fd, &before, 1, portion->begin - 1, r->source->path));
    r->is_in_word = !ends_word(before);
    r->at = r->line = portion->begin;
    r->state =
        (struct hy3_item_state){.depth = portion->depth, portion->is_inside, portion->is_escaped};
    r->gap = AFTER_ITEM; /* where an item goes on */
    return r->state.depth == 1 && !r->state.is_inside ? find_gap(r, portion->begin) : HY3_OK;
}

hy3_status hy3_lines_begin(struct hy3_lines *lines, const struct hy3_source *source,
                           const struct hy3_portion *portion)
{
    if (lines->fd >= 0)
        close(lines->fd);
    lines->fd = -1;
    lines->source = source;
    lines->end = portion->end;
    lines->begin = lines->filled = 0;
    XXH3_64bits_reset(lines->hash);
    HY3_TRY(hy3_file_open(source->path, &lines->fd));
    if (source->layout != HY3_LAYOUT_LINES)
        return begin_items(lines, portion);
    lines->at = lines->line = portion->begin > 0 ? portion->begin - 1 : 0;
    if (portion->begin > 0) /* a line begins at `begin` only if the byte before ends one */
        HY3_TRY(skip_line(lines, portion->end, false));
    return HY3_OK;
}

static void strip(const char **line, int64_t *size, bool is_first)
{
    if (is_first && *size >= 3 && memcmp(*line, "\xef\xbb\xbf", 3) == 0) {
        *line += 3;
        *size -= 3;
    }
    if (*size > 0 && (*line)[*size - 1] == '\r')
        --*size;
}

/* Makes byte `i` behind r->begin available; false at the end of the file. */
static hy3_status have(struct hy3_lines *r, size_t i, bool *is_there)
{
    while (r->filled - r->begin <= i && r->at < r->source->size)
        HY3_TRY(fill(r));
    *is_there = r->filled - r->begin > i;
    return HY3_OK;
}

/* With a comma or a bracket too many, or too few, a file does not say what was meant. */
static hy3_status refuse(const struct hy3_lines *r, const char *what)
{
    HY3_FAIL(HY3_EFORMAT, "'%s' is not valid JSON: %s, at byte %lld", r->source->path, what,
             (long long)r->line);
}

/* Of an array: whether the byte, which stands between items or outside of it, begins an item. */
static hy3_status check_gap(struct hy3_lines *r, char c, bool *begins)
{
    bool is_outside = r->state.depth == 0;

    *begins = false;
    if (is_space(c))
        return HY3_OK;
    if (is_outside && c == '[') {
        r->gap = AFTER_OPENING;
        return HY3_OK;
    }
    if (is_outside)
        return refuse(r, "something stands outside of its list");
    if (c == '}')
        return refuse(r, "a brace closes nothing");
    if (c == ',' || c == ']') {
        if (r->gap == AFTER_COMMA || (r->gap == AFTER_OPENING && c == ','))
            return refuse(r, "an item is missing");
        r->gap = c == ',' ? AFTER_COMMA : AFTER_ITEM;
        return HY3_OK;
    }
    if (r->gap == AFTER_ITEM)
        return refuse(r, "a comma is missing between two items");
    *begins = true;
    return HY3_OK;
}

/* Whether the byte, which stands between items, begins one. */
static hy3_status check_between(struct hy3_lines *r, char c, bool *begins)
{
    *begins = false;
    if (r->line < 3 && strchr("\xef\xbb\xbf", c))
        return HY3_OK; /* a byte order mark */
    if (r->source->layout == HY3_LAYOUT_ARRAY)
        return check_gap(r, c, begins);
    *begins = !is_space(c) && c != ',';
    return HY3_OK;
}

/* Goes to the next item that begins in the portion; false if there is none. */
static hy3_status find_item(struct hy3_lines *r, bool *found)
{
    const int64_t base = r->source->layout == HY3_LAYOUT_ARRAY;
    bool is_there;
    char c;

    for (*found = false;;) {
        HY3_TRY(have(r, 0, &is_there));
        if (!is_there || r->line >= r->end)
            return HY3_OK;
        c = r->buffer[r->begin];
        if (!r->state.is_inside && r->state.depth <= base && !(r->is_in_word && !ends_word(c)))
            HY3_TRY(check_between(r, c, found));
        if (*found)
            return HY3_OK;
        r->is_in_word = r->state.is_inside || !ends_word(c);
        hy3_item_step(&r->state, c);
        r->begin++;
        r->line++;
    }
}

/* Bytes of the item at r->begin, all in the buffer; -1: more than a line may have, and skipped. */
static hy3_status measure_item(struct hy3_lines *r, int64_t *size)
{
    const int64_t base = r->state.depth;
    const char first = r->buffer[r->begin];
    bool is_list = first == '{' || first == '[', is_there = true, is_long = false;
    size_t n = 0;

    do {
        hy3_item_step(&r->state, r->buffer[r->begin + n++]);
        if ((int64_t)n > line_max()) { /* its bytes are not kept */
            XXH3_64bits_update(r->hash, r->buffer + r->begin, n);
            r->begin += n;
            r->line += (int64_t)n;
            n = 0;
            is_long = true;
        }
        HY3_TRY(have(r, n, &is_there));
    } while (is_there && (is_list ? r->state.is_inside || r->state.depth > base
                                  : r->state.is_inside || !ends_word(r->buffer[r->begin + n])));
    XXH3_64bits_update(r->hash, r->buffer + r->begin, n);
    *size = is_long ? -1 : (int64_t)n;
    if (is_long) {
        r->begin += n;
        r->line += (int64_t)n;
    }
    return HY3_OK;
}

static hy3_status next_item(struct hy3_lines *r, const char **line, int64_t *size)
{
    bool found;

    HY3_TRY(find_item(r, &found));
    if (!found)
        return HY3_OK;
    r->is_in_word = false;
    r->gap = AFTER_ITEM;
    HY3_TRY(measure_item(r, size));
    *line = *size < 0 ? "" : r->buffer + r->begin;
    if (*size < 0)
        return HY3_OK;
    r->begin += (size_t)*size;
    r->line += *size;
    return HY3_OK;
}

hy3_status hy3_lines_next(struct hy3_lines *lines, const char **line, int64_t *size)
{
    struct hy3_lines *r = lines;
    size_t searched = 0;
    bool is_first = r->line == 0;
    char *stop;

    *line = NULL;
    *size = 0;
    if (r->source->layout != HY3_LAYOUT_LINES)
        return next_item(r, line, size);
    if (r->line >= r->end || (r->begin == r->filled && r->at >= r->source->size))
        return HY3_OK;
    for (;;) {
        size_t there = r->filled - r->begin;

        stop = there > searched ? memchr(r->buffer + r->begin + searched, '\n', there - searched)
                                : NULL;
        searched = there;
        if (stop || r->at >= r->source->size || (int64_t)there > line_max())
            break;
        HY3_TRY(fill(r));
    }
    *size = stop ? stop - (r->buffer + r->begin) : (int64_t)searched;
    *line = r->buffer + r->begin;
    if (*size > line_max()) {
        *size = -1;
        *line = "";
        return skip_line(r, INT64_MAX, true);
    }
    searched = (size_t)*size + (stop != NULL);
    XXH3_64bits_update(r->hash, *line, searched);
    r->begin += searched;
    r->line += (int64_t)searched;
    strip(line, size, is_first);
    return HY3_OK;
}

uint64_t hy3_lines_hash(const struct hy3_lines *lines)
{
    return XXH3_64bits_digest(lines->hash);
}
