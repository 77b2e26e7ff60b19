# SPDX-License-Identifier: Apache-2.0
# Promises and their tests: in a document's tables with a column "held by" each row names at least
# one test as FILE: "NAME", and each file has a test of that name: @test "NAME" of a .bats file, a
# function NAME(void **state) of a C file, relative to the current directory.
function has_test(file, name,    line, found, head)
{
    head = file ~ /[.]bats$/ ? "@test \"" name "\" {" : "static void " name "(void **"
    while (!found && (getline line <file) > 0)
        found = index(line, head) == 1
    close(file)
    return found
}

function finding(what)
{
    print FILENAME ":" FNR ": promises: " what
}

/^[|].*[|] held by [|]$/ {
    in_table = 1
    next
}

!/^[|]/ {
    in_table = 0
}

in_table && !/^[|]-/ {
    tests = 0
    rest = $0
    while (match(rest, /tests\/[A-Za-z0-9_.\/]+: "[^"]*"/)) {
        named = substr(rest, RSTART, RLENGTH)
        rest = substr(rest, RSTART + RLENGTH)
        colon = index(named, ":")
        file = substr(named, 1, colon - 1)
        name = substr(named, colon + 3, length(named) - colon - 3)
        tests++
        if (!has_test(file, name))
            finding(file " has no test \"" name "\"")
    }
    if (tests == 0)
        finding("a promise without a test")
}
