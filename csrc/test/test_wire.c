/* Tests of the wires against what real nodes sent, and against what nobody should send.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The good packets come from tests/data, as lines of the file that mkvectors.py makes of it: their ids, codes and
 * boundaries were recorded, not found by the code under test. The bad ones are written out here.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire.h"

#define LIMIT NL_PACKET_BYTES_DEFAULT

/* ---- the vectors file --------------------------------------------------------------------------------------- */

typedef struct bytes {
    uint8_t *p;
    size_t   n;
} bytes;

static uint8_t nibble(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static bytes unhex(const char *hex)
{
    size_t n = strlen(hex) / 2;
    bytes b = { malloc(n ? n : 1), n };
    assert_non_null(b.p);
    for (size_t i = 0; i < n; i++)
        b.p[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    return b;
}

static nl_wire wire_of(const char *name)
{
    for (int w = NL_WIRE_2016; w <= NL_WIRE_M; w++)
        if (strcmp(nl_wire_name((nl_wire)w), name) == 0)
            return (nl_wire)w;
    fail_msg("unknown wire %s", name);
    return NL_WIRE_AUTO;
}

/* Calls `use` with each line that begins with the word `kind`, the rest of it ready for strtok(). Returns how many. */
static unsigned each_line(const char *kind, void (*use)(void))
{
    FILE *file = fopen(NL_TEST_VECTORS, "r");
    char *line = NULL;
    size_t room = 0;
    unsigned count = 0;
    assert_non_null(file);
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(strtok(line, " "), kind) == 0) {
            use();
            count++;
        }
    }
    free(line);
    fclose(file);
    return count;
}

static const char *word(void)
{
    const char *next = strtok(NULL, " ");
    assert_non_null(next);
    return next;
}

/* ---- scanning ----------------------------------------------------------------------------------------------- */

/* Scans a copy of exactly n bytes, so that the sanitizer sees a byte read too far; long runs are scanned in place. */
static nl_scan_result scan_copy(nl_wire wire, const uint8_t *p, size_t n, nl_scan *scan)
{
    if (n > 1024)
        return nl_wire_scan(wire, p, n, LIMIT, 0, scan, NULL);
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    if (n > 0)
        memcpy(exact, p, n);
    nl_scan_result result = nl_wire_scan(wire, exact, n, LIMIT, 0, scan, NULL);
    free(exact);
    return result;
}

static void assert_same_packet(const nl_scan *a, const nl_scan *b)
{
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->code, b->code);
    assert_int_equal(a->payload_at, b->payload_at);
    assert_int_equal(a->payload_len, b->payload_len);
    assert_int_equal(a->total, b->total);
}

/* Scans the packet of `total` bytes at p, where n bytes are: whole, byte by byte, and in two parts, split at each
 * offset that `step` divides, and at all near the ends. */
static nl_scan assert_packet_split(nl_wire wire, const uint8_t *p, size_t n, size_t total, size_t step)
{
    nl_scan whole = { 0 }, parts = { 0 };
    assert_int_equal(nl_wire_scan(wire, p, n, LIMIT, 0, &whole, NULL), NL_SCAN_PACKET);
    assert_int_equal(whole.total, total);
    assert_int_equal(whole.payload_at + whole.payload_len, total);
    for (size_t at = 0; at < total; at++) {
        size_t needed = parts.need;
        nl_scan split = { 0 };
        assert_int_equal(scan_copy(wire, p, at, &parts), NL_SCAN_MORE);
        assert_true(parts.need > at && parts.need <= total);
        if (at < needed)                                /* fewer bytes than needed change nothing */
            assert_int_equal(parts.need, needed);
        if (at % step && at > 80 && at + 80 < total)
            continue;
        assert_int_equal(scan_copy(wire, p, at, &split), NL_SCAN_MORE);
        assert_int_equal(split.need, parts.need);
        assert_int_equal(scan_copy(wire, p, total, &split), NL_SCAN_PACKET);
        assert_same_packet(&split, &whole);
    }
    assert_int_equal(scan_copy(wire, p, total, &parts), NL_SCAN_PACKET);
    assert_same_packet(&parts, &whole);
    return whole;
}

/* Recorded packets are split at each offset: a long one is so by a long string, over which a scan steps in one go. */
static nl_scan assert_packet(nl_wire wire, const uint8_t *p, size_t n, size_t total)
{
    return assert_packet_split(wire, p, n, total, 1);
}

/* What we would send is what was sent, byte by byte, and we would agree to send it. */
static void assert_head(nl_wire wire, const uint8_t *p, const nl_scan *scan)
{
    uint8_t head[NL_HEAD_MAX];
    const uint8_t *payload = p + scan->payload_at;
    assert_int_equal(nl_wire_check(wire, payload, scan->payload_len), NL_OK);
    assert_int_equal(nl_wire_head(wire, scan->id, scan->code, scan->payload_len, head), scan->payload_at);
    assert_memory_equal(head, p, scan->payload_at);
    if (wire == NL_WIRE_M && scan->payload_len == 1) {  /* the empty array can be left to the header */
        assert_int_equal(*payload, 0x90);
        assert_int_equal(nl_wire_head(wire, scan->id, scan->code, 0, head), scan->total);
        assert_memory_equal(head, p, scan->total);
    }
}

static void use_packet(void)
{
    nl_wire wire = wire_of(word());
    (void)word();                                       /* the name, for readers */
    uint32_t id = (uint32_t)strtoul(word(), NULL, 10);
    uint16_t code = (uint16_t)strtoul(word(), NULL, 10);
    bytes b = unhex(word());
    nl_scan scan = assert_packet(wire, b.p, b.n, b.n);
    assert_int_equal(scan.id, id);
    assert_int_equal(scan.code, code);
    assert_head(wire, b.p, &scan);
    free(b.p);
}

static void test_catalogue_vectors(void **state)
{
    (void)state;
    assert_in_range(each_line("packet", use_packet), 290, 400);
}

/* One direction of a recorded conversation: joined, then found again packet by packet. All of them split without a
 * rest, hand-made ones (neogo-frames) included: what is odd there is above the framing. */
static void use_stream(void)
{
    enum { PACKETS_MAX = 2000 };
    static size_t totals[PACKETS_MAX];
    size_t packets = 0, n = 0, at = 0;
    nl_wire wire = wire_of(word());
    (void)word();                                       /* file and direction, for readers */
    (void)word();
    uint8_t *stream = NULL;
    for (const char *hex = word(); hex; hex = strtok(NULL, " ")) {
        bytes b = unhex(hex);
        assert_true(packets < PACKETS_MAX);
        stream = realloc(stream, n + b.n);
        assert_non_null(stream);
        memcpy(stream + n, b.p, b.n);
        n += totals[packets++] = b.n;
        free(b.p);
    }
    for (size_t i = 0; i < packets; at += totals[i++]) {
        nl_scan scan = assert_packet(wire, stream + at, n - at, totals[i]);
        assert_head(wire, stream + at, &scan);
    }
    assert_int_equal(at, n);
    free(stream);
}

static void test_captures(void **state)
{
    (void)state;
    assert_in_range(each_line("stream", use_stream), 500, 600);
}

/* ---- what nobody should send -------------------------------------------------------------------------------- */

/* The n bytes at p are refused, at once and byte by byte, with a fault that has all of `words` (NULL ends them). */
static void assert_bad(nl_wire wire, const char *p, size_t n, size_t limit, const char *const *words)
{
    nl_scan whole = { 0 }, parts = { 0 };
    nl_fault why = { 0 };
    assert_int_equal(nl_wire_scan(wire, (const uint8_t *)p, n, limit, 1234, &whole, &why), NL_SCAN_BAD);
    assert_int_equal(why.code, NL_EPROTO);
    assert_int_equal(why.sys_errno, 0);
    assert_false(why.clean);
    for (; *words; words++)
        if (!strstr(why.text, *words))
            fail_msg("\"%s\" is not in: %s", *words, why.text);
    nl_scan_result result = NL_SCAN_MORE;
    size_t seen = 0;
    for (; seen <= n && result == NL_SCAN_MORE; seen++) {
        result = nl_wire_scan(wire, (const uint8_t *)p, seen, limit, 1234, &parts, &why);
        if (result == NL_SCAN_MORE)
            assert_true(parts.need > seen);
    }
    assert_int_equal(result, NL_SCAN_BAD);
}

#define BAD(wire, bytes, limit, ...) \
    assert_bad((wire), (bytes), sizeof (bytes) - 1, (limit), (const char *const[]){ __VA_ARGS__, NULL })

static void test_bad_lengths(void **state)
{
    (void)state;
    BAD(NL_WIRE_2016, "\0\0\0\1\0\1\0\0\0\5", LIMIT, "packet length 5 is below the 10 bytes", "2016", "at byte 1234",
        "00 00 00 01 00 01 00 00 00 05");
    BAD(NL_WIRE_2016, "\0\0\0\1\0\1\0\0\0\0", LIMIT, "length 0");
    BAD(NL_WIRE_2016, "\0\0\0\1\0\1\0\0\0\x09", LIMIT, "length 9");
    BAD(NL_WIRE_2016, "\0\0\0\1\0\1\4\0\0\1", LIMIT, "packet length 67108865 is over the limit of 67108864",
        "wire 2016");
    BAD(NL_WIRE_2016, "\0\0\0\1\0\1\xff\xff\xff\xff", LIMIT, "4294967295");
    BAD(NL_WIRE_N, "\0\0\0\1\0\1\4\0\0\1", LIMIT, "payload length 67108865 is over the limit of 67108864", "wire N");
    BAD(NL_WIRE_N, "\0\0\0\1\0\1\xff\xff\xff\xff", LIMIT, "4294967295");
    BAD(NL_WIRE_N, "\0\0\0\1\0\1\0\0\0\1", 0, "payload length 1 is over the limit of 0");
}

static void test_strangers(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    static const char tls[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    BAD(NL_WIRE_2016, http, LIMIT, "looks like HTTP", "at byte 1234");
    BAD(NL_WIRE_N, http, LIMIT, "looks like HTTP", "payload length 1213486160");
    BAD(NL_WIRE_M, http, LIMIT, "looks like HTTP", "packet is an unsigned integer (0x47 at byte 1234");
    BAD(NL_WIRE_2016, "SSH-2.0-OpenSSH", LIMIT, "looks like text");
    BAD(NL_WIRE_M, tls, LIMIT, "looks like TLS");
    BAD(NL_WIRE_2016, tls, 0x10000, "looks like TLS");
    BAD(NL_WIRE_N, tls, 0x10000, "looks like TLS");
    BAD(NL_WIRE_M, "\x15\x03\x03\x00\x02\x02\x28", LIMIT, "looks like TLS");
    /* Under the usual limit a ClientHello has a header as good as any: it waits for its 130051 bytes. */
    nl_scan scan = { 0 };
    assert_int_equal(nl_wire_scan(NL_WIRE_2016, (const uint8_t *)tls, sizeof tls - 1, LIMIT, 0, &scan, NULL),
                     NL_SCAN_MORE);
    assert_int_equal(scan.need, 130051);
}

static void test_bad_m(void **state)
{
    (void)state;
    BAD(NL_WIRE_M, "\x05", LIMIT, "packet is an unsigned integer (0x05 at byte 1234 of the stream), not an array of 3");
    BAD(NL_WIRE_M, "\xc1", LIMIT, "a byte msgpack never uses");
    BAD(NL_WIRE_M, "\x92\x01\x02", LIMIT, "an array of 2, not of 3");
    BAD(NL_WIRE_M, "\x94\x01\x02", LIMIT, "an array of 4, not of 3");
    BAD(NL_WIRE_M, "\xdc\x00\x04", LIMIT, "an array of 4, not of 3");
    BAD(NL_WIRE_M, "\x83\x01\x02", LIMIT, "packet is a map");
    BAD(NL_WIRE_M, "\xa3zzz", LIMIT, "packet is a string");
    BAD(NL_WIRE_M, "\x93\xc0\xcd\x80\x00\x90", LIMIT, "id is nil (0xc0 at byte 1235", "93 c0 cd 80 00 90");
    BAD(NL_WIRE_M, "\x93\xa1x\x01\x90", LIMIT, "id is a string");
    BAD(NL_WIRE_M, "\x93\xff\x01\x90", LIMIT, "id is a negative integer");
    BAD(NL_WIRE_M, "\x93\xd0\x01\x01\x90", LIMIT, "id is a signed integer");
    BAD(NL_WIRE_M, "\x93\xcf\0\0\0\1\0\0\0\0\x01\x90", LIMIT, "id 4294967296 does not fit in 32 bits");
    BAD(NL_WIRE_M, "\x93\x01\xce\0\1\0\0\x90", LIMIT, "code 65536 does not fit in 16 bits");
    BAD(NL_WIRE_M, "\x93\x01\x80\x90", LIMIT, "code is a map (0x80 at byte 1236");
    BAD(NL_WIRE_M, "\x93\x01\x02\x80", LIMIT, "args is a map (0x80 at byte 1237", "not an array (wire M)");
    BAD(NL_WIRE_M, "\x93\x01\x02\xc0", LIMIT, "args is nil");
    BAD(NL_WIRE_M, "\x93\x01\x02\xc1", LIMIT, "args is a byte msgpack never uses");
    BAD(NL_WIRE_M, "\x93\x01\x02\x92\x05\xc1", LIMIT, "byte 0xc1 at byte 1239 of the stream is not msgpack");
}

static void test_m_over_the_limit(void **state)
{
    (void)state;
    BAD(NL_WIRE_M, "\x93\x01\x02\xdd\xff\xff\xff\xff", LIMIT, "over the limit of 67108864 bytes",
        "an array at byte 1237");
    BAD(NL_WIRE_M, "\x93\x01\x02\xdd\x04\x00\x00\x00", LIMIT, "over the limit");
    BAD(NL_WIRE_M, "\x93\x01\x02\x91\xdf\xff\xff\xff\xff", LIMIT, "a map at byte 1238");
    BAD(NL_WIRE_M, "\x93\x01\x02\x91\xc6\xff\xff\xff\xff", LIMIT, "a bin at byte 1238");
    BAD(NL_WIRE_M, "\x93\x01\x02\x92\xc6\x03\xff\xff\xf7", LIMIT, "a bin at byte 1238");   /* and the arg after it */
    /* Each as soon as what must follow cannot fit any more: three bytes after the first, two after the id, one. */
    BAD(NL_WIRE_M, "\x93", 3, "over the limit of 3");
    BAD(NL_WIRE_M, "\x93\xcd", 5, "an unsigned integer at byte 1235");
    BAD(NL_WIRE_M, "\x93\x01\xcd", 5, "an unsigned integer at byte 1236");
    BAD(NL_WIRE_M, "\x93\xcf\0\0\0\0\0\0\0\1\2\x90", 11, "over the limit of 11");
}

/* The head of a packet of `total` bytes, the largest that passes: with a byte less of limit it is refused. */
static void assert_limit(nl_wire wire, const char *head, size_t head_len, size_t total, size_t limit)
{
    nl_scan scan = { 0 };
    assert_int_equal(nl_wire_scan(wire, (const uint8_t *)head, head_len, limit, 0, &scan, NULL), NL_SCAN_MORE);
    assert_int_equal(scan.need, total);
    scan = (nl_scan){ 0 };
    assert_int_equal(nl_wire_scan(wire, (const uint8_t *)head, head_len, limit - 1, 0, &scan, NULL), NL_SCAN_BAD);
}

static void test_exact_limit(void **state)
{
    (void)state;
    assert_limit(NL_WIRE_2016, "\0\0\0\1\0\1\4\0\0\0", 10, 0x4000000, LIMIT);
    assert_limit(NL_WIRE_N, "\0\0\0\1\0\1\4\0\0\0", 10, 0x4000000 + 10, LIMIT);
    assert_limit(NL_WIRE_M, "\x93\x01\x02\x91\xc6\x03\xff\xff\xf7", 9, 0x4000000, LIMIT);
    assert_limit(NL_WIRE_N, "\0\0\0\1\0\1\xff\xff\xff\xff", 10, UINT64_C(0x100000009), 0xffffffff);
}

/* A packet nested a hundred thousand deep is only a long one; without an end it is refused by its size. */
static void test_deep_nesting(void **state)
{
    (void)state;
    enum { DEEP = 100000 };
    uint8_t *p = malloc(DEEP + 5);
    assert_non_null(p);
    memcpy(p, "\x93\x01\x02", 3);
    memset(p + 3, 0x91, DEEP);
    p[DEEP + 3] = 0x90;
    assert_packet_split(NL_WIRE_M, p, DEEP + 4, DEEP + 4, 61);    /* every item is walked over, twice for each split */
    nl_scan scan = { 0 };
    nl_fault why;
    assert_int_equal(nl_wire_scan(NL_WIRE_M, p, DEEP + 4, DEEP + 3, 0, &scan, &why), NL_SCAN_BAD);
    assert_non_null(strstr(why.text, "over the limit of 100003 bytes"));
    free(p);
}

/* ---- odd but right ------------------------------------------------------------------------------------------ */

static void assert_m(const char *p, size_t n, uint32_t id, uint16_t code, size_t payload_at)
{
    nl_scan scan = assert_packet(NL_WIRE_M, (const uint8_t *)p, n, n);
    assert_int_equal(scan.id, id);
    assert_int_equal(scan.code, code);
    assert_int_equal(scan.payload_at, payload_at);
}

/* Numbers and arrays longer than they need be are what they are. */
static void test_long_forms(void **state)
{
    (void)state;
    assert_m("\x93\x01\x02\x90", 4, 1, 2, 3);
    assert_m("\x93\x7f\x7f\x90", 4, 127, 127, 3);
    assert_m("\x93\xcc\x05\xcc\x06\x90", 6, 5, 6, 5);
    assert_m("\x93\xcd\x01\x2c\x02\x90", 6, 300, 2, 5);
    assert_m("\x93\xce\xff\xff\xff\xff\xcd\xff\xff\x90", 10, UINT32_MAX, 0xffff, 9);
    assert_m("\x93\xcf\0\0\0\0\xff\xff\xff\xff\xcf\0\0\0\0\0\0\x80\x02\x90", 20, UINT32_MAX, 0x8002, 19);
    assert_m("\xdc\0\3\1\2\x90", 6, 1, 2, 5);
    assert_m("\xdd\0\0\0\3\1\2\x90", 8, 1, 2, 7);
    assert_m("\x93\1\2\xdc\0\1\xc0", 7, 1, 2, 3);
    assert_m("\x93\1\2\xdd\0\0\0\1\xc0", 9, 1, 2, 3);
}

/* Inside a long bin the scan says how much is still to come, so that the reader can size its read. */
static void test_need_in_a_long_bin(void **state)
{
    (void)state;
    nl_scan scan = { 0 };
    const uint8_t *p = (const uint8_t *)"\x93\x01\x02\x91\xc6\x00\x10\x00\x00";
    assert_int_equal(nl_wire_scan(NL_WIRE_M, p, 9, LIMIT, 0, &scan, NULL), NL_SCAN_MORE);
    assert_int_equal(scan.need, 9 + 0x100000);
}

/* ---- sending ------------------------------------------------------------------------------------------------ */

static void assert_head_is(nl_wire wire, uint32_t id, uint16_t code, size_t len, const char *expected, size_t n)
{
    uint8_t head[NL_HEAD_MAX];
    assert_int_equal(nl_wire_head(wire, id, code, len, head), n);
    assert_memory_equal(head, expected, n);
}

static void test_heads(void **state)
{
    (void)state;
    assert_head_is(NL_WIRE_2016, 0x01020304, 0x8005, 3, "\1\2\3\4\x80\5\0\0\0\x0d", 10);
    assert_head_is(NL_WIRE_N, 0x01020304, 0x8005, 3, "\1\2\3\4\x80\5\0\0\0\3", 10);
    assert_head_is(NL_WIRE_M, 0, 0, 1, "\x93\0\0", 3);
    assert_head_is(NL_WIRE_M, 127, 128, 1, "\x93\x7f\xcc\x80", 4);
    assert_head_is(NL_WIRE_M, 255, 256, 1, "\x93\xcc\xff\xcd\1\0", 6);
    assert_head_is(NL_WIRE_M, 256, 255, 1, "\x93\xcd\1\0\xcc\xff", 6);
    assert_head_is(NL_WIRE_M, 65536, 0xffff, 0, "\x93\xce\0\1\0\0\xcd\xff\xff\x90", 10);
    assert_head_is(NL_WIRE_M, UINT32_MAX, 2, 0, "\x93\xce\xff\xff\xff\xff\2\x90", 8);
}

static void test_fits(void **state)
{
    (void)state;
    assert_true(nl_wire_fits(NL_WIRE_2016, 1, 1, 90, 100));
    assert_false(nl_wire_fits(NL_WIRE_2016, 1, 1, 91, 100));
    assert_false(nl_wire_fits(NL_WIRE_2016, 1, 1, 0, 9));
    assert_true(nl_wire_fits(NL_WIRE_2016, 1, 1, UINT32_MAX - 10, NL_UNLIMITED));
    assert_false(nl_wire_fits(NL_WIRE_2016, 1, 1, UINT32_MAX - 9, NL_UNLIMITED));
    assert_true(nl_wire_fits(NL_WIRE_N, 1, 1, 100, 100));
    assert_false(nl_wire_fits(NL_WIRE_N, 1, 1, 101, 100));
    assert_true(nl_wire_fits(NL_WIRE_N, 1, 1, UINT32_MAX, NL_UNLIMITED));
    assert_false(nl_wire_fits(NL_WIRE_N, 1, 1, (size_t)UINT32_MAX + 1, NL_UNLIMITED));
    assert_true(nl_wire_fits(NL_WIRE_M, 1, 1, 97, 100));
    assert_false(nl_wire_fits(NL_WIRE_M, 1, 1, 98, 100));
    assert_false(nl_wire_fits(NL_WIRE_M, 1, 1, 0, 3));
    assert_true(nl_wire_fits(NL_WIRE_M, 1, 1, 0, 4));
    assert_false(nl_wire_fits(NL_WIRE_M, 1, 1, SIZE_MAX, LIMIT));
}

#define CHECK_M(bytes) nl_wire_check(NL_WIRE_M, (bytes), sizeof (bytes) - 1)

static void test_check(void **state)
{
    (void)state;
    assert_int_equal(CHECK_M(""), NL_OK);
    assert_int_equal(nl_wire_check(NL_WIRE_M, NULL, 0), NL_OK);
    assert_int_equal(CHECK_M("\x90"), NL_OK);
    assert_int_equal(CHECK_M("\x92\x01\x91\xc0"), NL_OK);
    assert_int_equal(CHECK_M("\xdc\x00\x01\xc4\x01z"), NL_OK);
    assert_int_equal(CHECK_M("\x90\x90"), NL_EENCODE);          /* something behind it */
    assert_int_equal(CHECK_M("\x91"), NL_EENCODE);              /* cut */
    assert_int_equal(CHECK_M("\x91\xc4\x02z"), NL_EENCODE);
    assert_int_equal(CHECK_M("\xdd\x00"), NL_EENCODE);
    assert_int_equal(CHECK_M("\x91\xc1"), NL_EENCODE);
    assert_int_equal(CHECK_M("\x80"), NL_EENCODE);              /* no array */
    assert_int_equal(CHECK_M("\xc0"), NL_EENCODE);
    assert_int_equal(CHECK_M("abc"), NL_EENCODE);
    assert_int_equal(nl_wire_check(NL_WIRE_N, "abc", 3), NL_OK);
    assert_int_equal(nl_wire_check(NL_WIRE_2016, "abc", 3), NL_OK);
}

static void assert_error(nl_wire wire, int version, const char *text, size_t cap, const char *expected, size_t n)
{
    uint8_t out[64];
    memset(out, 0xee, sizeof out);
    assert_int_equal(nl_wire_error(wire, version, text, out, cap), n);
    assert_memory_equal(out, expected, n);
    for (size_t i = n; i < sizeof out; i++)
        assert_int_equal(out[i], 0xee);
}

static void test_error_messages(void **state)
{
    (void)state;
    assert_error(NL_WIRE_2016, -1, "no", 64, "\0\0\0\5\0\0\0\2no", 10);
    assert_error(NL_WIRE_2016, 9, "no", 64, "\0\0\0\5\0\0\0\2no", 10);
    assert_error(NL_WIRE_N, 1, "no", 64, "\0\0\0\5\0\0\0\2no", 10);
    assert_error(NL_WIRE_N, 5, "no", 64, "\0\0\0\5\0\0\0\2no", 10);
    assert_error(NL_WIRE_N, 6, "no", 64, "\0\0\0\6\0\0\0\2no", 10);
    assert_error(NL_WIRE_N, -1, "no", 64, "\0\0\0\6\0\0\0\2no", 10);
    assert_error(NL_WIRE_M, 5, "no", 64, "\x92\x06\xc4\2no", 6);
    assert_error(NL_WIRE_M, -1, "", 64, "\x92\x06\xc4\0", 4);
    assert_error(NL_WIRE_N, 6, "connection refused", 12, "\0\0\0\6\0\0\0\4conn", 12);
    assert_error(NL_WIRE_M, 5, "connection refused", 8, "\x92\x06\xc4\4conn", 8);
    assert_error(NL_WIRE_M, 5, "a\xc3\xa9", 6, "\x92\x06\xc4\1a", 5);          /* not half of a character */
    assert_error(NL_WIRE_N, 6, "no", 7, "", 0);
    assert_error(NL_WIRE_M, 5, "no", 3, "", 0);
}

static void test_long_error_on_m(void **state)
{
    (void)state;
    char text[301];
    uint8_t out[400];
    memset(text, 'x', 300);
    text[300] = '\0';
    assert_int_equal(nl_wire_error(NL_WIRE_M, 5, text, out, sizeof out), 4 + 255);
    assert_int_equal(nl_wire_check(NL_WIRE_M, out, 4 + 255), NL_OK);
}

/* ---- codes -------------------------------------------------------------------------------------------------- */

static void use_code(void)
{
    nl_wire wire = wire_of(word());
    int version = (int)strtol(word(), NULL, 10);
    uint16_t code = (uint16_t)strtoul(word(), NULL, 10);
    const char *kind = word(), *name = word();
    bool request = strcmp(kind, "request") == 0, push = strcmp(kind, "push") == 0;
    if (wire == NL_WIRE_2016)                           /* the rule of that wire is coarser than its catalogue */
        request = (code & NL_ANSWER_BIT) == 0 && code != 5 && code != 6;
    if (nl_code_is_request(wire, version, code) != request || nl_code_is_push(wire, version, code) != push)
        fail_msg("%s, code %u of %s-%d, is a %s", name, code, nl_wire_name(wire), version, kind);
}

static void test_catalogue_codes(void **state)
{
    (void)state;
    assert_in_range(each_line("code", use_code), 700, 900);
}

static unsigned count_pushes(nl_wire wire, int version)
{
    unsigned count = 0;
    for (unsigned code = 0; code <= UINT16_MAX; code++)
        count += nl_code_is_push(wire, version, (uint16_t)code);
    return count;
}

static void test_unknown_codes(void **state)
{
    (void)state;
    assert_true(nl_code_is_request(NL_WIRE_N, 6, 0));
    assert_true(nl_code_is_request(NL_WIRE_N, 6, 999));
    assert_true(nl_code_is_request(NL_WIRE_M, 5, 0x7fff));
    assert_true(nl_code_is_request(NL_WIRE_M, 5, 256 + 3));     /* not CloseClient's 3 in eight bits */
    assert_false(nl_code_is_request(NL_WIRE_M, 5, 0x8fff));
    assert_false(nl_code_is_request(NL_WIRE_2016, -1, NL_CODE_ERROR));
    for (int version = -1; version <= 10; version++) {
        assert_int_equal(count_pushes(NL_WIRE_2016, version), 2);
        assert_int_equal(count_pushes(NL_WIRE_N, version), 2);
        assert_int_equal(count_pushes(NL_WIRE_M, version), 2);
    }
}

static void test_newest_protocol_stands_for_unknown(void **state)
{
    (void)state;
    for (unsigned code = 0; code < 200; code++) {
        uint16_t c = (uint16_t)code;
        assert_int_equal(nl_code_is_request(NL_WIRE_N, -1, c), nl_code_is_request(NL_WIRE_N, 6, c));
        assert_int_equal(nl_code_is_request(NL_WIRE_M, -1, c), nl_code_is_request(NL_WIRE_M, 5, c));
        assert_int_equal(nl_code_is_push(NL_WIRE_N, -1, c), nl_code_is_push(NL_WIRE_N, 6, c));
        assert_int_equal(nl_code_is_push(NL_WIRE_M, -1, c), nl_code_is_push(NL_WIRE_M, 5, c));
    }
    assert_int_equal(nl_wire_version_default(NL_WIRE_N), 6);
    assert_int_equal(nl_wire_version_default(NL_WIRE_M), 5);
    assert_int_equal(nl_wire_version_default(NL_WIRE_2016), -1);
    assert_string_equal(nl_wire_name(NL_WIRE_AUTO), "auto");
    assert_string_equal(nl_wire_name((nl_wire)7), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_catalogue_vectors),
        cmocka_unit_test(test_captures),
        cmocka_unit_test(test_bad_lengths),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_bad_m),
        cmocka_unit_test(test_m_over_the_limit),
        cmocka_unit_test(test_exact_limit),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_long_forms),
        cmocka_unit_test(test_need_in_a_long_bin),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_fits),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_error_messages),
        cmocka_unit_test(test_long_error_on_m),
        cmocka_unit_test(test_catalogue_codes),
        cmocka_unit_test(test_unknown_codes),
        cmocka_unit_test(test_newest_protocol_stands_for_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
