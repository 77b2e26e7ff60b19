# SPDX-License-Identifier: Apache-2.0
# Circles of includes among modules. A module is a path without its extension: x.c and x.h are one.
# It depends on each module whose header one of its files includes. A finding is a strongly
# connected component of more than one module (Tarjan's algorithm).
function module(path)
{
    sub(/^src\//, "", path)
    sub(/[.][^.\/]*$/, "", path)
    return path
}

function visit(v,    list, n, i, w)
{
    found[v] = low[v] = ++visited
    stack[++top] = v
    open[v] = 1
    n = split(targets[v], list, " ")
    for (i = 1; i <= n; i++) {
        w = list[i]
        if (!(w in found)) {
            visit(w)
            if (low[w] < low[v])
                low[v] = low[w]
        } else if (open[w] && found[w] < low[v]) {
            low[v] = found[w]
        }
    }
    if (low[v] != found[v])
        return
    do {
        w = stack[top--]
        open[w] = 0
        component[w] = v
    } while (w != v)
}

FNR == 1 { from = module(FILENAME) }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    to = module(quoted[2])
    if (to == from || (from, to) in edge)
        next
    edge[from, to] = 1
    targets[from] = targets[from] " " to
    edges++
    tail[edges] = from
    head[edges] = to
    place[edges] = FILENAME ":" FNR
}

END {
    for (e = 1; e <= edges; e++)
        if (!(tail[e] in found))
            visit(tail[e])
    for (e = 1; e <= edges; e++) {
        c = component[tail[e]]
        if (c != component[head[e]])
            continue
        if (!(c in first)) {
            first[c] = place[e]
            order[++circles] = c
        }
        text[c] = text[c] (text[c] == "" ? "" : ", ") tail[e] " -> " head[e]
    }
    for (i = 1; i <= circles; i++)
        print first[order[i]] ": circles: " text[order[i]]
}
