/* SPDX-License-Identifier: Apache-2.0 */
/* keys.c - the keys that are read, level by level, and what becomes of the others. */
#include "text/keys.h"

#include "base/printable.h"

#include <ctype.h>

enum { SHOWN_MAX = 60, NAME_MAX_BYTES = 160 }; /* bytes of a key in a message; of a noted name */

struct level {
    const char *name;         /* before the key */
    const char *const *known; /* those a misspelling is compared with, then the others */
    size_t aliases;           /* how many of `known` are only other names */
};

static const char *const line_keys[] = {"messages", "reasoning_effort", "tools", NULL};
static const char *const message_keys[] = {
    "role",      "content", "reasoning_content", "tool_calls", "thinking",
    "reasoning", "loss",    "loss_weight",       "weight",     NULL};
const char *const hy3_reasoning_names[HY3_REASONING_NAMES] = {"reasoning_content", "thinking",
                                                              "reasoning"};
static const char *const part_keys[] = {"text", "type", NULL};
static const char *const call_keys[] = {"function", NULL};
static const char *const function_keys[] = {"name", "arguments", NULL};

static const struct level levels[HY3_LEVELS] = {
    [HY3_LEVEL_LINE] = {"", line_keys, 0},
    [HY3_LEVEL_MESSAGE] = {"messages[].", message_keys, 5},
    [HY3_LEVEL_PART] = {"messages[].content[].", part_keys, 2},
    [HY3_LEVEL_CALL] = {"messages[].tool_calls[].", call_keys, 1},
    [HY3_LEVEL_PLAIN_CALL] = {"messages[].tool_calls[].", function_keys, 2},
    [HY3_LEVEL_FUNCTION] = {"messages[].tool_calls[].function.", function_keys, 2},
};

/* The key without case, underscores and dashes, as far as there is room: "lossWeight" and
 * "loss-weight" are "lossweight". */
static void squeeze(const char *key, char *out, size_t size)
{
    size_t used = 0;

    for (; *key && used + 1 < size; key++)
        if (*key != '_' && *key != '-')
            out[used++] = (char)tolower((unsigned char)*key);
    out[used] = '\0';
}

static bool is_known(const char *key, const char *const *known)
{
    for (; *known; known++)
        if (strcmp(key, *known) == 0)
            return true;
    return false;
}

/* Levenshtein's distance without regard to case; large for words over 31 characters. */
static size_t distance(const char *a, const char *b)
{
    size_t row[32], n = strlen(b), diagonal, above;

    if (strlen(a) > 31 || n > 31)
        return 100;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (tolower((unsigned char)a[i]) != b[j]);

            diagonal = above = row[j + 1];
            above = above < row[j] ? above + 1 : row[j] + 1;
            row[j + 1] = change < above ? change : above;
        }
    }
    return row[n];
}

/* An unknown key that looks like a misspelling of a known one that is absent. */
static hy3_status check_spelling(json_t *object, const char *key, const struct level *level,
                                 const char *place)
{
    size_t count = 0;

    while (level->known[count])
        count++;
    for (size_t i = 0; i < count - level->aliases; i++)
        if (!json_object_get(object, level->known[i]) &&
            distance(key, level->known[i]) <= (strlen(level->known[i]) < 6 ? 1 : 2))
            HY3_FAIL(HY3_EFORMAT, "%sunknown key '%s'; did you mean '%s'?", place, key,
                     level->known[i]);
    return HY3_OK;
}

static bool is_number(const json_t *value, double number)
{
    return json_is_number(value) && json_number_value(value) == number;
}

/* Whether one of the key's words speaks of learning: "train_on_turn", "noLoss", "token-weights". */
static bool speaks_of_learning(const char *key)
{
    static const char *const words[] = {
        "loss",     "losses", "weight",     "weights",   "mask",      "masks", "masked",
        "masking",  "train",  "trained",    "training",  "trainable", "learn", "learned",
        "learning", "learnt", "supervised", "learnable", NULL};
    char word[16], last = '\0'; /* more than 15 letters match nothing */
    size_t length = 0;

    for (;; last = *key++) {
        if (!isalpha((unsigned char)*key) ||
            (isupper((unsigned char)*key) && islower((unsigned char)last))) {
            word[length] = '\0';
            if (is_known(word, words))
                return true;
            length = 0;
        }
        if (*key == '\0')
            return false;
        if (isalpha((unsigned char)*key) && length + 1 < sizeof word)
            word[length++] = (char)tolower((unsigned char)*key);
    }
}

/* Other programs leave a message out of the loss, or weigh it, by these. The value that means what
 * hy3 does anyway is accepted. is_learned: whether the object is, as an answer or a whole line. */
static hy3_status check_learning(const char *key, const json_t *value, bool is_learned,
                                 const char *place, bool *is_understood)
{
    static const char *const weights[] = {
        "weight",      "weights",    "loss",       "train",        "training",  "trainable",
        "trained",     "istrained",  "istrain",    "istraining",   "dotrain",   "learn",
        "learned",     "learnable",  "supervised", "calloss",      "calcloss",  "doloss",
        "computeloss", "useloss",    "hasloss",    "inloss",       "isinloss",  "includeinloss",
        "lossweight",  "weightloss", "lossscale",  "trainon",      "trainthis", "issupervised",
        "trainonturn", "trainturn",  "islearned",  "sampleweight", NULL};
    static const char *const masks[] = {"mask",      "masked",      "lossmask",
                                        "labelmask", "trainmask",   "trainingmask",
                                        "labels",    "traindetail", NULL};
    static const char *const exclusions[] = {"ignore",  "ignored",  "skip", "skipped",
                                             "exclude", "excluded", NULL};
    char name[32];
    bool is_one = json_is_true(value) || is_number(value, 1);
    bool is_none = json_is_false(value) || is_number(value, 0);
    bool is_weight, changes;

    squeeze(key, name, sizeof name);
    is_weight = is_known(name, weights);
    *is_understood = is_weight && is_learned && is_one;
    if (*is_understood || json_is_null(value))
        return HY3_OK; /* null: as if it were absent */
    if (is_weight && !is_learned && (is_one || is_none))
        return HY3_OK; /* a question is not learned, with or without */
    changes = is_weight || is_known(name, masks) || (is_known(name, exclusions) && !is_none);
    /* "label": false marks an answer that is not wanted; other values are names of classes */
    if (strcmp(name, "label") == 0)
        changes = is_none;
    else if (!changes && !json_is_string(value)) /* a text is a description */
        changes = speaks_of_learning(key);
    if (changes)
        HY3_FAIL(HY3_EFORMAT,
                 "%s'%.*s' would change what is learned; an answer has 'loss' (true, false) and "
                 "'loss_weight' for that; remove the key, or leave out the line",
                 place, SHOWN_MAX, key);
    return HY3_OK;
}

/* Appends a key so that a terminal shows it harmlessly; a long one is truncated. */
static void put_key(const char *key, char *out, size_t size)
{
    size_t length = strlen(key), limit = SHOWN_MAX < size - 1 ? SHOWN_MAX : size - 1;

    if (length > limit) {
        length = limit;
        while (length > 0 && ((unsigned char)key[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(out, key, length);
    out[length] = '\0';
    hy3_make_printable(out, false);
}

hy3_status hy3_keys_note(enum hy3_level level, const char *key, const char *why, json_t *unread)
{
    char name[NAME_MAX_BYTES], shown[SHOWN_MAX + 1];

    put_key(key, shown, sizeof shown);
    snprintf(name, sizeof name, "%s%s%s", levels[level].name, shown, why);
    if (json_object_size(unread) >= HY3_KEYS_NOTED && !json_object_get(unread, name))
        snprintf(name, sizeof name, "%s", HY3_KEYS_OTHERS);
    if (json_object_set_new(unread, name, json_true()) != 0)
        HY3_FAIL(HY3_ENOMEM, "out of host memory while reading a line");
    return HY3_OK;
}

/* Pictures and sound are part of what is said; of two answers one is not to be learned. */
static hy3_status check_kind(const char *key, const json_t *value, const char *place)
{
    static const char *const media[] = {"image", "images", "video", "videos",
                                        "audio", "audios", NULL};
    static const char *const preferences[] = {"chosen", "rejected", "kto_tag", NULL};
    bool is_given = json_string_length(value) > 0 || json_array_size(value) > 0 ||
                    json_object_size(value) > 0 || json_is_true(value) || json_is_number(value);

    if (is_known(key, media) && is_given)
        HY3_FAIL(HY3_EFORMAT, "%s'%s' cannot be trained on; leave out the line, or the key", place,
                 key);
    if (is_known(key, preferences) && (is_given || json_is_false(value)))
        HY3_FAIL(HY3_EFORMAT,
                 "%s'%s' is for training on preferences, not for fine-tuning; leave out the line, "
                 "or the key",
                 place, key);
    return HY3_OK;
}

hy3_status hy3_keys_check(json_t *object, enum hy3_level level, const char *place, json_t *unread)
{
    const struct level *l = &levels[level];
    const char *key;
    json_t *value;
    const char *role = json_string_value(json_object_get(object, "role"));
    bool is_learned = level != HY3_LEVEL_MESSAGE || !role || strcmp(role, "assistant") == 0;
    bool is_understood;

    json_object_foreach(object, key, value)
    {
        if (is_known(key, l->known))
            continue;
        HY3_TRY(check_kind(key, value, place));
        HY3_TRY(check_learning(key, value, is_learned, place, &is_understood));
        if (is_understood)
            continue;
        HY3_TRY(check_spelling(object, key, l, place));
        HY3_TRY(hy3_keys_note(level, key, "", unread));
    }
    return HY3_OK;
}
