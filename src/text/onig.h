/* SPDX-License-Identifier: Apache-2.0 */
/* onig.h - a pattern of Oniguruma's Ruby syntax as PCRE2 must read it. */
#pragma once

#include "text/text.h"

/* Local. Appends the translation. Errors: HY3_EFORMAT naming `where` and the construct. */
hy3_status hy3_onig_translate(const char *source, const char *where, struct hy3_text *out);
