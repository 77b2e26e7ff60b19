/* SPDX-License-Identifier: Apache-2.0 */
/* printable.c - control characters are replaced. */
#include "base/printable.h"

void hy3_make_printable(char *text, bool keeps_lines)
{
    char *to = text;

    for (const char *from = text; *from; from++) {
        unsigned char c = (unsigned char)from[0], next = (unsigned char)from[1];
        bool is_c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;
        bool is_line = keeps_lines && (c == '\n' || c == '\t');

        *to = from[0];
        if ((c < 0x20 && !is_line) || c == 0x7f || is_c1)
            *to = '?';
        to++;
        from += is_c1;
    }
    *to = '\0';
}
