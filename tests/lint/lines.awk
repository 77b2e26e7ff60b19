# SPDX-License-Identifier: Apache-2.0
# Lines of C, CUDA and C++ that are neither blank nor comment: "FOLDER LINES" for each src/<folder>,
# src (its own files) and cuda, which may lie in src.
FNR == 1 {
    comment = 0
    quote = ""
    n = split(FILENAME, parts, "/")
    folder = n > 2 ? parts[1] "/" parts[2] : "src"
    if (parts[1] == "cuda" || folder == "src/cuda")
        folder = "cuda"
}
{
    rest = $0
    code = 0
    while (rest != "") {
        if (comment) {
            i = index(rest, "*/")
            rest = i ? substr(rest, i + 2) : ""
            comment = !i
        } else if (quote != "") { # in a string or character constant
            code = 1
            if (!match(rest, /[\\"\047]/))
                break
            c = substr(rest, RSTART, 1)
            rest = substr(rest, RSTART + (c == "\\" ? 2 : 1))
            if (c == quote)
                quote = ""
        } else {
            i = match(rest, /\/[*]|\/\/|["\047]/)
            before = i ? substr(rest, 1, i - 1) : rest
            if (before ~ /[^ \t\r\f]/)
                code = 1
            c = i ? substr(rest, i, RLENGTH) : "//"
            if (c == "//")
                break
            rest = substr(rest, i + RLENGTH)
            if (c == "/*") {
                comment = 1
            } else {
                code = 1
                if (c == "\"" || before !~ /[0-9]$/) # 1'000 of C++ is a number
                    quote = c
            }
        }
    }
    if (!/\\$/)
        quote = ""
    lines[folder] += code
}
END {
    for (folder in lines)
        print folder, lines[folder]
}
