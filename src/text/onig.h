/* onig.h - a pattern of Oniguruma's Ruby syntax as PCRE2 must read it. */
#ifndef HY3_TEXT_ONIG_H
#define HY3_TEXT_ONIG_H

#include "text/template.h"

/* What Oniguruma calls a word character, as the inside of a class. */
#define HY3_ONIG_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe"

/* Local. Appends the translation. Errors: HY3_EFORMAT naming `where` and the construct. */
hy3_status hy3_onig_translate(const char *source, const char *where, struct hy3_text *out);

#endif
