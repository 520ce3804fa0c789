/* What a lie about length or count costs in memory: nothing that grows with the lie. And what a packet costs that is as
 * large as it says: it is sent from where it is. Counted in bytes asked for, at the seam of the allocations.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "sys.h"
#include "wire.h"

#define LIMIT    ((size_t)64 << 20)
#define ONE_READ ((size_t)256 << 10)    /* a reader's block of 64 KiB, four times over: see rx_room */

static atomic_size_t asked_for;
static atomic_size_t first_write;       /* how much the socket takes of the next write, unless 0 */

int sys_fault(sys_call call, size_t *len)
{
    size_t room;

    if (call == SC_MALLOC)
        atomic_fetch_add(&asked_for, *len);
    if (call == SC_SENDMSG && (room = atomic_exchange(&first_write, 0)))
        *len = room;
    return 0;
}

typedef struct lie {
    const char *name;
    nl_wire     wire;
    bool        fits;                   /* below the limit: the rest is waited for */
    size_t      len;
    const char *bytes;
} lie;

#define LIE(name, wire, fits, bytes) { name, wire, fits, sizeof bytes - 1, bytes }

/* On N and 2016 the length stands behind id and code; on M [id, code, args] is an array of 3. */
static const lie LIES[] = {
    LIE("2016: a length of 4 GiB", NL_WIRE_2016, false, "\0\0\0\0\0\1\xff\xff\xff\xff"),
    LIE("2016: a length of 48 MiB", NL_WIRE_2016, true, "\0\0\0\0\0\1\3\0\0\0"),
    LIE("N: a length of 4 GiB", NL_WIRE_N, false, "\0\0\0\0\0\1\xff\xff\xff\xff"),
    LIE("N: a length of 48 MiB", NL_WIRE_N, true, "\0\0\0\0\0\1\3\0\0\0"),
    LIE("M: array of 2^32 - 1", NL_WIRE_M, false, "\x93\0\1\xdd\xff\xff\xff\xff"),
    LIE("M: array of 48 Mi", NL_WIRE_M, true, "\x93\0\1\xdd\3\0\0\0"),
    LIE("M: map of 2^32 - 1", NL_WIRE_M, false, "\x93\0\1\x91\xdf\xff\xff\xff\xff"),
    LIE("M: map of 16 Mi", NL_WIRE_M, true, "\x93\0\1\x91\xdf\1\0\0\0"),
    LIE("M: bin of 4 GiB", NL_WIRE_M, false, "\x93\0\1\x91\xc6\xff\xff\xff\xff"),
    LIE("M: bin of 48 MiB", NL_WIRE_M, true, "\x93\0\1\x91\xc6\3\0\0\0"),
    LIE("M: str of 4 GiB", NL_WIRE_M, false, "\x93\0\1\x91\xdb\xff\xff\xff\xff"),
    LIE("M: ext of 4 GiB", NL_WIRE_M, false, "\x93\0\1\x91\xc9\xff\xff\xff\xff\0"),
};

/* S48: the decoder by itself allocates nothing, whole or byte by byte. */
static void test_decoding_allocates_nothing(void **state)
{
    (void)state;
    atomic_store(&asked_for, 0);
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++) {
        const lie *l = &LIES[i];
        nl_scan_result want = l->fits ? NL_SCAN_MORE : NL_SCAN_BAD, bytewise = NL_SCAN_MORE;
        nl_scan whole = { 0 }, parts = { 0 };
        nl_fault why;

        must(nl_wire_scan(l->wire, (const uint8_t *)l->bytes, l->len, LIMIT, 0, &whole, &why) == want);
        for (size_t n = 1; n <= l->len && bytewise == NL_SCAN_MORE; n++)
            bytewise = nl_wire_scan(l->wire, (const uint8_t *)l->bytes, n, LIMIT, 0, &parts, &why);
        must(bytewise == want);
    }
    must(atomic_load(&asked_for) == 0);
}

/* S48: nor by depth. */
static void test_depth_allocates_nothing(void **state)
{
    enum { DEPTH = 1000000 };
    uint8_t *deep = malloc(DEPTH + 4);
    nl_scan scan = { 0 };
    nl_fault why;

    (void)state;
    must(deep);
    memcpy(deep, "\x93\0\1", 3);
    memset(deep + 3, 0x91, DEPTH);
    deep[DEPTH + 3] = 0x90;
    atomic_store(&asked_for, 0);
    must(nl_wire_scan(NL_WIRE_M, deep, DEPTH + 3, LIMIT, 0, &scan, &why) == NL_SCAN_MORE);
    must(nl_wire_scan(NL_WIRE_M, deep, DEPTH + 4, LIMIT, 0, &scan, &why) == NL_SCAN_PACKET);
    must(atomic_load(&asked_for) == 0);
    free(deep);
}

/* S48: a link that is told of much and gets little has memory for little. */
static void test_a_link_allocates_by_what_came(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof LIES / sizeof *LIES; i++) {
        const lie *l = &LIES[i];
        nl_link_config c = config_of(NL_SERVER, (kind){ .wire = l->wire, .routing = NL_ROUTE_DEFAULT });
        nl_conn *none;
        int peer;

        c.limits.packet_bytes = LIMIT;
        atomic_store(&asked_for, 0);
        nl_link *link = link_and_peer(&c, true, &peer);
        peer_write(peer, l->bytes, l->len);
        if (l->fits)
            shutdown(peer, SHUT_WR);            /* the reader has then seen all of it */
        must_be(retried(nl_link_accept(link, in_ms(PATIENCE_MS), &none)), l->fits ? NL_ELINKDOWN : NL_EPROTO);
        if (atomic_load(&asked_for) > ONE_READ)
            fail_msg("%s: %zu bytes", l->name, atomic_load(&asked_for));
        link_free(link);
        close(peer);
    }
}

/* A large packet that the socket takes but for its last kilobytes: they are waited for. If they were copied into the
 * queue, the next large packets would have to be queued behind them, and copied whole. */
static void test_the_end_of_a_giant_is_not_copied(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[70000];
    nl_conn *conn;
    int peer;

    (void)state;
    nl_link *link = link_and_peer(&c, false, &peer);
    conn = conn_new(link);
    for (int i = 0; i < 2; i++) {
        atomic_store(&first_write, sizeof bytes - 4000);
        atomic_store(&asked_for, 0);
        must_be(nl_conn_send(conn, ASK, bytes, sizeof bytes, in_ms(PATIENCE_MS), NULL), NL_OK);
        must(atomic_load(&asked_for) == 0 && stats_of(link).tx_handoffs == 0 && stats_of(link).tx_bytes_queued == 0);
        for (size_t n = 0; n < sizeof bytes + 10;) {
            ssize_t got = recv(peer, bytes, sizeof bytes, 0);
            must(got > 0);
            n += (size_t)got;
        }
    }
    nl_conn_rele(conn);
    close(peer);
    link_free(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_decoding_allocates_nothing), TEST(test_depth_allocates_nothing),
        TEST(test_a_link_allocates_by_what_came), TEST(test_the_end_of_a_giant_is_not_copied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
