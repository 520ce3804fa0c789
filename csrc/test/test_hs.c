/* Tests of hs.c: every opening, in both roles, whole and byte by byte.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Bytes are written as people read them, in hex: meets() feeds a handshake and states all of the outcome.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "hs.h"

#define LEN(array) (sizeof (array) / sizeof (array)[0])

/* ---- words of these tests ------------------------------------------------------------------------------------ */

static size_t from_hex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;
    int used;
    while (sscanf(hex, " %2x%n", &byte, &used) == 1) {
        out[n++] = (uint8_t)byte;
        hex += used;
    }
    return n;
}

/* Takes the output and compares it. */
static void says(nl_hs *hs, const char *hex)
{
    uint8_t expected[160], got[160];
    size_t n = from_hex(hex, expected);
    assert_int_equal(nl_hs_output(hs, got, sizeof got), n);
    assert_memory_equal(got, expected, n);
    assert_int_equal(nl_hs_output(hs, got, sizeof got), 0);
}

/* Feeds the way drivers do: all bytes since the start, one more each time, until there is a verdict. */
static size_t trickle(nl_hs *hs, const uint8_t *bytes, size_t n)
{
    size_t used = 0;
    for (size_t i = 1; i <= n && hs->state == NL_HS_GOING; i++)
        used = nl_hs_feed(hs, bytes, i);
    return used;
}

static void failed(const nl_hs *hs, const char *ours, const char *theirs)
{
    assert_int_equal(hs->state, NL_HS_FAILED);
    assert_string_equal(hs->report.ours, ours);
    assert_string_equal(hs->report.theirs, theirs);
}

typedef struct meeting {
    nl_wire wire;               /* ours ... */
    int     version;
    const char *first;          /* what we say before we hear anything */
    const char *heard;
    const char *then;           /* what we say to that */
    nl_hs_state state;
    nl_wire agreed;             /* DONE */
    int     number;
    size_t  used;
    const char *ours, *theirs;  /* FAILED */
} meeting;

static void meets(nl_role role, const meeting *m)
{
    uint8_t bytes[160];
    size_t n = from_hex(m->heard, bytes);
    for (int whole = 0; whole < 2; whole++) {
        nl_hs hs;
        nl_hs_init(&hs, role, m->wire, m->version, false);
        says(&hs, m->first);
        size_t used = whole ? nl_hs_feed(&hs, bytes, n) : trickle(&hs, bytes, n);
        assert_int_equal(hs.state, m->state);
        says(&hs, m->then);
        if (m->state == NL_HS_DONE) {
            assert_int_equal(hs.wire, m->agreed);
            assert_int_equal(hs.version, m->number);
            assert_int_equal(used, m->used);
        } else if (m->state == NL_HS_FAILED) {
            assert_string_equal(hs.report.ours, m->ours);
            assert_string_equal(hs.report.theirs, m->theirs);
        }
    }
}

#define M_OR_N "NEO M protocol 5 or NEO N protocol 6"

/* ---- listener ------------------------------------------------------------------------------------------------ */

static void test_listener_on_auto(void **state)
{
    static const meeting table[] = {
        { NL_WIRE_AUTO, -1, "", "92a34e454f05", "92a34e454f05", NL_HS_DONE, NL_WIRE_M, 5, 6, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "92c4034e454f05", "92c4034e454f05", NL_HS_DONE, NL_WIRE_M, 5, 7, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000006", "00000006", NL_HS_DONE, NL_WIRE_N, 6, 4, NULL, NULL },
        { NL_WIRE_AUTO, 1, "", "00000001 0000", "00000001", NL_HS_DONE, NL_WIRE_N, 1, 4, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000000 0001 0000002a", "", NL_HS_DONE, NL_WIRE_2016, -1, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000001 0001 0000002a", "", NL_HS_DONE, NL_WIRE_2016, -1, 0, NULL, NULL },
        { NL_WIRE_AUTO, 3, "", "92a34e454f03", "92a34e454f03", NL_HS_DONE, NL_WIRE_M, 3, 6, NULL, NULL },
        /* undecided */
        { NL_WIRE_AUTO, -1, "", "000000", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000001", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "0000000000", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "92a34e454f", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "92c4034e454f", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "92", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "47", "", NL_HS_GOING, 0, 0, 0, NULL, NULL },
        /* a mismatch: our opening in their dialect comes before the verdict */
        { NL_WIRE_AUTO, -1, "", "92a34e454f04", "92a34e454f05", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO M protocol 4" },
        { NL_WIRE_AUTO, -1, "", "92c4034e454f04", "92c4034e454f05", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO M protocol 4" },
        { NL_WIRE_AUTO, -1, "", "00000005", "00000006", NL_HS_FAILED, 0, 0, 0,
          "NEO N protocol 6", "NEO N protocol 5" },
        { NL_WIRE_AUTO, -1, "", "00000001 0000", "00000006", NL_HS_FAILED, 0, 0, 0,
          "NEO N protocol 6", "NEO N protocol 1" },
        { NL_WIRE_AUTO, -1, "", "92a34e454fcc", "92a34e454f05", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO M, protocol number beginning with byte cc" },
    };
    (void)state;
    for (size_t i = 0; i < LEN(table); i++)
        meets(NL_SERVER, &table[i]);
}

static void test_listener_with_a_wire(void **state)
{
    static const meeting table[] = {
        { NL_WIRE_M, -1, "92a34e454f05", "92a34e454f05", "", NL_HS_DONE, NL_WIRE_M, 5, 6, NULL, NULL },
        { NL_WIRE_M, -1, "92a34e454f05", "92c4034e454f05", "", NL_HS_DONE, NL_WIRE_M, 5, 7, NULL, NULL },
        { NL_WIRE_N, -1, "00000006", "00000006", "", NL_HS_DONE, NL_WIRE_N, 6, 4, NULL, NULL },
        { NL_WIRE_N, 1, "00000001", "00000001", "", NL_HS_DONE, NL_WIRE_N, 1, 4, NULL, NULL },
        { NL_WIRE_N, 9, "00000009", "00000006", "", NL_HS_FAILED, 0, 0, 0, "NEO N protocol 9", "NEO N protocol 6" },
        { NL_WIRE_M, -1, "92a34e454f05", "00000006", "", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO N protocol 6" },
        { NL_WIRE_N, -1, "00000006", "92a34e454f05", "", NL_HS_FAILED, 0, 0, 0,
          "NEO N protocol 6", "NEO M protocol 5" },
        { NL_WIRE_N, -1, "00000006", "000000000001", "", NL_HS_FAILED, 0, 0, 0, "NEO N protocol 6", "NEO 2016" },
        { NL_WIRE_M, -1, "92a34e454f05", "160301", "", NL_HS_FAILED, 0, 0, 0, "NEO M protocol 5", "TLS" },
        { NL_WIRE_2016, -1, "", "", "", NL_HS_DONE, NL_WIRE_2016, -1, 0, NULL, NULL },
    };
    (void)state;
    for (size_t i = 0; i < LEN(table); i++)
        meets(NL_SERVER, &table[i]);
}

static void test_strangers_at_a_listener(void **state)
{
    static const meeting table[] = {
        { NL_WIRE_AUTO, -1, "", "16", "15030100020228", NL_HS_FAILED, 0, 0, 0, M_OR_N, "TLS" },
        { NL_WIRE_AUTO, -1, "", "05", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 05" },
        { NL_WIRE_AUTO, -1, "", "000001", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 00 00 01" },
        { NL_WIRE_AUTO, -1, "", "0000000101", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 00 00 00 01 01" },
        { NL_WIRE_AUTO, -1, "", "000000000002", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 00 00 00 00 00 02" },
        { NL_WIRE_AUTO, -1, "", "92a34e454e", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 92 a3 4e 45 4e" },
        { NL_WIRE_AUTO, -1, "", "4743", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 47 43" },
    };
    nl_hs hs;
    uint8_t answer[160];
    (void)state;
    for (size_t i = 0; i < LEN(table); i++)
        meets(NL_SERVER, &table[i]);

    nl_hs_init(&hs, NL_SERVER, NL_WIRE_AUTO, -1, false);
    nl_hs_feed(&hs, (const uint8_t *)"GET / HTTP/1.1\r\n", 16);
    failed(&hs, M_OR_N, "HTTP");
    size_t n = nl_hs_output(&hs, answer, sizeof answer);
    assert_true(n > 12);
    assert_memory_equal(answer, "HTTP/1.0 400", 12);

    nl_hs_init(&hs, NL_SERVER, NL_WIRE_AUTO, -1, false);        /* no more than 16 bytes are named */
    nl_hs_feed(&hs, (const uint8_t *)"zzzzzzzzzzzzzzzzzzzz", 20);
    failed(&hs, M_OR_N, "bytes 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a 7a ...");

    nl_hs_init(&hs, NL_SERVER, NL_WIRE_AUTO, -1, true);         /* inside TLS a hello is just bytes */
    nl_hs_feed(&hs, (const uint8_t *)"\x16\x03\x01", 3);
    failed(&hs, M_OR_N, "bytes 16 03 01");
    says(&hs, "");
}

static void test_listener_and_the_end_of_the_stream(void **state)
{
    nl_hs hs;
    (void)state;
    nl_hs_init(&hs, NL_SERVER, NL_WIRE_AUTO, -1, false);
    assert_true(hs.patience_ns == NL_FOREVER);                  /* its driver's deadline rules */
    nl_hs_silence(&hs);
    assert_int_equal(hs.state, NL_HS_GOING);
    nl_hs_eof(&hs);
    failed(&hs, M_OR_N, "nothing");

    nl_hs_init(&hs, NL_SERVER, NL_WIRE_M, -1, false);
    nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3", 2);
    nl_hs_eof(&hs);
    failed(&hs, "NEO M protocol 5", "bytes 92 a3");
    says(&hs, "92a34e454f05");

    nl_hs_init(&hs, NL_SERVER, NL_WIRE_AUTO, -1, false);
    nl_hs_feed(&hs, (const uint8_t *)"\0\0\0\1", 4);
    nl_hs_give_up(&hs);
    failed(&hs, M_OR_N, "bytes 00 00 00 01");
}

/* ---- dialer -------------------------------------------------------------------------------------------------- */

static void test_dialer(void **state)
{
    static const meeting table[] = {
        { NL_WIRE_AUTO, -1, "", "92a34e454f05", "92a34e454f05", NL_HS_DONE, NL_WIRE_M, 5, 6, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "92c4034e454f05", "92c4034e454f05", NL_HS_DONE, NL_WIRE_M, 5, 7, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000006", "00000006", NL_HS_DONE, NL_WIRE_N, 6, 4, NULL, NULL },
        { NL_WIRE_AUTO, 1, "", "00000001", "00000001", NL_HS_DONE, NL_WIRE_N, 1, 4, NULL, NULL },
        { NL_WIRE_AUTO, -1, "", "00000001", "00000006", NL_HS_FAILED, 0, 0, 0,
          "NEO N protocol 6", "NEO N protocol 1" },
        { NL_WIRE_AUTO, -1, "", "92a34e454f06", "92a34e454f05", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO M protocol 6" },
        { NL_WIRE_AUTO, -1, "", "48545450", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "HTTP" },
        { NL_WIRE_AUTO, -1, "", "1503", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "TLS" },
        { NL_WIRE_AUTO, -1, "", "05", "", NL_HS_FAILED, 0, 0, 0, M_OR_N, "bytes 05" },
        { NL_WIRE_M, -1, "92a34e454f05", "92a34e454f05", "", NL_HS_DONE, NL_WIRE_M, 5, 6, NULL, NULL },
        { NL_WIRE_M, 4, "92a34e454f04", "92a34e454f05", "", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 4", "NEO M protocol 5" },
        { NL_WIRE_M, -1, "92a34e454f05", "00000006", "", NL_HS_FAILED, 0, 0, 0,
          "NEO M protocol 5", "NEO N protocol 6" },
        { NL_WIRE_N, -1, "00000006", "00000006", "", NL_HS_DONE, NL_WIRE_N, 6, 4, NULL, NULL },
        { NL_WIRE_N, -1, "00000006", "92a34e454f05", "", NL_HS_FAILED, 0, 0, 0,
          "NEO N protocol 6", "NEO M protocol 5" },
        { NL_WIRE_2016, -1, "", "", "", NL_HS_DONE, NL_WIRE_2016, -1, 0, NULL, NULL },
    };
    (void)state;
    for (size_t i = 0; i < LEN(table); i++)
        meets(NL_CLIENT, &table[i]);
}

static void offer(nl_hs *hs)
{
    nl_hs_init(hs, NL_CLIENT, NL_WIRE_AUTO, -1, false);
    assert_true(hs->patience_ns == INT64_C(100000000));
    says(hs, "");
    nl_hs_silence(hs);
    assert_int_equal(hs->state, NL_HS_GOING);
    assert_true(hs->patience_ns == INT64_C(500000000));
    says(hs, "92a34e454f05");
}

static void wants_redial(const nl_hs *hs, const char *theirs)
{
    assert_int_equal(hs->state, NL_HS_REDIAL);
    assert_int_equal(hs->redial_wire, NL_WIRE_N);
    assert_string_equal(hs->report.ours, "NEO M protocol 5");
    assert_string_equal(hs->report.theirs, theirs);
}

static void test_dialer_after_silence(void **state)
{
    nl_hs hs;
    (void)state;
    offer(&hs);
    assert_int_equal(nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3NEO\x05", 6), 6);
    assert_int_equal(hs.state, NL_HS_DONE);
    assert_int_equal(hs.wire, NL_WIRE_M);
    says(&hs, "");

    offer(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3NEO\x04", 6);
    failed(&hs, "NEO M protocol 5", "NEO M protocol 4");

    offer(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"\0\0\0\6", 4);
    wants_redial(&hs, "NEO N protocol 6");

    offer(&hs);
    nl_hs_eof(&hs);
    wants_redial(&hs, "nothing");

    offer(&hs);
    nl_hs_silence(&hs);
    wants_redial(&hs, "nothing");

    offer(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"HTTP/1.1", 8);
    failed(&hs, "NEO M protocol 5", "HTTP");
}

static void test_dialer_and_half_an_opening(void **state)
{
    nl_hs hs;
    (void)state;
    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_AUTO, -1, false);
    nl_hs_feed(&hs, (const uint8_t *)"\0\0", 2);
    assert_true(hs.patience_ns == NL_FOREVER);                  /* it speaks, so nothing is offered over its word */
    nl_hs_silence(&hs);
    says(&hs, "");
    assert_int_equal(hs.state, NL_HS_GOING);
    nl_hs_eof(&hs);
    failed(&hs, M_OR_N, "bytes 00 00");

    offer(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"\x92", 1);
    nl_hs_eof(&hs);                                             /* it did speak M: dialing with N would not help */
    failed(&hs, "NEO M protocol 5", "bytes 92");

    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_AUTO, -1, false);
    nl_hs_eof(&hs);
    failed(&hs, M_OR_N, "nothing");
}

/* What the redial does: N is spoken at once, and a silence means nothing any more. */
static void test_redial(void **state)
{
    nl_hs hs;
    (void)state;
    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_N, -1, false);
    says(&hs, "00000006");
    assert_true(hs.patience_ns == NL_FOREVER);
    nl_hs_silence(&hs);
    assert_int_equal(hs.state, NL_HS_GOING);
    nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3NEO\x05", 6);
    failed(&hs, "NEO N protocol 6", "NEO M protocol 5");
    assert_int_equal(hs.peer_wire, NL_WIRE_M);
}

static void hear_first(nl_hs *hs)
{
    nl_hs_init(hs, NL_CLIENT, NL_WIRE_M, -1, false);
    nl_hs_hear_first(hs);
    assert_true(hs->patience_ns == INT64_C(100000000));
    says(hs, "");
}

/* M has two forms, and a node takes only its own. Who spoke first in the wrong one dials again, and listens first. */
static void test_dialer_on_m_and_the_other_form(void **state)
{
    const uint8_t *bin = (const uint8_t *)"\x92\xc4\x03NEO\x05";
    nl_hs hs;
    (void)state;
    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_M, -1, false);
    says(&hs, "92a34e454f05");
    assert_int_equal(trickle(&hs, bin, 7), 7);
    assert_int_equal(hs.state, NL_HS_REDIAL);
    assert_int_equal(hs.redial_wire, NL_WIRE_M);

    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_M, -1, false);
    nl_hs_eof(&hs);
    assert_int_equal(hs.state, NL_HS_REDIAL);
    assert_int_equal(hs.redial_wire, NL_WIRE_M);

    hear_first(&hs);
    assert_int_equal(trickle(&hs, bin, 7), 7);
    assert_int_equal(hs.state, NL_HS_DONE);
    says(&hs, "92c4034e454f05");

    hear_first(&hs);
    assert_int_equal(nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3NEO\x05", 6), 6);
    assert_int_equal(hs.state, NL_HS_DONE);
    says(&hs, "92a34e454f05");
}

/* The second time is the last one, whatever comes. */
static void test_dialer_that_heard_first(void **state)
{
    nl_hs hs;
    (void)state;
    hear_first(&hs);
    nl_hs_eof(&hs);
    failed(&hs, "NEO M protocol 5", "nothing");

    hear_first(&hs);
    nl_hs_silence(&hs);
    says(&hs, "92a34e454f05");
    assert_true(hs.patience_ns == NL_FOREVER);
    nl_hs_eof(&hs);
    failed(&hs, "NEO M protocol 5", "nothing");

    hear_first(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"\0\0\0\6", 4);
    failed(&hs, "NEO M protocol 5", "NEO N protocol 6");
    says(&hs, "92a34e454f05");

    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_M, -1, false);           /* another version is no question of form */
    nl_hs_feed(&hs, (const uint8_t *)"\x92\xc4\x03NEO\x04", 7);
    failed(&hs, "NEO M protocol 5", "NEO M protocol 4");
}

static void test_verdict_is_final(void **state)
{
    nl_hs hs;
    (void)state;
    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_N, -1, false);
    nl_hs_eof(&hs);
    nl_hs_feed(&hs, (const uint8_t *)"\x92\xa3NEO\x05", 6);
    nl_hs_silence(&hs);
    nl_hs_give_up(&hs);
    failed(&hs, "NEO N protocol 6", "nothing");
}

static void test_output_in_pieces(void **state)
{
    nl_hs hs;
    uint8_t bytes[6];
    (void)state;
    nl_hs_init(&hs, NL_CLIENT, NL_WIRE_M, -1, false);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(nl_hs_output(&hs, bytes + i, 1), 1);
    assert_memory_equal(bytes, "\x92\xa3NEO\x05", 6);
    says(&hs, "");
}

/* Both ends are ours and both on auto: the listener waits, the dialer offers, they meet on M. */
static void test_auto_meets_auto(void **state)
{
    nl_hs dialer, listener;
    uint8_t wire[160];
    (void)state;
    nl_hs_init(&dialer, NL_CLIENT, NL_WIRE_AUTO, -1, false);
    nl_hs_init(&listener, NL_SERVER, NL_WIRE_AUTO, -1, false);
    nl_hs_silence(&dialer);
    size_t n = nl_hs_output(&dialer, wire, sizeof wire);
    nl_hs_feed(&listener, wire, n);
    n = nl_hs_output(&listener, wire, sizeof wire);
    nl_hs_feed(&dialer, wire, n);
    assert_int_equal(dialer.state, NL_HS_DONE);
    assert_int_equal(listener.state, NL_HS_DONE);
    assert_int_equal(dialer.wire, NL_WIRE_M);
    assert_int_equal(listener.wire, NL_WIRE_M);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listener_on_auto),
        cmocka_unit_test(test_listener_with_a_wire),
        cmocka_unit_test(test_strangers_at_a_listener),
        cmocka_unit_test(test_listener_and_the_end_of_the_stream),
        cmocka_unit_test(test_dialer),
        cmocka_unit_test(test_dialer_after_silence),
        cmocka_unit_test(test_dialer_and_half_an_opening),
        cmocka_unit_test(test_redial),
        cmocka_unit_test(test_dialer_on_m_and_the_other_form),
        cmocka_unit_test(test_dialer_that_heard_first),
        cmocka_unit_test(test_verdict_is_final),
        cmocka_unit_test(test_output_in_pieces),
        cmocka_unit_test(test_auto_meets_auto),
    };
    return cmocka_run_group_tests_name("hs", tests, NULL, NULL);
}
