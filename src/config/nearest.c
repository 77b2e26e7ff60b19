/* SPDX-License-Identifier: Apache-2.0 */
/* nearest.c - edit distance. */
#include "config/nearest.h"

#include <string.h>

enum { LETTERS = 63 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

int hy3_edit_distance(const char *a, const char *b)
{
    int rows = (int)strnlen(a, LETTERS), columns = (int)strnlen(b, LETTERS);
    int d[LETTERS + 1][LETTERS + 1];

    for (int i = 0; i <= rows; i++)
        d[i][0] = i;
    for (int j = 0; j <= columns; j++)
        d[0][j] = j;
    for (int i = 1; i <= rows; i++) {
        for (int j = 1; j <= columns; j++) {
            int replaced = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

            d[i][j] = least(replaced, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[rows][columns];
}

int hy3_edit_limit(const char *word)
{
    int third = ((int)strlen(word) + 2) / 3;

    return least(third, 4);
}
