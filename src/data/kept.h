/* SPDX-License-Identifier: Apache-2.0 */
/* kept.h - the pieces of tokenized data that a run which was ended left for the next one. */
#pragma once

#include "data/tokenized.h"

#include <jansson.h>

/* Collective on `comm`. Looks for what is there, and tells of it. Short work is not kept. */
hy3_status hy3_kept_open(MPI_Comm comm, struct hy3_tokenized *t,
                         const struct hy3_tokenizer *tokenizer);

/* Local. Takes the portions [first, end) of a piece over, if its record is sound: their counts,
 * samples and all else, as if they had been tokenized now. */
hy3_status hy3_kept_take(struct hy3_tokenized *t, int64_t piece, int64_t first, int64_t end,
                         bool *taken);

/* Local. Keeps the portions [first, end), which have been tokenized. */
hy3_status hy3_kept_put(struct hy3_tokenized *t, int64_t piece, int64_t first, int64_t end);

/* Local. The keys of a line that were not read, for the record of its piece. */
hy3_status hy3_kept_note(struct hy3_tokenized *t, int64_t portion, int64_t line, json_t *names);
