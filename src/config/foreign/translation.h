/* SPDX-License-Identifier: Apache-2.0 */
/* translation.h - a translation under way: for the files of this folder. */
#pragma once

#include "config/foreign/keys.h"
#include "config/foreign/scalar.h"
#include "config/options.h"
#include "config/settings.h"

struct hy3_translation {
    enum hy3_origin origin;
    const char *path;                 /* of the file, NULL: flags */
    const struct hy3_settings *given; /* theirs */
    struct hy3_settings *ours;
    struct hy3_list *notes;
    int ranks; /* 0: not known */
    struct hy3_problems *problems;
    struct hy3_list unused; /* names of keys without a meaning here */
};

/* Local. The setting of theirs, NULL where it is not given or null. */
const struct hy3_setting *hy3_theirs(const struct hy3_translation *t, const char *key);

/* Local. The setting of ours so far, NULL if there is none. */
const struct hy3_setting *hy3_ours(const struct hy3_translation *t, const char *key);

/* Local. The first text of a setting of ours, NULL if there is none. */
const char *hy3_ours_text(const struct hy3_translation *t, const char *key);

/* Local. What a scalar says; NULL for lists. */
const char *hy3_setting_text(const struct hy3_setting *s);

/* Local. Adds a setting of ours; theirs: what it comes from, for messages; NULL: a default. */
hy3_status hy3_put_text(struct hy3_translation *t, const struct hy3_setting *theirs,
                        const char *key, const char *text);
hy3_status hy3_put_truth(struct hy3_translation *t, const struct hy3_setting *theirs,
                         const char *key, bool truth);
hy3_status hy3_put_number(struct hy3_translation *t, const struct hy3_setting *theirs,
                          const char *key, double value);
hy3_status hy3_put_list(struct hy3_translation *t, const struct hy3_setting *theirs,
                        const char *key, const struct hy3_list *texts);

/* Local. Takes a setting of ours back, for one that wins. */
void hy3_drop_ours(struct hy3_translation *t, const char *key);

/* Local. By the type of our key. values: "theirs=ours …", or NULL. */
hy3_status hy3_put_plain(struct hy3_translation *t, const struct hy3_setting *theirs,
                         const char *key, const char *values);

/* Local. The texts of a list, or of a text split at its commas; the caller frees *texts. */
hy3_status hy3_split_texts(const struct hy3_setting *s, struct hy3_list *texts);

/* Local. Puts the texts of a text with commas. */
hy3_status hy3_put_words(struct hy3_translation *t, const struct hy3_setting *theirs,
                         const char *key, const char *words);

/* Local. Whether a list has more in it than texts; the problem is then told. */
bool hy3_refuse_mixed(struct hy3_translation *t, const struct hy3_setting *s);

/* Local. A line for the log; a name for the list of unused keys. */
hy3_status hy3_note(struct hy3_translation *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
hy3_status hy3_note_unused(struct hy3_translation *t, const char *name);

/* Local. The path of an input: as it is, or in the directory of the file that names it (the page
 * doc/migration.md). inside: a file that must be in it, or NULL. from: the naming file. */
hy3_status hy3_find_input(struct hy3_translation *t, const char *from, const char *path,
                          const char *inside, char out[HY3_PATH_MAX]);

/* Local. Treats one setting as its entry says. */
hy3_status hy3_translate_setting(struct hy3_translation *t, const struct hy3_setting *s);

/* Local. A mapped key of another kind than HY3_HOW_PLAIN. */
hy3_status hy3_translate_special(struct hy3_translation *t, const struct hy3_foreign_key *k,
                                 const struct hy3_setting *s);

/* Local. The data sets of ms-swift. */
hy3_status hy3_put_swift_data(struct hy3_translation *t, const struct hy3_setting *s,
                              const char *key);

/* Local. Single keys of ms-swift: system, loss_scale, target_parameters. */
hy3_status hy3_put_swift_system(struct hy3_translation *t, const struct hy3_setting *s);
hy3_status hy3_put_swift_loss(struct hy3_translation *t, const struct hy3_setting *s);
hy3_status hy3_put_swift_parameters(struct hy3_translation *t, const struct hy3_setting *s);

/* Local. When all keys are there: what only ms-swift needs, and has where it is silent. */
hy3_status hy3_translate_swift(struct hy3_translation *t);

/* Local. When all keys are there: those that repeat the model's config.json. */
hy3_status hy3_check_model(struct hy3_translation *t);

/* Local. Whether the value is one that switches things off: false, 0, none, no, "" or []. */
bool hy3_is_off(const struct hy3_setting *s);

/* Local. Whether two scalars are the same value: as texts, truths or numbers. */
bool hy3_is_same_scalar(const char *a, const char *b);

/* Local. What needs several keys: alpha of rank, evaluation, defaults that depend on others. */
hy3_status hy3_translate_rest(struct hy3_translation *t);

/* Local. What "deepspeed" names, or the map it is: after all others, which it must agree with. */
hy3_status hy3_translate_deepspeed(struct hy3_translation *t);
