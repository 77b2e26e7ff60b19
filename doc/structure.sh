#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The picture of the folders in doc/design.md, made from the #include lines of src/ and cuda/.
#   bash doc/structure.sh            prints it
#   bash doc/structure.sh --write    puts it into doc/design.md, between the two marker lines
#   bash doc/structure.sh --check    fails if the picture in doc/design.md is not this one
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "$0")/.." && pwd)
page=$top/doc/design.md
begin='<!-- structure: made by doc/structure.sh -->'
end='<!-- end of structure -->'

sources() {
    find src cuda -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \
        -o -name '*.inc' ! -name Makefile.inc \) | sort
}

# Rows and columns have one order: the highest layer first, the later line of layers.txt first.
# A folder's layer is 1 + the highest layer among the folders it includes.
# shellcheck disable=SC2046 # the names of sources have no blanks
picture() {
    cd "$top"
    awk '
    FILENAME == "src/layers.txt" {
        if (/^#/ || !/:/) next
        sub(/:.*/, "")
        known[$0] = 1
        name[count++] = $0
        next
    }

    # the folder of a path that begins below src, as layers.txt has it; sets subfolder
    function folder_of(path,    n, part, folder) {
        n = split(path, part, "/")
        folder = n > 1 ? part[1] : "programs"
        subfolder = n > 2 ? part[2] : ""
        if (subfolder == "" || !((folder "/" subfolder) in known)) return folder
        folder = folder "/" subfolder
        subfolder = n > 3 ? part[3] : ""
        return folder
    }

    FNR == 1 {
        path = FILENAME
        sub(/^src\//, "", path)
        from = folder_of(path)
        files[from]++
        if (subfolder != "" && !subfiles[from, subfolder]++)
            subfolders[from] = subfolders[from] " " subfolder
    }
    /^[ \t]*#[ \t]*include[ \t]*"[^"]*\// {
        split($0, quoted, "\"")
        to = folder_of(quoted[2])
        if (to != from) includes[from, to] = 1
    }

    function is_arrow(r, c) { return (name[order[r]], name[order[c]]) in includes }

    function sort_by_layer(    round, i, j, level) {
        for (round = 0; round < count; round++)
            for (i = 0; i < count; i++)
                for (j = 0; j < count; j++)
                    if ((name[i], name[j]) in includes && layer[i] <= layer[j])
                        layer[i] = layer[j] + 1
        for (level = count; level >= 0; level--)
            for (i = count - 1; i >= 0; i--)
                if (layer[i] + 0 == level) order[rows++] = i
    }

    function between_layers(r,    c) {
        printf "%*s", 21 + 3 * r, ""
        for (c = r; c < rows; c++) printf "  %s", line[c] ? "│" : " "
        print ""
    }

    function row(r, is_first,    c, last) {
        printf "%5s%*s ", is_first ? layer[order[r]] + 0 : "", 17 + 3 * r, \
            name[order[r]] " " files[name[order[r]]]
        printf "%s", line[r] ? "▼" : "■"
        for (c = last = r; c < rows; c++) if (is_arrow(r, c)) last = c
        for (c = r + 1; c < rows; c++) {
            printf "%s", c <= last ? "──" : "  "
            if (is_arrow(r, c)) { printf "●"; line[c] = 1 }
            else if (line[c]) printf "%s", c < last ? "┼" : "│"
            else printf "%s", c < last ? "─" : " "
        }
        print ""
    }

    END {
        sort_by_layer()
        print "layer  folder, files"
        for (r = 0; r < rows; r++) {
            is_first = r == 0 || layer[order[r]] != layer[order[r - 1]]
            if (is_first && r > 0) between_layers(r)
            row(r, is_first)
        }
        print ""
        for (r = 0; r < rows; r++) {
            folder = name[order[r]]
            n = split(subfolders[folder], sub_name, " ")
            if (n > 0) printf "subfolders of %s:", folder
            for (i = 1; i <= n; i++)
                printf "%s %s %d", (i > 1 ? "," : ""), sub_name[i], subfiles[folder, sub_name[i]]
            if (n > 0) print ""
        }
    }' src/layers.txt $(sources) | sed 's/ *$//'
}

# what stands between the marker lines
wanted() {
    echo '```text'
    picture
    echo '```'
}

case ${1:-} in
'') picture ;;
--write)
    if ! grep -qxF "$begin" "$page" || ! grep -qxF "$end" "$page"; then
        echo "doc/design.md has lost its marker lines '$begin' and '$end'" >&2
        exit 1
    fi
    new=$(mktemp)
    trap 'rm -f "$new"' EXIT
    sed "\\|^$begin\$|q" "$page" >"$new"
    wanted >>"$new"
    sed -n "\\|^$end\$|,\$p" "$page" >>"$new"
    cat "$new" >"$page"
    ;;
--check)
    if ! diff <(sed -n "\\|^$begin\$|,\\|^$end\$|p" "$page" | sed '1d;$d') <(wanted); then
        echo "doc/design.md shows another structure; run: bash doc/structure.sh --write"
        exit 1
    fi
    ;;
*)
    sed -n '3,6s/^# //p' "$0" >&2
    exit 2
    ;;
esac
