# SPDX-License-Identifier: Apache-2.0
# Includes that src/layers.txt (the first file) does not allow. A layer is a folder of src, or
# cuda; a subfolder with a line of its own ("ckpt/hf: ...") is its own layer; "programs" is src
# itself. A line names layers of the lines above it only, so the layers have no circle.
function layer(path,    parts, n)
{
    n = split(path, parts, "/")
    if (n > 2 && (parts[1] "/" parts[2]) in known)
        return parts[1] "/" parts[2]
    return n > 1 ? parts[1] : "programs"
}

function finding(what)
{
    print FILENAME ":" FNR ": layers: " what
}

FILENAME == "src/layers.txt" {
    if (/^#/ || !/:/)
        next
    split($0, half, ":")
    known[half[1]] = 1
    n = split(half[2], names, " ")
    for (i = 1; i <= n; i++) {
        if (names[i] == half[1] || !(names[i] in known))
            finding(half[1] " -> " names[i] ", which has no line above")
        may[half[1], names[i]] = 1
    }
    next
}
FNR == 1 {
    path = FILENAME
    sub(/^src\//, "", path)
    from = layer(path)
    if (!(from in known))
        finding("'" from "' has no line in src/layers.txt")
}
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    if (quoted[2] == "config.h")
        next
    if (quoted[2] !~ /\//) {
        finding("write \"" quoted[2] "\" with its folder")
        next
    }
    to = layer(quoted[2])
    if (to != from && to != "base" && !((from, to) in may))
        finding(from " must not include " to)
}
