/* SPDX-License-Identifier: Apache-2.0 */
/* printable.h - text of a file as a terminal may be shown it: control characters can change its
 * title, its colours or what was printed before. */
#pragma once

#include <stdbool.h>

/* Local. Replaces every control character (C0, DEL, and C1 in UTF-8) in place by '?'. keeps_lines:
 * not newline and tab. */
void hy3_make_printable(char *text, bool keeps_lines);
