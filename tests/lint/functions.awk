# SPDX-License-Identifier: Apache-2.0
# Functions of C, CUDA and C++ files laid out by clang-format, a line each:
#   FILE <tab> LINE <tab> LENGTH <tab> NAME      LENGTH: from the signature's first line to the "}"
# A body is what stands between "{" and "}" in column 0. A signature is the lines before it without
# a blank line, a comment, a directive or the end of another declaration in between.
FNR == 1 { body = first = 0; signature = "" }

body && /^}/ {
    if (name != "")
        printf "%s\t%d\t%d\t%s\n", FILENAME, first, FNR - first + 1, name
    body = first = 0
    signature = ""
    next
}
body { next }
/^[{]/ {
    if (signature ~ /^namespace|^extern "C"/) { # the functions in it stand in column 0 too
        first = 0
        signature = ""
        next
    }
    body = 1
    name = ""
    gsub(/__launch_bounds__\([^)]*\)|__attribute__\(\([^)]*\)\)/, "", signature)
    if (match(signature, /[A-Za-z_][A-Za-z0-9_:~]* *\(/)) {
        name = substr(signature, RSTART, RLENGTH - 1)
        sub(/ +$/, "", name)
    }
    if (!first)
        first = FNR
    next
}
/^[ \t]*$/ || /^[ \t]*(#|\/\/|\/[*]| [*])/ || /[;}\\][ \t]*$/ || /[*]\/[ \t]*$/ {
    first = 0
    signature = ""
    next
}
{
    if (!first)
        first = FNR
    signature = signature $0 " "
}
