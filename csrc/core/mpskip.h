/* Finds the end of a msgpack item without decoding it.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * msgpack gives no item its length in bytes, but every item says in its first bytes how long it is itself and how many
 * items it contains. So one number is enough to walk over any nesting: how many items are still due. It starts at 1;
 * each item pays one off and adds its children; at 0 the end is reached. Depth costs nothing, for no stack is kept:
 *
 *     93 01 92 c0 c4 02 61 62 90          due 1
 *     93                                      3      an array of 3: one paid, three more
 *        01                                   2
 *           92                                3      its array of 2
 *              c0                             2
 *                 c4 02 61 62                 1      a bin: its bytes are stepped over in one go
 *                             90              0      an empty array: the end
 *
 * Each item still due takes a byte at least, so at + due is a length the whole cannot fall below. The walk ends as soon
 * as that exceeds the limit, which is long before a lying count has cost anything.
 */
#ifndef NL_MPSKIP_H
#define NL_MPSKIP_H

#include <stddef.h>
#include <stdint.h>

typedef enum nl_mp_result {
    NL_MP_DONE,         /* nothing is due; `at` is the end, and p holds all of it */
    NL_MP_MORE,         /* call again with `need` bytes or more */
    NL_MP_OVER,         /* the whole must be longer than the limit; `at` is the item that says so */
    NL_MP_BAD           /* the byte 0xc1, which begins nothing, stands at `at` */
} nl_mp_result;

typedef struct nl_mpskip {
    size_t   at;        /* everything below is done with. Runs ahead of the bytes at hand inside a long string */
    uint64_t due;       /* items still to come */
    size_t   need;      /* result of NL_MP_MORE: the least n that can change anything; above n, at most the limit */
} nl_mpskip;

/* Walks on through p[at..n) until nothing is due. `p` is the same run at every call, grown at its end; it may have
 * moved. Before the first call set at and due, with at + due <= limit; the skipper keeps it so. After NL_MP_OVER and
 * NL_MP_BAD there is nothing to go on with. */
nl_mp_result nl_mp_skip(nl_mpskip *skip, const uint8_t *p, size_t n, size_t limit);

const char *nl_mp_name(uint8_t first);      /* what an item is by its first byte: "a map", "nil", ... */

#endif
