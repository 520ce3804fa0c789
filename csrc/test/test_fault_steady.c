/* What things cost in the steady state. An ask: no allocation, one write, and one read that brings something. Large
 * packets in a row: each is read where it stays, and no read takes bytes of the next. Counted at the seam of the system
 * calls.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "sys.h"

#define ASKS  10000
#define LARGE 40
#define WHOLE (10 + ((size_t)1 << 20))          /* header and payload of a large packet */

static atomic_ulong calls[SC_CALLS], whole_reads, longer_reads;

int sys_fault(sys_call call, size_t *len)
{
    atomic_fetch_add(&calls[call], 1);
    if (call == SC_RECV) {
        whole_reads += *len == WHOLE;
        longer_reads += *len > WHOLE;
    }
    return 0;
}

/* A plain peer, which has no part in the counts: it answers until the end. */
static void job_answer(job *j)
{
    int fd = (int)(intptr_t)j->arg;
    char packet[10 + 64];

    while (recv(fd, packet, sizeof packet, MSG_WAITALL) == sizeof packet) {
        packet[4] = (char)0x80;                 /* the answer bit of the code */
        must(send(fd, packet, sizeof packet, MSG_NOSIGNAL) == sizeof packet);
    }
}

static void ask_often(nl_link *link, int n)
{
    static const uint8_t payload[64];

    for (int i = 0; i < n; i++) {
        nl_packet *answer;
        nl_ask ask;

        must_be(nl_ask_begin(link, &ask, ASK, payload, sizeof payload, in_ms(PATIENCE_MS), NULL), NL_OK);
        must_be(retried(nl_ask_wait(&ask, in_ms(PATIENCE_MS), &answer)), NL_OK);
        nl_ask_end(&ask);
        must(answer->len == sizeof payload);
        nl_packet_free(answer);
    }
}

/* A link that is idle for some milliseconds gives back what it keeps for reuse, and then has to allocate once more. On
 * a slow machine that may happen between any two asks; the link counts it, as it begins to be watched then, and such a
 * run says nothing. */
static void test_an_ask_allocates_nothing(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    unsigned long allocations, writes, reads;
    job peer = { 0 };
    uint64_t arms;
    nl_link *link;
    int fd;

    (void)state;
    link = link_and_peer(&c, true, &fd);
    peer.arg = (void *)(intptr_t)fd;
    job_start(&peer, job_answer);
    for (int64_t end = in_ms(PATIENCE_MS * 4);;) {
        ask_often(link, 100);
        arms = stats_of(link).rx_arms;
        allocations = calls[SC_MALLOC];
        writes = calls[SC_SENDMSG];
        reads = calls[SC_RECV];
        ask_often(link, ASKS);
        if (stats_of(link).rx_arms == arms)
            break;
        must(nl_now_ns() < end);
    }
    must(calls[SC_MALLOC] == allocations);
    must(calls[SC_SENDMSG] - writes == ASKS);
    must(calls[SC_RECV] - reads >= ASKS);
    link_free(link);
    job_join(&peer);
    close(fd);
}

static void job_pour(job *j)
{
    static const uint8_t payload[WHOLE - 10];
    nl_packet *request;

    for (int i = 0; i < LARGE; i++) {
        must_be(retried(nl_conn_recv(j->conn, in_ms(PATIENCE_MS), &request)), NL_OK);
        nl_packet_free(request);
        must_be(nl_conn_send(j->conn, ANSWER, payload, sizeof payload, in_ms(PATIENCE_MS), NULL), NL_OK);
    }
}

/* The first packet shows how large they are. From the second on each first read asks for just that, what is still due
 * of it is asked for after it, and the block of the one before serves again. Each is asked for by itself, so that the
 * poller has none to read ahead, which would take a block more. */
static void test_large_packets_are_read_one_by_one(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *conn = conn_new(p.client);
    nl_packet *packet;
    job peer = { 0 };

    (void)state;
    send_ok(conn, ASK, NULL, 0);
    peer.conn = accept_ok(p.server);
    job_start(&peer, job_pour);
    for (int i = 0; i < LARGE; i++) {
        if (i == 1)
            whole_reads = longer_reads = 0;
        must_be(retried(nl_conn_recv(conn, in_ms(PATIENCE_MS), &packet)), NL_OK);
        must(packet->len == WHOLE - 10);
        nl_packet_free(packet);
        if (i < LARGE - 1)
            send_ok(conn, ASK, NULL, 0);
    }
    must(whole_reads >= LARGE - 1);
    must(longer_reads == 0);
    job_join(&peer);
    nl_conn_rele(peer.conn);
    nl_conn_rele(conn);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_ask_allocates_nothing),
        TEST(test_large_packets_are_read_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
