/* SPDX-License-Identifier: Apache-2.0 */
/* span.h - a range of consecutive elements: of a flattened tensor, unless a comment says of what
 * else. */
#pragma once

#include <stdint.h>

struct hy3_span {
    int64_t first, count;
};

/* The element behind the last one. */
static inline int64_t hy3_span_end(struct hy3_span span)
{
    return span.first + span.count;
}

/* The elements of both; none at the start of a if they have none in common. */
static inline struct hy3_span hy3_span_intersect(struct hy3_span a, struct hy3_span b)
{
    int64_t first = a.first > b.first ? a.first : b.first;
    int64_t end = hy3_span_end(a) < hy3_span_end(b) ? hy3_span_end(a) : hy3_span_end(b);

    return end > first ? (struct hy3_span){first, end - first} : (struct hy3_span){a.first, 0};
}

/* The next `most` elements, or fewer at the end, after the first `done` elements of the span. */
static inline struct hy3_span hy3_span_piece(struct hy3_span span, int64_t done, int64_t most)
{
    int64_t rest = span.count - done;

    return (struct hy3_span){span.first + done, most < rest ? most : rest};
}

/* The part of `count` elements that falls to a rank when all `ranks` ranks share them evenly. */
static inline struct hy3_span hy3_span_share(int64_t count, int64_t rank, int64_t ranks)
{
    int64_t each = count / ranks, rest = count % ranks;

    return (struct hy3_span){each * rank + (rank < rest ? rank : rest), each + (rank < rest)};
}
