/* Tests of the msgpack skipper: every kind of item, every split, and lies about length.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Items are made here by a small packer of the tests' own, so their length is known without the skipper. Each run is
 * copied into a block of exactly its size before it is looked at: a byte read too far is then seen by the sanitizer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mpskip.h"

#define NO_LIMIT SIZE_MAX

static nl_mp_result skip_copy(nl_mpskip *skip, const uint8_t *p, size_t n, size_t limit)
{
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    if (n > 0)
        memcpy(exact, p, n);
    nl_mp_result result = nl_mp_skip(skip, exact, n, limit);
    free(exact);
    return result;
}

/* The item of `len` bytes at p is skipped whole, byte by byte, and in two parts at every split. */
static void assert_item(const uint8_t *p, size_t len)
{
    nl_mpskip whole = { 0, 1, 0 }, bytes = whole;
    assert_int_equal(skip_copy(&whole, p, len, len), NL_MP_DONE);
    assert_int_equal(whole.at, len);
    for (size_t n = 0; n < len; n++) {
        size_t needed = bytes.need;
        assert_int_equal(skip_copy(&bytes, p, n, len), NL_MP_MORE);
        assert_true(bytes.need > n && bytes.need <= len);
        if (n < needed)                                 /* fewer bytes than needed change nothing */
            assert_int_equal(bytes.need, needed);
        nl_mpskip split = { 0, 1, 0 };
        assert_int_equal(skip_copy(&split, p, n, len), NL_MP_MORE);
        assert_int_equal(split.need, bytes.need);
        assert_int_equal(skip_copy(&split, p, len, len), NL_MP_DONE);
        assert_int_equal(split.at, len);
    }
    assert_int_equal(skip_copy(&bytes, p, len, len), NL_MP_DONE);
    assert_int_equal(bytes.at, len);
    if (len > 1) {                                      /* one byte less than it takes: refused, whatever the split */
        nl_mpskip tight = { 0, 1, 0 };
        assert_int_equal(skip_copy(&tight, p, len, len - 1), NL_MP_OVER);
    }
}

/* `head`, then `body` bytes of 0xc1: what is not to be looked at may hold anything. */
static void assert_bytes(const char *head, size_t head_len, size_t body)
{
    uint8_t *p = malloc(head_len + body);
    assert_non_null(p);
    memcpy(p, head, head_len);
    memset(p + head_len, 0xc1, body);
    assert_item(p, head_len + body);
    free(p);
}

static void test_scalars(void **state)
{
    (void)state;
    for (int first = 0; first < 256; first++) {
        uint8_t p[1] = { (uint8_t)first };
        if (first < 0x80 || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3)
            assert_item(p, 1);
    }
    assert_bytes("\xca", 1, 4);
    assert_bytes("\xcb", 1, 8);
    for (int i = 0; i < 4; i++) {
        char unsigned_first = (char)(0xcc + i), signed_first = (char)(0xd0 + i);
        assert_bytes(&unsigned_first, 1, (size_t)1 << i);
        assert_bytes(&signed_first, 1, (size_t)1 << i);
    }
}

static void test_strings(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++) {
        char first = (char)(0xa0 + i);
        assert_bytes(&first, 1, (size_t)i);
    }
    for (int i = 0; i < 5; i++) {
        char first = (char)(0xd4 + i);
        assert_bytes(&first, 1, 1 + ((size_t)1 << i));
    }
    assert_bytes("\xc4\x00", 2, 0);
    assert_bytes("\xc4\xff", 2, 255);
    assert_bytes("\xc5\x01\x02", 3, 258);
    assert_bytes("\xc6\x00\x00\x01\x02", 5, 258);
    assert_bytes("\xd9\x11", 2, 17);
    assert_bytes("\xda\x01\x02", 3, 258);
    assert_bytes("\xdb\x00\x00\x01\x02", 5, 258);
    assert_bytes("\xc7\x00\x05", 3, 0);
    assert_bytes("\xc7\x11\x05", 3, 17);
    assert_bytes("\xc8\x01\x02\x05", 4, 258);
    assert_bytes("\xc9\x00\x00\x01\x02\x05", 6, 258);
}

static void test_containers(void **state)
{
    (void)state;
    static const char *const items[] = {
        "\x90", "\x93\x01\x02\x03", "\xdc\x00\x00", "\xdc\x00\x02\xc0\xc0", "\xdd\x00\x00\x00\x02\xc0\xc4\x00",
        "\x80", "\x82\x01\x02\x03\x04", "\xde\x00\x01\x05\x90", "\xdf\x00\x00\x00\x01\x05\x91\xc3",
        "\x91\x91\x91\x91\x90",
        "\x92\x81\x92\x01\x02\x90\xc4\x01z",
    };
    static const size_t lengths[] = { 1, 4, 3, 5, 8, 1, 5, 5, 8, 5, 9 };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        assert_item((const uint8_t *)items[i], lengths[i]);
}

/* ---- random items ------------------------------------------------------------------------------------------- */

typedef struct packer {
    uint8_t  bytes[4096];
    size_t   len;
    uint64_t seed;
} packer;

static unsigned draw(packer *k, unsigned below)
{
    k->seed = k->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(k->seed >> 33) % below;
}

static void put(packer *k, unsigned byte)
{
    k->bytes[k->len++] = (uint8_t)byte;
}

static void put_number(packer *k, unsigned first, unsigned width, unsigned value)
{
    put(k, first);
    while (width-- > 0)
        put(k, width < 4 ? value >> (8 * width) & 0xffu : 0);
}

/* One item of any kind, at most `depth` deep, in any of the forms that can hold it. */
static void put_item(packer *k, unsigned depth)
{
    unsigned form = draw(k, 3), size = draw(k, 12), width = 1u << form;
    switch (draw(k, depth > 0 ? 6 : 4)) {
    case 0:
        put(k, draw(k, 128));
        break;
    case 1:
        put_number(k, draw(k, 2) ? 0xcc + form : 0xd0 + form, width, draw(k, 1u << 31));
        break;
    case 2:
        put_number(k, draw(k, 2) ? 0xc4 + form : 0xd9 + form, width, size);
        for (unsigned i = 0; i < size; i++)
            put(k, draw(k, 256));
        break;
    case 3:
        put_number(k, 0xc7 + form, width, size);
        for (unsigned i = 0; i <= size; i++)
            put(k, draw(k, 256));
        break;
    default: {
        unsigned map = draw(k, 2), count = draw(k, 4);
        if (form == 0)
            put(k, (map ? 0x80 : 0x90) + count);
        else
            put_number(k, (map ? 0xde : 0xdc) + form - 1, width, count);
        for (unsigned i = 0; i < count << map; i++)
            put_item(k, depth - 1);
    }
    }
}

static void test_random_items(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        packer k = { .seed = seed };
        put_item(&k, 4);
        if (k.len <= 300)
            assert_item(k.bytes, k.len);
    }
}

/* ---- lies --------------------------------------------------------------------------------------------------- */

static void test_deep_nesting(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    uint8_t *p = malloc(DEEP + 1);
    assert_non_null(p);
    memset(p, 0x91, DEEP);
    p[DEEP] = 0xc0;
    nl_mpskip skip = { 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, p, DEEP + 1, NO_LIMIT), NL_MP_DONE);
    assert_int_equal(skip.at, DEEP + 1);
    memset(p, 0x9f, DEEP);                              /* 15 more at each level: soon beyond any honest limit */
    skip = (nl_mpskip){ 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, p, DEEP, 100000), NL_MP_OVER);
    assert_in_range(skip.at, 6000, 7000);               /* 1 byte read and 14 more due: 15 a level */
    free(p);
}

static void test_absurd_counts(void **state)
{
    (void)state;
    static const char *const items[] = {
        "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\xdb\xff\xff\xff\xff",
        "\xc9\xff\xff\xff\xff\x01", "\xdf\x80\x00\x00\x00",
    };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        nl_mpskip skip = { 0, 1, 0 };
        assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)items[i], 5, 0x4000000), NL_MP_OVER);
        assert_int_equal(skip.at, 0);
    }
}

/* Without a limit the counter must hold what any bytes can promise: each map of 5 bytes promises 2^33 items. */
static void test_counter_does_not_wrap(void **state)
{
    (void)state;
    enum { MAPS = 1000 };
    uint8_t p[5 * MAPS];
    for (size_t i = 0; i < MAPS; i++)
        memcpy(p + 5 * i, "\xdf\xff\xff\xff\xff", 5);
    nl_mpskip skip = { 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, p, sizeof p, NO_LIMIT), NL_MP_MORE);
    assert_true(skip.due == 1 + MAPS * (UINT64_C(0x1fffffffe) - 1));
    skip = (nl_mpskip){ 0, SIZE_MAX, 0 };               /* full to the brim: one child more is one too many */
    assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)"\x91\xc0", 2, NO_LIMIT), NL_MP_OVER);
    skip = (nl_mpskip){ 0, SIZE_MAX, 0 };
    assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)"\xc0", 1, NO_LIMIT), NL_MP_MORE);
    assert_true(skip.at == 1 && skip.due == SIZE_MAX - 1);
}

static void test_never_used_byte(void **state)
{
    (void)state;
    nl_mpskip skip = { 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)"\x93\x01\xc1", 3, 100), NL_MP_BAD);
    assert_int_equal(skip.at, 2);
}

/* A length cut in two must not be waited for when the limit cannot hold it. */
static void test_need_stays_within_the_limit(void **state)
{
    (void)state;
    nl_mpskip skip = { 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)"\xc6\x00", 2, 4), NL_MP_OVER);
    skip = (nl_mpskip){ 0, 1, 0 };
    assert_int_equal(nl_mp_skip(&skip, (const uint8_t *)"\xc6\x00", 2, 5), NL_MP_MORE);
    assert_int_equal(skip.need, 5);
}

static void test_steps_over_a_long_string(void **state)
{
    (void)state;
    nl_mpskip skip = { 0, 1, 0 };
    const uint8_t *p = (const uint8_t *)"\x92\xc6\x00\x10\x00\x00";
    assert_int_equal(nl_mp_skip(&skip, p, 6, NO_LIMIT), NL_MP_MORE);
    assert_int_equal(skip.at, 6 + 0x100000);            /* ahead of the bytes at hand */
    assert_int_equal(skip.need, 6 + 0x100000 + 1);      /* the other item of the array */
}

static void test_names(void **state)
{
    (void)state;
    static const struct { uint8_t first; const char *name; } expected[] = {
        { 0x00, "an unsigned integer" }, { 0x7f, "an unsigned integer" }, { 0x80, "a map" }, { 0x8f, "a map" },
        { 0x90, "an array" }, { 0xa5, "a string" }, { 0xbf, "a string" }, { 0xc0, "nil" }, { 0xc2, "false" },
        { 0xc3, "true" }, { 0xc4, "a bin" }, { 0xc6, "a bin" }, { 0xc7, "an ext" }, { 0xca, "a float" },
        { 0xcb, "a float" }, { 0xcc, "an unsigned integer" }, { 0xcf, "an unsigned integer" },
        { 0xd0, "a signed integer" }, { 0xd3, "a signed integer" }, { 0xd4, "an ext" }, { 0xd8, "an ext" },
        { 0xd9, "a string" }, { 0xdb, "a string" }, { 0xdc, "an array" }, { 0xdd, "an array" }, { 0xde, "a map" },
        { 0xdf, "a map" }, { 0xe0, "a negative integer" }, { 0xff, "a negative integer" },
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_string_equal(nl_mp_name(expected[i].first), expected[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_random_items),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_absurd_counts),
        cmocka_unit_test(test_counter_does_not_wrap),
        cmocka_unit_test(test_never_used_byte),
        cmocka_unit_test(test_need_stays_within_the_limit),
        cmocka_unit_test(test_steps_over_a_long_string),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
