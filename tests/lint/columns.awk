# SPDX-License-Identifier: Apache-2.0
# Lines of more than `limit` columns. Columns are characters; a tab ends at a multiple of 8.
# Run with LC_ALL=C: mawk counts bytes, so the continuation bytes of UTF-8 are removed first.
#   -v limit=100 [-v document=1]    document: Markdown, where tables and command lines may be longer
FNR == 1 { free = fence = 0 }
FILENAME ~ /[.](c|h|inc|cu|cuh|cpp)$/ && /(\/[*]|\/\/) *clang-format off/ { free = 1 }
FILENAME ~ /[.](c|h|inc|cu|cuh|cpp)$/ && /(\/[*]|\/\/) *clang-format on/ { free = 0 }
document && /^ *(```|~~~)/ { fence = !fence }
free || fence || length($0) <= limit / 8 { next }
/https?:\/\// { next }
document && (/^[|]/ || /^(    |\t)/) { next }
{
    line = $0
    gsub(/[\200-\277]/, "", line)
    n = split(line, pieces, "\t")
    columns = 0
    for (i = 1; i <= n; i++) {
        columns += length(pieces[i])
        if (i < n)
            columns += 8 - columns % 8
    }
    if (columns > limit)
        print FILENAME ":" FNR ": columns: " columns " columns, at most " limit
}
