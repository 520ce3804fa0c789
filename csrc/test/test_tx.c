/* Tests of sending: order and wholeness of what is written, the budget, time that runs out, and whose bytes they are.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include <sys/socket.h>

/* Many threads, all sizes, one socket: every packet arrives whole, and each Conn's in its order. */
static void send_numbers(job *j)
{
    nl_wire wire = nl_link_wire(nl_conn_link(j->conn));

    for (unsigned i = 0; i < 150; i++) {
        size_t n = i % 30 == 29 ? 200000 : i * 13 % 3000;
        uint8_t *bytes = payload_new(wire, n, i);
        send_ok(j->conn, ASK, bytes, n);
        memset(bytes, 0xc1, n);                         /* S35: the buffer is ours again */
        free(bytes);
    }
}

static void test_whole_and_in_order(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        pair p;
        job j[4];
        nl_conn *to[4];

        c.tcp = k->routing == NL_ROUTE_NEO;
        c.client.limits.link_tx_bytes = 300000;
        p = pair_of(&c);
        for (int i = 0; i < 4; i++) {
            j[i] = (job){ .conn = conn_new(p.client) };
            job_start(&j[i], send_numbers);
        }
        for (int i = 0; i < 4; i++)
            to[i] = accept_ok(p.server);
        for (int t = 0; t < 4; t++)
            for (unsigned i = 0; i < 150; i++) {
                nl_packet *got = recv_ok(to[t]);
                must(payload_is(k->wire, got, i % 30 == 29 ? 200000 : i * 13 % 3000, i));
                nl_packet_free(got);
            }
        for (int i = 0; i < 4; i++) {
            job_join(&j[i]);
            nl_conn_rele(j[i].conn);
            nl_conn_rele(to[i]);
        }
        wait_until(stats_of(p.client).tx_bytes_queued == 0);
        must(stats_of(p.server).packets_received == 600);
        pair_free(&p);
    }
}

/* A link whose peer does not read, filled until nothing more is taken. The socket is a local one: TCP takes a little
 * more when its window is looked at again, however long after. */
typedef struct stuck { nl_link *link; nl_conn *conn; int peer; uint64_t sent; } stuck;

static stuck stuck_new(void)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[10000];
    stuck s = { 0 };
    int fd[2];

    c.limits.link_tx_bytes = 50000;
    sockets_unix(fd);
    s.link = link_over(fd[0], &c);
    s.peer = fd[1];
    s.conn = conn_new(s.link);
    while (nl_conn_send(s.conn, ASK, bytes, sizeof bytes, in_ms(20), NULL) == NL_OK)
        s.sent++;
    return s;
}

static void stuck_end(stuck *s)
{
    nl_conn_rele(s->conn);
    link_free(s->link);
    close(s->peer);
}

static void expect_packets(int peer, uint64_t n, size_t len)
{
    while (n--) {
        peer_packet p = peer_recv(peer, NL_WIRE_2016);
        must(p.code == ASK && p.len == len);
    }
}

/* S36: time runs out before the packet has its turn: it was not sent, and never comes. */
static void test_timeout_before_the_turn(void **state)
{
    stuck s = stuck_new();
    bool maybe = true;

    (void)state;
    must(stats_of(s.link).tx_bytes_queued > 40000 && stats_of(s.link).tx_bytes_queued <= 50000);
    must_be(nl_conn_send(s.conn, ERROR, "fits", 4, NL_NOW, &maybe), NL_OK);        /* a small one has room left */
    must(maybe);
    must_be(nl_conn_send(s.conn, ERROR, (char[20000]){ 0 }, 20000, in_ms(5), &maybe), NL_ETIMEOUT);
    must(!maybe);
    must_be(nl_link_notify(s.link, 5, (char[20000]){ 0 }, 20000, NL_NOW, &maybe), NL_ETIMEOUT);
    must(!maybe);
    expect_packets(s.peer, s.sent, 10000);
    must(peer_recv(s.peer, NL_WIRE_2016).code == ERROR);
    wait_until(stats_of(s.link).tx_bytes_queued == 0);
    send_ok(s.conn, ASK, NULL, 0);                      /* the next thing that comes is the next thing sent */
    expect_packets(s.peer, 1, 0);
    stuck_end(&s);
}

/* S35, S36: time runs out in the middle of a packet: it may have been sent, and it comes, as it was. */
static void test_timeout_in_the_middle(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    uint8_t *bytes = payload_new(c.wire, 900000, 9), *want = payload_new(c.wire, 900000, 9), *got = malloc(900010);
    bool maybe = false;
    size_t n = 0;
    int fd[2];
    nl_link *link;
    nl_conn *conn;

    (void)state;
    c.limits.link_tx_bytes = 50000;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    must_be(nl_conn_send(conn, ASK, bytes, 900000, in_ms(20), &maybe), NL_ETIMEOUT);
    must(maybe);
    memset(bytes, 0, 900000);
    while (n < 900010) {
        ssize_t r = recv(fd[1], got + n, 900010 - n, 0);
        must(r > 0);
        n += (size_t)r;
    }
    must(memcmp(got + 10, want, 900000) == 0);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
    free(bytes);
    free(want);
    free(got);
}

static void send_more(job *j)
{
    static char bytes[40000];

    j->result = nl_conn_send(j->conn, ASK, bytes, sizeof bytes, NL_FOREVER, NULL);
}

/* S2: a sender that waits for room is woken by the end of its Conn; the others wait on, and the stream stays whole. */
static void test_close_wakes_send(void **state)
{
    stuck s = stuck_new();
    job a = { .conn = conn_new(s.link) }, b = { .conn = conn_new(s.link) };

    (void)state;
    job_start(&a, send_more);
    job_start(&b, send_more);
    wait_until(stats_of(s.link).waiters == 2);
    nl_conn_close(a.conn);
    job_join(&a);
    must_be(a.result, NL_ECONNCLOSED);
    must(!atomic_load(&b.done));
    expect_packets(s.peer, s.sent, 10000);
    job_join(&b);
    must_be(b.result, NL_OK);
    expect_packets(s.peer, 1, 40000);
    nl_conn_rele(a.conn);
    nl_conn_rele(b.conn);
    stuck_end(&s);
}

/* Eight wait for room that is made bit by bit: all of them get it. */
static void test_many_wait_for_room(void **state)
{
    stuck s = stuck_new();
    job j[8];

    (void)state;
    for (int i = 0; i < 8; i++) {
        j[i] = (job){ .conn = s.conn };
        job_start(&j[i], send_more);
        wait_until(stats_of(s.link).waiters == (uint64_t)i + 1);
    }
    expect_packets(s.peer, s.sent, 10000);
    expect_packets(s.peer, 8, 40000);
    for (int i = 0; i < 8; i++) {
        job_join(&j[i]);
        must_be(j[i].result, NL_OK);
    }
    wait_until(stats_of(s.link).tx_bytes_queued == 0);
    stuck_end(&s);
}

/* S27: the reader's own replies wait in a queue, and it reads on; when there are too many the link ends, and says
 * so. */
static void test_replies_while_writing_is_stuck(void **state)
{
    static const char packet[] = "\0\0\0\2\0\40\0\0\0\12";
    stuck s = stuck_new();
    size_t at = 0;

    (void)state;
    nl_link_close_accept(s.link);
    for (uint32_t i = 0; i < 500; i++)
        peer_send(s.peer, NL_WIRE_2016, 2 * i, ASK, NULL, 0);
    wait_until(stats_of(s.link).packets_received == 500);
    must(!nl_link_is_closed(s.link));
    must(stats_of(s.link).refused_conns == 500);
    while (!nl_link_is_closed(s.link)) {
        ssize_t n = send(s.peer, &packet[at], 10 - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            kit_pause();
        else
            at = (at + (size_t)n) % 10;         /* a short write goes on where it stopped */
    }
    must(strstr(fault_of(s.link).text, "flood") && fault_of(s.link).code == NL_EPROTO);
    stuck_end(&s);
}

static void test_too_big(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        pair p;
        nl_conn *conn;
        nl_out out[2] = { { NULL, 0, ASK }, { NULL, 0, ASK } };
        nl_ask_many *batch;
        nl_packet *answers[2] = { NULL };
        uint8_t *bytes = payload_new(k->wire, 2000, 1);
        size_t done = 0;

        c.client.limits.packet_bytes = 1000;
        p = pair_of(&c);
        conn = conn_new(p.client);
        out[1] = (nl_out){ bytes, 2000, ASK };
        must_be(nl_conn_send(conn, ASK, bytes, 2000, NL_NOW, NULL), NL_ETOOBIG);
        must_be(nl_link_notify(p.client, ASK, bytes, 2000, NL_NOW, NULL), NL_ETOOBIG);
        must_be(nl_link_notify_many(p.client, out, 2, NL_NOW, &done), NL_ETOOBIG);
        must_be(nl_ask_many_begin(p.client, out, answers, 2, &batch), NL_ETOOBIG);
        if (k->wire == NL_WIRE_M)
            must_be(nl_conn_send(conn, ASK, "\x05", 1, NL_NOW, NULL), NL_EENCODE);
        must(done == 0 && stats_of(p.client).packets_sent == 0);
        nl_conn_rele(conn);
        free(bytes);
        pair_free(&p);
    }
}

/* notify_many: all of them, in order, also through a small budget and with time that runs out in between. */
static void test_notify_many(void **state)
{
    enum { N = 5000 };
    static nl_out out[N];
    pair_config c = pair_default(KIND_2016);
    pair p;
    size_t done = 0;
    uint32_t last = 0;

    (void)state;
    c.tcp = true;
    c.client.limits.link_tx_bytes = 30000;
    c.server.limits.accept_backlog = N;
    p = pair_of(&c);
    for (int i = 0; i < N; i++)
        out[i] = (nl_out){ "notification", 12, notification(NL_WIRE_2016) };
    while (done < N) {
        nl_err e = nl_link_notify_many(p.client, out, N, nl_now_ns() + 50000, &done);
        must(e == NL_ETIMEOUT || (e == NL_OK && done == N));
    }
    for (int i = 0; i < N; i++) {
        nl_conn *conn = accept_ok(p.server);
        must(i == 0 || nl_conn_id(conn) == last + 2);
        last = nl_conn_id(conn);
        nl_conn_rele(conn);
    }
    must(stats_of(p.client).packets_sent == N);
    pair_free(&p);
}

/* S46: both sides only send, nobody reads: each stops at its budget, and when they read it goes on. */
static void test_both_only_send(void **state)
{
    pair_config c = pair_default(KIND_2016);
    pair p;
    job a, b;
    nl_conn *ca, *cb;
    nl_packet *got;

    (void)state;
    c.client.limits.link_tx_bytes = c.server.limits.link_tx_bytes = 200000;
    c.client.limits.link_rx_bytes = c.server.limits.link_rx_bytes = 200000;
    p = pair_of(&c);
    a = (job){ .conn = conn_new(p.client) };
    send_ok(a.conn, ASK, NULL, 0);
    cb = accept_ok(p.server);
    b = (job){ .conn = cb };
    ca = a.conn;
    job_start(&a, job_fill);
    job_start(&b, job_fill);
    wait_until(stats_of(p.client).waiters == 1 && stats_of(p.server).waiters == 1);
    for (int i = 0; i < 50; i++) {                      /* each read makes room for a write */
        must_be(retried(nl_conn_recv(ca, in_ms(PATIENCE_MS), &got)), NL_OK);
        nl_packet_free(got);
        must_be(retried(nl_conn_recv(cb, in_ms(PATIENCE_MS), &got)), NL_OK);
        nl_packet_free(got);
    }
    nl_conn_close(ca);
    nl_conn_close(cb);
    job_join(&a);
    job_join(&b);
    nl_conn_rele(ca);
    nl_conn_rele(cb);
    pair_free(&p);
}

/* S50: whatever stage a send is in when the link is aborted, its bytes come back: pair_free() checks it. */
static void test_abort_at_every_stage(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        pair_config c = pair_default(KIND_2016);
        pair p;
        job j[3];
        uint64_t stage = (uint64_t)i * 20000;

        c.client.limits.link_tx_bytes = 100000;
        p = pair_of(&c);
        for (int k = 0; k < 3; k++) {
            j[k] = (job){ .conn = conn_new(p.client) };
            job_start(&j[k], job_fill);
        }
        wait_until(stats_of(p.client).bytes_sent >= stage);
        nl_link_abort(i & 1 ? p.client : p.server);
        for (int k = 0; k < 3; k++) {
            job_join(&j[k]);
            must(j[k].result == NL_ELINKCLOSED || j[k].result == NL_ELINKDOWN);
            nl_conn_rele(j[k].conn);
        }
        pair_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_whole_and_in_order), TEST(test_timeout_before_the_turn), TEST(test_timeout_in_the_middle),
        TEST(test_close_wakes_send), TEST(test_many_wait_for_room), TEST(test_replies_while_writing_is_stuck),
        TEST(test_too_big), TEST(test_notify_many), TEST(test_both_only_send), TEST(test_abort_at_every_stage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
