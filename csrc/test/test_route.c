/* Tests of routing: whose packet is it, and what a packet for nobody meets.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The link under test is a server's unless said otherwise, and a plain socket plays its peer: so every byte that comes
 * back is seen, and the lack of one, too. To know that nothing was said, the peer asks something that is answered and
 * finds the answer to be the first that comes.
 */
#include "kit.h"

typedef struct scene { nl_link *link; int peer; kind k; } scene;

static scene scene_over(const nl_link_config *config, bool tcp)
{
    scene s = { .k = { config->wire, config->routing } };

    s.link = link_and_peer(config, tcp, &s.peer);
    return s;
}

static scene scene_of(const nl_link_config *config) { return scene_over(config, false); }

static scene scene_new(kind k)
{
    nl_link_config c = config_of(NL_SERVER, k);

    return scene_of(&c);
}

static void scene_end(scene *s)
{
    link_free(s->link);
    close(s->peer);
}

static void says(scene *s, uint32_t id, uint16_t code) { peer_send(s->peer, s->k.wire, id, code, NULL, 0); }

static void hears(scene *s, uint32_t id, const char *text)
{
    peer_packet p = peer_recv(s->peer, s->k.wire);

    must(p.id == id && peer_says(&p, text));
}

/* Everything the peer said so far was seen by the link, and nothing was answered. */
static void heard_nothing(scene *s, uint64_t packets)
{
    wait_until(stats_of(s->link).packets_received == packets);
    peer_silent(s->peer);
}

/* S23: a side that does not accept answers a request "refused", once, and nothing else. */
static void test_refuse(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_SERVER, *k);
        scene s;

        c.accept = NL_ACCEPT_REFUSE;
        s = scene_of(&c);
        says(&s, 7, ASK);
        hears(&s, 7, "connection refused");
        says(&s, 9, notification(k->wire));
        says(&s, 11, ERROR);
        says(&s, 13, ANSWER);
        heard_nothing(&s, 4);
        must(stats_of(s.link).refused_conns == 1 && stats_of(s.link).ignored_packets == 3);
        must_be(nl_link_accept(s.link, NL_NOW, &(nl_conn *){ NULL }), NL_ENOTACCEPTING);
        scene_end(&s);
    }
}

static void test_ignore(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_SERVER, *k);
        scene s;

        c.accept = NL_ACCEPT_IGNORE;
        s = scene_of(&c);
        says(&s, 7, ASK);
        says(&s, 9, notification(k->wire));
        heard_nothing(&s, 2);
        must(stats_of(s.link).refused_conns == 0 && stats_of(s.link).ignored_packets == 2);
        must_be(nl_link_accept(s.link, NL_NOW, &(nl_conn *){ NULL }), NL_ENOTACCEPTING);
        scene_end(&s);
    }
}

/* S3, S23: after close_accept, what waited and what comes later is refused. */
static void test_close_accept(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s = scene_new(*k);
        nl_conn *conn = NULL;

        says(&s, 1, ASK);
        says(&s, 3, notification(k->wire));
        wait_until(stats_of(s.link).packets_received == 2);
        nl_link_close_accept(s.link);
        hears(&s, 1, "connection refused");
        says(&s, 5, ASK);
        hears(&s, 5, "connection refused");
        must(stats_of(s.link).refused_conns == 2 && stats_of(s.link).conns == 0);
        must_be(nl_link_accept(s.link, NL_NOW, &conn), NL_ENOTACCEPTING);
        nl_link_close_accept(s.link);
        peer_silent(s.peer);
        scene_end(&s);
    }
}

static void test_backlog_full(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s;
    nl_conn *conn;

    (void)state;
    c.limits.accept_backlog = 2;
    s = scene_of(&c);
    for (uint32_t id = 1; id <= 5; id += 2)
        says(&s, id, ASK);
    hears(&s, 5, "connection refused");
    conn = accept_ok(s.link);
    must(nl_conn_id(conn) == 1 && !nl_conn_is_ours(conn));
    says(&s, 7, ASK);                           /* there is room again */
    wait_until(stats_of(s.link).conns == 3);
    peer_silent(s.peer);
    nl_conn_rele(conn);
    scene_end(&s);
}

/* The limit of Conns holds for both sides' together. */
static void test_conns_limit(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s;
    nl_conn *ours, *theirs, *none = NULL;
    nl_ask ask;

    (void)state;
    c.limits.conns = 2;
    s = scene_of(&c);
    ours = conn_new(s.link);
    says(&s, 1, ASK);
    theirs = accept_ok(s.link);
    must_be(nl_conn_new(s.link, &none), NL_ETOOMANY);
    must_be(nl_ask_begin(s.link, &ask, ASK, NULL, 0, NL_NOW, NULL), NL_ETOOMANY);
    says(&s, 3, ASK);
    hears(&s, 3, "connection refused");
    nl_conn_rele(theirs);
    none = conn_new(s.link);
    nl_conn_rele(none);
    nl_conn_rele(ours);
    must(stats_of(s.link).conns == 0);
    scene_end(&s);
}

/* S24, S25: to a Conn that we closed a request is answered "closed"; an answer, an Error, a notification is not. */
static void test_closed_conn(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s = scene_new(*k);
        nl_conn *conn;

        says(&s, 5, ASK);
        conn = accept_ok(s.link);
        nl_conn_close(conn);
        hears(&s, 5, "connection closed");      /* the one that waited unread */
        says(&s, 5, ERROR);
        says(&s, 5, ANSWER);
        says(&s, 5, notification(k->wire));
        heard_nothing(&s, 4);
        says(&s, 5, ASK);
        hears(&s, 5, "connection closed");
        must(stats_of(s.link).ignored_packets == 3);
        nl_conn_rele(conn);
        scene_end(&s);
    }
}

/* S29: when the memory of a closed Conn has expired, its id opens a new one, which nothing takes away. */
static void test_closed_id_comes_back(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s;
    nl_conn *conn;

    (void)state;
    c.limits.closed_ns = 20000000;
    s = scene_of(&c);
    says(&s, 5, ASK);
    conn = accept_ok(s.link);
    nl_conn_rele(conn);
    conn = NULL;
    for (uint64_t asked = 2; !conn; asked++) {  /* "closed" until it has expired */
        says(&s, 5, ASK);
        wait_until(stats_of(s.link).packets_received == asked);
        if (nl_link_accept(s.link, NL_NOW, &conn) != NL_OK)
            hears(&s, 5, "connection closed");
    }
    recv_is(conn, ASK);
    says(&s, 7, ASK);                           /* another is closed and expires: the living one stays */
    nl_conn_rele(accept_ok(s.link));
    says(&s, 5, notification(NL_WIRE_2016));
    recv_is(conn, notification(NL_WIRE_2016));
    nl_conn_rele(conn);
    scene_end(&s);
}

/* With closed_ns 0 nothing is remembered. */
static void test_no_memory_of_the_closed(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s;

    (void)state;
    c.limits.closed_ns = 0;
    s = scene_of(&c);
    for (int i = 0; i < 3; i++) {
        nl_conn *conn;
        says(&s, 5, ASK);
        conn = accept_ok(s.link);
        recv_is(conn, ASK);
        nl_conn_rele(conn);
    }
    peer_silent(s.peer);
    scene_end(&s);
}

/* S25: both ends are ours, and each has closed what the other writes to: silence, not a ping-pong of Errors. */
static void test_two_of_ours_never_play_ping_pong(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair p = pair_new(*k);
        nl_conn *c = conn_new(p.client), *s;

        send_ok(c, ASK, NULL, 0);
        s = accept_ok(p.server);
        recv_is(s, ASK);
        nl_conn_close(s);
        send_ok(c, ASK, NULL, 0);               /* answered "connection closed" ... */
        wait_until(stats_of(p.server).packets_received == 2);
        nl_conn_close(c);                       /* ... into what may be closed by now */
        wait_until(stats_of(p.server).packets_sent == stats_of(p.client).packets_received);
        must(stats_of(p.server).packets_sent == 1 && stats_of(p.client).packets_sent == 2);
        nl_conn_rele(c);
        nl_conn_rele(s);
        pair_free(&p);
    }
}

/* S28: an answer that comes after its ask was given up is dropped and counted, and opens nothing. */
static void test_late_answer(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s = scene_new(*k);
        nl_ask ask;
        nl_packet *answer = NULL;

        must_be(nl_ask_begin(s.link, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL), NL_OK);
        must_be(nl_ask_wait(&ask, NL_NOW, &answer), NL_ETIMEOUT);
        nl_ask_end(&ask);
        must(peer_recv(s.peer, k->wire).code == ASK);
        says(&s, ask.conn_id, ANSWER);
        wait_until(stats_of(s.link).packets_received == 1);
        must(stats_of(s.link).late_answers == 1 && stats_of(s.link).conns == 0);
        says(&s, ask.conn_id, ANSWER);          /* a second one is not late, it is nonsense */
        wait_until(stats_of(s.link).ignored_packets == 1);
        peer_silent(s.peer);
        scene_end(&s);
    }
}

/* S28: it came after the last look and before the ask was given up: that is late, too. */
static void test_answer_between_wait_and_end(void **state)
{
    scene s = scene_new(KIND_2016);
    nl_ask ask;
    nl_packet *answer = NULL;

    (void)state;
    must_be(nl_ask_begin(s.link, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL), NL_OK);
    must_be(nl_ask_wait(&ask, NL_NOW, &answer), NL_ETIMEOUT);
    says(&s, ask.conn_id, ANSWER);
    wait_until(stats_of(s.link).packets_received == 1);
    nl_ask_end(&ask);
    must(!answer && stats_of(s.link).late_answers == 1 && stats_of(s.link).conns == 0);
    scene_end(&s);
}

/* S31: NEO/py counts as we do, so one id is open in both directions at once, told apart by the answer bit. */
static void test_one_id_both_ways(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s;
        nl_conn *ours, *theirs;
        uint32_t id;

        if (k->routing != NL_ROUTE_NEO)
            continue;
        s = scene_new(*k);
        ours = conn_new(s.link);
        id = nl_conn_id(ours);
        says(&s, id, ASK);
        theirs = accept_ok(s.link);
        must(nl_conn_id(theirs) == id && nl_conn_is_ours(ours) && !nl_conn_is_ours(theirs));
        says(&s, id, ANSWER);
        says(&s, id, notification(k->wire));
        recv_is(ours, ANSWER);
        recv_is(theirs, ASK);
        recv_is(theirs, notification(k->wire));
        nl_conn_close(theirs);
        says(&s, id, ANSWER);                   /* closing one leaves the other */
        recv_is(ours, ANSWER);
        nl_conn_rele(ours);
        nl_conn_rele(theirs);
        scene_end(&s);
    }
}

/* S31: by parity an id says who opened it, whatever the code is. */
static void test_parity(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s;
        nl_conn *ours;

        if (k->routing != NL_ROUTE_STREAM)
            continue;
        s = scene_new(*k);
        ours = conn_new(s.link);
        must((nl_conn_id(ours) & 1) == 0);
        says(&s, nl_conn_id(ours), ASK);        /* a request on our own Conn */
        recv_is(ours, ASK);
        says(&s, 4, ASK);                       /* an id of ours that we have not opened: it is a closed one */
        hears(&s, 4, "connection closed");
        must(stats_of(s.link).conns == 1);
        nl_conn_rele(ours);
        scene_end(&s);
    }
}

/* S32: what is pushed on our id goes to our Conn, also without the answer bit; with no such Conn it is dropped. */
static void test_push(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s = scene_new(*k);
        nl_conn *ours = conn_new(s.link);

        for (uint16_t i = 0; i < 2; i++) {
            says(&s, nl_conn_id(ours), (uint16_t)(push(k->wire) + i));
            recv_is(ours, (uint16_t)(push(k->wire) + i));
        }
        says(&s, nl_conn_id(ours) + 2, push(k->wire));
        wait_until(stats_of(s.link).packets_received == 3);
        must(stats_of(s.link).conns == 1);
        nl_conn_rele(ours);
        scene_end(&s);
    }
}

/* S30: our ids wrap at 2^32, keep their parity, and step over those that are still open. */
static void test_ids_wrap(void **state)
{
    nl_role roles[] = { NL_SERVER, NL_CLIENT };

    (void)state;
    for (int i = 0; i < 2; i++) {
        nl_link_config c = config_of(roles[i], KIND_2016);
        uint32_t parity = roles[i] == NL_CLIENT;
        scene s;
        nl_conn *a, *b, *d;

        c.first_id = UINT32_MAX - 1;            /* of whatever parity */
        s = scene_of(&c);
        a = conn_new(s.link);
        b = conn_new(s.link);
        must(nl_conn_id(a) == UINT32_MAX - 1 + parity && nl_conn_id(b) == parity);
        for (uint32_t id = parity + 2; id != UINT32_MAX - 1 + parity && id < 100; id += 2) {
            nl_conn *conn = conn_new(s.link);
            must(nl_conn_id(conn) == id);
            nl_conn_rele(conn);
        }
        d = conn_new(s.link);
        must((nl_conn_id(d) & 1) == parity);
        nl_conn_rele(a);
        nl_conn_rele(b);
        nl_conn_rele(d);
        scene_end(&s);
    }
}

/* S30: an old Conn has the id that is next after the wrap. */
static void test_ids_step_over_the_open(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    scene s;
    nl_conn *old, *last, *next;

    (void)state;
    c.first_id = UINT32_MAX;
    s = scene_of(&c);
    last = conn_new(s.link);
    old = conn_new(s.link);
    must(nl_conn_id(last) == UINT32_MAX && nl_conn_id(old) == 1);
    for (int i = 0; i < 3; i++) {
        next = conn_new(s.link);
        must(nl_conn_id(next) == 3 + 2 * (uint32_t)i);
        nl_conn_rele(next);
    }
    nl_conn_rele(old);
    nl_conn_rele(last);
    scene_end(&s);
}

/* S26: the memory of dead ids is bounded, and each request to one is answered as long as the peer reads. */
static void test_many_dead_ids(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s;

    (void)state;
    c.accept = NL_ACCEPT_REFUSE;
    s = scene_of(&c);
    for (uint32_t i = 0; i < 5000; i++) {
        says(&s, 2 * i + 1, ASK);
        hears(&s, 2 * i + 1, "connection refused");
    }
    must(stats_of(s.link).refused_conns == 5000 && stats_of(s.link).conns == 0);
    wait_until(stats_of(s.link).tx_bytes_queued == 0);
    scene_end(&s);
}

/* A burst of requests that nobody serves is no flood as long as the peer reads what it is told: 5000 in one write are
 * one read of the link, and their replies more than NL_CTL_BYTES. */
static void reads_refusals(job *j)
{
    for (; j->n < 5000; j->n++) {
        peer_packet p = peer_recv((int)(intptr_t)j->arg, NL_WIRE_2016);
        must(peer_says(&p, "connection"));
    }
}

static uint8_t *burst(uint32_t first, uint32_t step, size_t n, uint16_t code)
{
    uint8_t *bytes = calloc(n, NL_HEAD_MAX);

    must(bytes);
    for (size_t i = 0; i < n; i++)
        must(nl_wire_head(NL_WIRE_2016, first + step * (uint32_t)i, code, 0, bytes + 10 * i) == 10);
    return bytes;
}

static void test_burst_of_refusals_is_no_flood(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    uint8_t *bytes = burst(1, 2, 5000, ASK);
    job reader = { 0 };
    scene s;

    (void)state;
    c.accept = NL_ACCEPT_REFUSE;
    s = scene_over(&c, true);
    reader.arg = (void *)(intptr_t)s.peer;
    job_start(&reader, reads_refusals);
    peer_write(s.peer, bytes, 50000);
    job_join(&reader);
    must(fault_of(s.link).code == NL_OK);
    free(bytes);
    scene_end(&s);
}

/* S19: close_recv answers what is queued, however much that is. */
static void test_close_recv_of_many_is_no_flood(void **state)
{
    uint8_t *bytes = burst(1, 0, 5000, ASK);
    job reader = { 0 };
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    scene s = scene_over(&c, true);
    nl_conn *conn;

    (void)state;
    peer_write(s.peer, bytes, 50000);
    conn = accept_ok(s.link);
    wait_until(stats_of(s.link).packets_received == 5000);
    reader.arg = (void *)(intptr_t)s.peer;
    job_start(&reader, reads_refusals);
    nl_conn_close_recv(conn);
    job_join(&reader);
    must(fault_of(s.link).code == NL_OK);
    nl_conn_rele(conn);
    free(bytes);
    scene_end(&s);
}

/* S26, S27: a peer that writes to dead ids and does not read the replies: the link ends, and says why. */
static void test_flood(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    uint8_t *bytes = burst(1, 2, 1000, ASK);
    size_t at = 0;
    int fd[2];
    nl_link *link;

    (void)state;
    c.accept = NL_ACCEPT_REFUSE;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    while (!nl_link_is_closed(link)) {
        ssize_t n = send(fd[1], bytes + at, 10000 - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            kit_pause();
        else
            at = (at + (size_t)n) % 10000;      /* a short write goes on where it stopped: packets stay whole */
    }
    must_be(fault_of(link).code, NL_EPROTO);
    must(strstr(fault_of(link).text, "flood") && strstr(fault_of(link).text, "connection refused"));
    link_free(link);
    close(fd[1]);
    free(bytes);
}

/* S61: packets of one stream are delivered in its order, across Conns: who has seen the later one can have the
 * earlier. */
static void test_order_across_conns(void **state)
{
    (void)state;
    for_each_kind(k) {
        scene s = scene_new(*k);
        nl_conn *conn[50];

        for (uint32_t i = 0; i < 50; i++)
            says(&s, 2 * i + 1, ASK);
        for (uint32_t i = 0; i < 50; i++) {
            conn[i] = accept_ok(s.link);
            must(nl_conn_id(conn[i]) == 2 * i + 1);
        }
        for (int i = 49; i >= 0; i--) {         /* written one after the other ... */
            says(&s, nl_conn_id(conn[i]), notification(k->wire));
        }
        recv_is(conn[0], ASK);
        recv_is(conn[0], notification(k->wire));        /* ... and when the last is here ... */
        for (int i = 1; i < 50; i++) {
            nl_packet *p = NULL;
            must_be(nl_conn_recv(conn[i], NL_NOW, &p), NL_OK);
            nl_packet_free(p);
            must_be(nl_conn_recv(conn[i], NL_NOW, &p), NL_OK);      /* ... all are */
            nl_packet_free(p);
        }
        for (int i = 0; i < 50; i++)
            nl_conn_rele(conn[i]);
        scene_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_refuse), TEST(test_ignore), TEST(test_close_accept), TEST(test_backlog_full), TEST(test_conns_limit),
        TEST(test_closed_conn), TEST(test_closed_id_comes_back), TEST(test_no_memory_of_the_closed),
        TEST(test_two_of_ours_never_play_ping_pong), TEST(test_late_answer), TEST(test_answer_between_wait_and_end),
        TEST(test_one_id_both_ways),
        TEST(test_parity), TEST(test_push), TEST(test_ids_wrap), TEST(test_ids_step_over_the_open),
        TEST(test_many_dead_ids), TEST(test_burst_of_refusals_is_no_flood), TEST(test_close_recv_of_many_is_no_flood),
        TEST(test_flood), TEST(test_order_across_conns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
