/* Fuzzing the msgpack skipper: bytes in parts give what the same bytes give at once, and it agrees with a plain
 * recursive reader.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first byte of an input is the limit (times 16), the second the pace at which bytes arrive; the rest is the item.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mpskip.h"

#define MUST(what) do { if (!(what)) abort(); } while (0)
#define DEEP 2000       /* further down the reader does not follow, for its stack's sake */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct reader { const uint8_t *p; size_t n, at; bool bad, cut, deep; } reader;

static uint64_t number(reader *r, unsigned bytes)
{
    uint64_t v = 0;

    for (; bytes; bytes--) {
        if (r->at >= r->n) {
            r->cut = true;
            return 0;
        }
        v = v << 8 | r->p[r->at++];
    }
    return v;
}

static void step(reader *r, uint64_t bytes)
{
    if (r->cut || bytes > r->n - r->at)
        r->cut = true;
    else
        r->at += (size_t)bytes;
}

static void item(reader *r, int depth);

static void items(reader *r, uint64_t count, int depth)
{
    for (; count && !r->cut && !r->bad && !r->deep; count--)
        item(r, depth + 1);
}

/* One item by the book: msgpack's specification, format by format. */
static void item(reader *r, int depth)
{
    static const uint8_t FIXED[] = { 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17 };      /* ca .. d8 */
    uint8_t b;

    if (depth > DEEP) {
        r->deep = true;
        return;
    }
    b = (uint8_t)number(r, 1);
    if (r->cut)
        return;
    if (b <= 0x7f || b >= 0xe0 || b == 0xc0 || b == 0xc2 || b == 0xc3)
        return;
    if (b <= 0x8f)
        items(r, 2 * (b & 0x0fu), depth);
    else if (b <= 0x9f)
        items(r, b & 0x0f, depth);
    else if (b <= 0xbf)
        step(r, b & 0x1f);
    else if (b == 0xc1)
        r->bad = true;
    else if (b <= 0xc6)
        step(r, number(r, 1u << (b - 0xc4)));
    else if (b <= 0xc9)
        step(r, number(r, 1u << (b - 0xc7)) + 1);
    else if (b <= 0xd8)
        step(r, FIXED[b - 0xca]);
    else if (b <= 0xdb)
        step(r, number(r, 1u << (b - 0xd9)));
    else if (b <= 0xdd)
        items(r, number(r, b == 0xdc ? 2 : 4), depth);
    else
        items(r, 2 * number(r, b == 0xde ? 2 : 4), depth);
}

/* As the decoder does: what came so far, in a copy of exactly that size. */
static nl_mp_result in_parts(nl_mpskip *skip, const uint8_t *p, size_t all, size_t limit, size_t pace)
{
    size_t n = 0;

    for (;;) {
        uint8_t *exact = malloc(n ? n : 1);
        nl_mp_result result;
        MUST(exact);
        if (n)
            memcpy(exact, p, n);
        result = nl_mp_skip(skip, exact, n, limit);
        free(exact);
        MUST(result != NL_MP_MORE || (skip->need > n && skip->need <= limit));
        if (result != NL_MP_MORE || n == all)
            return result;
        n = pace ? n + pace : skip->need;
        n = n < all ? n : all;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nl_mpskip whole = { .due = 1 }, parts = { .due = 1 };
    nl_mp_result result;
    reader r;
    size_t limit, n;

    if (size < 3)
        return 0;
    limit = 16 * (size_t)data[0] + 1;
    n = size - 2;
    result = nl_mp_skip(&whole, data + 2, n, limit);
    MUST(in_parts(&parts, data + 2, n, limit, data[1] % 9) == result);
    if (result == NL_MP_DONE || result == NL_MP_BAD)
        MUST(parts.at == whole.at);
    r = (reader){ .p = data + 2, .n = n };
    item(&r, 0);
    if (r.deep)
        return 0;
    if (result == NL_MP_DONE)
        MUST(!r.cut && !r.bad && r.at == whole.at && r.at <= limit);
    else if (result == NL_MP_BAD)
        MUST(r.bad);
    else if (result == NL_MP_MORE)
        MUST(r.cut);
    else
        MUST(r.cut || r.bad || r.at > limit);
    return 0;
}
