/* SPDX-License-Identifier: Apache-2.0 */
/* nearest.h - how far one word is from another, for "did you mean". */
#pragma once

/* Fewest insertions, deletions, replacements and exchanges of neighbours that turn `a` into `b`
 * (Damerau 1964, restricted: no place is edited twice). Only the first 63 bytes of a word count. */
int hy3_edit_distance(const char *a, const char *b);

/* Whether a word at that distance is worth suggesting for `word`: at most a third of its letters
 * differ, and at most 4. */
int hy3_edit_limit(const char *word);
