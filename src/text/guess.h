/* SPDX-License-Identifier: Apache-2.0 */
/* guess.h - the form of a line by its keys, as ms-swift finds it (dataset/preprocessor/core.py). */
#pragma once

#include "text/form.h"

/* Local. `form` as it is for a line of "messages" with roles; else that of turns with "from" and
 * "value", or of columns for question and answer: query, prompt, input, instruction, question,
 * problem; response, answer, output …; "instruction" with "input" are alpaca's. Of several columns
 * for the same, `query`, `response` and `system` count. Errors: HY3_EFORMAT, where none of them
 * does. */
hy3_status hy3_form_guess(const struct hy3_form *form, const json_t *line, struct hy3_form *out);
