/* The msgpack skipper: a table of what each first byte announces, and one loop over it. See mpskip.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "mpskip.h"

/* What a first byte announces. An item is `span` bytes long, itself included, and contains `kids` items. If it has a
 * length field, its `len` bytes follow the first byte; it counts groups of `kids` items, or bytes if `kids` is 0. */
typedef struct shape {
    uint8_t span;       /* 0: no item begins so */
    uint8_t kids;
    uint8_t len;
} shape;

#define BYTES(n)   { (n), 0, 0 }
#define FIXSTR(n)  [0xa0 + (n)] = BYTES(1 + (n))
#define FIXARR(n)  [0x90 + (n)] = { 1, (n), 0 }
#define FIXMAP(n)  [0x80 + (n)] = { 1, 2 * (n), 0 }
#define SIXTEEN(X) X(0), X(1), X(2), X(3), X(4), X(5), X(6), X(7), X(8), X(9), X(10), X(11), X(12), X(13), X(14), X(15)
#define HIGHER(X)  X(16), X(17), X(18), X(19), X(20), X(21), X(22), X(23), X(24), X(25), X(26), X(27), X(28), X(29), \
                   X(30), X(31)

static const shape shapes[256] = {
    [0x00 ... 0x7f] = BYTES(1),                                         /* positive fixint */
    SIXTEEN(FIXMAP),
    SIXTEEN(FIXARR),
    SIXTEEN(FIXSTR), HIGHER(FIXSTR),
    [0xc0] = BYTES(1), [0xc2] = BYTES(1), [0xc3] = BYTES(1),            /* nil, false, true; c1 stays 0: never used */
    [0xc4] = { 2, 0, 1 }, [0xc5] = { 3, 0, 2 }, [0xc6] = { 5, 0, 4 },   /* bin 8, 16, 32 */
    [0xc7] = { 3, 0, 1 }, [0xc8] = { 4, 0, 2 }, [0xc9] = { 6, 0, 4 },   /* ext: a type byte after the length */
    [0xca] = BYTES(5), [0xcb] = BYTES(9),                               /* float 32, 64 */
    [0xcc] = BYTES(2), [0xcd] = BYTES(3), [0xce] = BYTES(5), [0xcf] = BYTES(9),     /* uint 8 to 64 */
    [0xd0] = BYTES(2), [0xd1] = BYTES(3), [0xd2] = BYTES(5), [0xd3] = BYTES(9),     /* int 8 to 64 */
    [0xd4] = BYTES(3), [0xd5] = BYTES(4), [0xd6] = BYTES(6), /* fixext 1, 2, 4 */
    [0xd7] = BYTES(10), [0xd8] = BYTES(18),                             /* fixext 8, 16 */
    [0xd9] = { 2, 0, 1 }, [0xda] = { 3, 0, 2 }, [0xdb] = { 5, 0, 4 },   /* str 8, 16, 32 */
    [0xdc] = { 3, 1, 2 }, [0xdd] = { 5, 1, 4 },                         /* array 16, 32 */
    [0xde] = { 3, 2, 2 }, [0xdf] = { 5, 2, 4 },                         /* map 16, 32: a key and a value each */
    [0xe0 ... 0xff] = BYTES(1),                                         /* negative fixint */
};

static inline uint64_t read_length(const uint8_t *p, unsigned width)
{
    uint64_t v = p[0];
    for (unsigned i = 1; i < width; i++)
        v = v << 8 | p[i];
    return v;
}

static nl_mp_result stop(nl_mpskip *skip, size_t at, uint64_t due, size_t need, nl_mp_result result)
{
    skip->at = at;
    skip->due = due;
    skip->need = need;
    return result;
}

nl_mp_result nl_mp_skip(nl_mpskip *skip, const uint8_t *p, size_t n, size_t limit)
{
    size_t at = skip->at;
    uint64_t due = skip->due;

    for (; due > 0; due--) {
        if (at >= n)
            return stop(skip, at, due, at + 1, NL_MP_MORE);
        shape item = shapes[p[at]];
        uint64_t span = item.span, kids = item.kids;
        uint64_t spare = limit - at - (due - 1);        /* what the limit leaves for this item and what it contains */
        if (span == 0)
            return stop(skip, at, due, 0, NL_MP_BAD);
        if (item.len > 0) {
            if (n - at <= item.len)                     /* its length is not all there */
                return stop(skip, at, due, at + 1 + item.len, 1u + item.len > spare ? NL_MP_OVER : NL_MP_MORE);
            uint64_t length = read_length(p + at + 1, item.len);
            if (kids > 0)
                kids *= length;
            else
                span += length;
        }
        if (span + kids > spare)                        /* both are below 2^34: no overflow */
            return stop(skip, at, due, 0, NL_MP_OVER);
        at += span;
        due += kids;
    }
    return stop(skip, at, 0, at, at > n ? NL_MP_MORE : NL_MP_DONE);
}

const char *nl_mp_name(uint8_t first)
{
    static const char *const names[] = {                /* from 0xc0 on */
        "nil", "a byte msgpack never uses", "false", "true", "a bin", "a bin", "a bin", "an ext", "an ext", "an ext",
        "a float", "a float",
        "an unsigned integer", "an unsigned integer", "an unsigned integer", "an unsigned integer",
        "a signed integer", "a signed integer", "a signed integer", "a signed integer",
        "an ext", "an ext", "an ext", "an ext", "an ext", "a string", "a string", "a string",
        "an array", "an array", "a map", "a map",
    };
    if (first < 0x80)
        return "an unsigned integer";
    if (first < 0x90)
        return "a map";
    if (first < 0xa0)
        return "an array";
    if (first < 0xc0)
        return "a string";
    return first < 0xe0 ? names[first - 0xc0] : "a negative integer";
}
