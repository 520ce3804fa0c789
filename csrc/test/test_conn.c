/* Tests of Conns and asks: the inbox, ends, deadlines, many threads on one link.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "link.h"

#include "kit.h"

#include <malloc.h>

/* ---- blocking calls and ends ------------------------------------------------------------------------------------- */

/* S1: as the leader, who reads the socket, and as a follower, who sleeps. */
static void test_close_wakes_recv(void **state)
{
    (void)state;
    for_each_kind(k)
        for (int first_is_leader = 0; first_is_leader < 2; first_is_leader++) {
            pair p = pair_new(*k);
            job a = { .conn = conn_new(p.client) }, b = { .conn = conn_new(p.client) };
            job *closed = first_is_leader ? &a : &b, *other = first_is_leader ? &b : &a;
            nl_packet *none;

            job_start(&a, job_recv);
            wait_until(stats_of(p.client).waiters == 1);
            job_start(&b, job_recv);
            wait_until(stats_of(p.client).waiters == 2);
            nl_conn_close(closed->conn);
            job_join(closed);
            must_be(closed->result, NL_ECONNCLOSED);
            must(!atomic_load(&other->done) && nl_conn_is_closed(closed->conn));
            must_be(nl_conn_send(closed->conn, ASK, NULL, 0, NL_NOW, NULL), NL_ECONNCLOSED);
            must_be(nl_conn_recv(closed->conn, NL_NOW, &none), NL_ECONNCLOSED);
            nl_conn_close(closed->conn);
            nl_conn_close(other->conn);
            job_join(other);
            nl_conn_rele(a.conn);
            nl_conn_rele(b.conn);
            pair_free(&p);
        }
}

/* S19, S21: close_recv ends receiving, once for all, and leaves sending; both ends so closed leave nothing. */
static void test_close_recv(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair p = pair_new(*k);
        nl_conn *c = conn_new(p.client), *s;
        job j;
        nl_packet *none, *got;

        send_ok(c, ASK, NULL, 0);
        s = accept_ok(p.server);
        recv_is(s, ASK);
        for (int i = 0; i < 3; i++)
            send_ok(c, ASK, NULL, 0);
        send_ok(c, notification(k->wire), NULL, 0);
        wait_until(stats_of(p.server).packets_received == 5);
        nl_conn_close_recv(s);
        nl_conn_close_recv(s);
        send_ok(c, ASK, NULL, 0);
        for (int i = 0; i < 4; i++)
            recv_is(c, ERROR);                  /* three that were queued and one that came later */
        must(stats_of(p.server).packets_sent == 4 && stats_of(p.server).ignored_packets == 1);
        must_be(retried(nl_conn_recv(s, NL_FOREVER, &none)), NL_ECONNCLOSED);
        send_ok(s, ANSWER, NULL, 0);
        recv_is(c, ANSWER);

        j = (job){ .conn = c };
        job_start(&j, job_recv);
        wait_until(stats_of(p.client).waiters == 1);
        nl_conn_close_recv(c);
        job_join(&j);
        must_be(j.result, NL_ECONNCLOSED);
        must_be(nl_conn_recv(c, NL_NOW, &got), NL_ECONNCLOSED);
        nl_conn_rele(c);
        nl_conn_rele(s);
        must(stats_of(p.client).conns == 0 && stats_of(p.server).conns == 0);
        pair_free(&p);
    }
}

/* S16: the peer sends and goes: all of it can be read, and then comes the end. */
static void test_last_data(void **state)
{
    (void)state;
    for_each_kind(k)
        for (int tcp = 0; tcp < 2; tcp++) {
            pair_config c = pair_default(*k);
            pair p;
            nl_conn *from, *to;
            nl_packet *none;

            c.tcp = tcp;
            p = pair_of(&c);
            from = conn_new(p.client);
            for (unsigned i = 0; i < 200; i++) {
                uint8_t *bytes = payload_new(k->wire, i * 50, i);
                send_ok(from, ASK, bytes, i * 50);
                free(bytes);
            }
            must_be(nl_link_close(p.client, in_ms(PATIENCE_MS)), NL_OK);
            to = accept_ok(p.server);
            wait_until(nl_link_is_closed(p.server));
            for (unsigned i = 0; i < 200; i++) {
                nl_packet *got = recv_ok(to);
                must(payload_is(k->wire, got, i * 50, i));
                nl_packet_free(got);
            }
            must_be(retried(nl_conn_recv(to, in_ms(PATIENCE_MS), &none)), NL_ELINKDOWN);
            must(fault_of(p.server).clean);
            nl_conn_rele(from);
            nl_conn_rele(to);
            pair_free(&p);
        }
}

/* S37: no time, a time long past, and a time that never comes. */
static void test_odd_deadlines(void **state)
{
    int64_t odd[] = { NL_NOW, 1, INT64_MIN, -1, -1000000000 };
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client), *s, *none;
    nl_packet *got;
    nl_ask ask;

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        must_be(nl_conn_recv(c, odd[i], &got), NL_ETIMEOUT);
        must_be(nl_link_accept(p.server, odd[i], &none), NL_ETIMEOUT);
        must_be(nl_ask_begin(p.client, &ask, notification(NL_WIRE_2016), NULL, 0, odd[i], NULL), NL_OK);
        must_be(nl_ask_wait(&ask, odd[i], &got), NL_ETIMEOUT);
        nl_ask_end(&ask);
        nl_conn_rele(accept_ok(p.server));
    }
    send_ok(c, ASK, NULL, 0);
    s = accept_ok(p.server);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        uint64_t so_far = stats_of(p.client).packets_received;
        send_ok(s, ANSWER, NULL, 0);
        must(so_far == i);
        wait_until(stats_of(p.client).packets_received == i + 1);
        must_be(nl_conn_recv(c, odd[i], &got), NL_OK);          /* what is there is had, late or not */
        nl_packet_free(got);
    }
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

/* S34: recv given up in the hand-off window: packets go to the next receiver, none lost, in order. */

static void take_impatiently(job *j)
{
    nl_packet *p;

    while (j->n < 3000) {
        nl_err e = retried(nl_conn_recv(j->conn, nl_now_ns() + (int64_t)(j->n % 50) * 1000, &p));
        if (e == NL_OK) {
            atomic_fetch_add((atomic_uint *)j->arg, 1);
            nl_packet_free(p);
        } else if (e != NL_ETIMEOUT) {
            j->result = e;
            return;
        }
        j->n++;
    }
}

/* S34 */
static void test_impatient_receivers_lose_nothing(void **state)
{
    atomic_uint taken = 0;
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client), *s;
    job j[4];
    unsigned sent = 1, left = 0;
    uint32_t last = 0;
    nl_packet *got;

    (void)state;
    send_ok(c, ASK, NULL, 0);
    s = accept_ok(p.server);
    for (int i = 0; i < 4; i++) {
        j[i] = (job){ .conn = s, .arg = &taken };
        job_start(&j[i], take_impatiently);
    }
    while (!atomic_load(&j[0].done) || !atomic_load(&j[1].done))
        send_ok(c, (uint16_t)(sent++ & 0x7ff), &sent, sizeof sent);
    for (int i = 0; i < 4; i++) {
        job_join(&j[i]);
        must_be(j[i].result, NL_OK);
    }
    wait_until(stats_of(p.server).packets_received == sent);
    while (nl_conn_recv(s, NL_NOW, &got) == NL_OK) {
        uint32_t number;
        memcpy(&number, got->payload, sizeof number);
        must(left++ == 0 || number == last + 1);
        last = number;
        nl_packet_free(got);
    }
    must(atomic_load(&taken) + left == sent);
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

/* ---- accept ------------------------------------------------------------------------------------------------------ */

/* S3 */
static void test_accept_is_woken(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        static const nl_err want[] = { NL_ENOTACCEPTING, NL_ELINKCLOSED, NL_ELINKDOWN, NL_ELINKCLOSED };
        pair p = pair_new(KIND_2016);
        job a = { .link = p.server }, b = { .link = p.server };

        job_start(&a, job_accept);
        job_start(&b, job_recv1);
        wait_until(stats_of(p.server).waiters == 2);
        if (how == 0)
            nl_link_close_accept(p.server);
        else if (how == 1)
            must_be(nl_link_close(p.server, in_ms(PATIENCE_MS)), NL_OK);
        else if (how == 2)
            nl_link_abort(p.client);
        else
            nl_link_shut(p.server);
        job_join(&a);
        job_join(&b);
        must_be(a.result, want[how]);
        must_be(b.result, want[how]);
        must(how != 2 || strstr(fault_of(p.server).text, "the peer closed the link"));
        pair_free(&p);
    }
}

static void accept_once(job *j) { j->result = nl_link_accept(j->link, j->deadline, &j->conn); }

static void test_wake_accept(void **state)
{
    pair p = pair_new(KIND_2016);
    job a = { .link = p.server };
    nl_conn *c = conn_new(p.client);

    (void)state;
    job_start(&a, accept_once);
    wait_until(stats_of(p.server).waiters == 1);
    nl_link_wake_accept(p.server);
    job_join(&a);
    must_be(a.result, NL_EINTR);
    job_start(&a, accept_once);                 /* an old wake does not count */
    wait_until(stats_of(p.server).waiters == 1);
    send_ok(c, ASK, NULL, 0);
    job_join(&a);
    must_be(a.result, NL_OK);
    nl_conn_rele(a.conn);
    nl_conn_rele(c);
    pair_free(&p);
}

/* A worker that is still on its way when it is woken does not sleep, whatever it takes. */
static void test_wake_on_the_way(void **state)
{
    pair p = pair_new(KIND_2016);
    unsigned before = nl_link_wakes(p.server);
    nl_packet *packet;
    nl_conn *c = conn_new(p.client), *taken;

    (void)state;
    nl_link_wake_accept(p.server);
    must(nl_link_wakes(p.server) != before);
    must_be(nl_link_take(p.server, before, &taken, NULL), NL_EINTR);
    must_be(nl_link_take(p.server, before, &taken, &packet), NL_EINTR);
    send_ok(c, ASK, NULL, 0);
    must_be(nl_link_take(p.server, nl_link_wakes(p.server), &taken, &packet), NL_OK);
    must(packet->code == ASK);
    nl_packet_free(packet);
    nl_conn_rele(taken);
    nl_conn_rele(c);
    pair_free(&p);
}

/* A Conn over its own budget fails, if it was told so, and the others live. */
static void test_overflow(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        uint8_t *bytes = payload_new(k->wire, 1000, 1);
        pair p;
        nl_conn *full, *other, *s, *t;
        nl_packet *none;

        c.server.limits.rx_fail = true;
        c.server.limits.conn_rx_bytes = 10000;
        p = pair_of(&c);
        full = conn_new(p.client);
        other = conn_new(p.client);
        send_ok(other, ASK, bytes, 1000);
        send_ok(full, ASK, bytes, 1000);
        t = accept_ok(p.server);
        s = accept_ok(p.server);
        for (int i = 0; i < 15; i++)
            send_ok(full, notification(k->wire), bytes, 1000);
        wait_until(stats_of(p.server).packets_received == 17);
        must_be(nl_conn_recv(s, NL_NOW, &none), NL_ETOOBIG);
        must_be(nl_conn_send(s, ANSWER, NULL, 0, NL_NOW, NULL), NL_ETOOBIG);
        must(nl_conn_is_closed(s) && stats_of(p.server).rx_bytes_queued == 1000);
        recv_is(t, ASK);
        send_ok(full, ASK, NULL, 0);
        recv_is(full, ERROR);
        nl_conn_rele(full);
        nl_conn_rele(other);
        nl_conn_rele(s);
        nl_conn_rele(t);
        free(bytes);
        pair_free(&p);
    }
}

/* recv1 skips a Conn that overflowed before anybody took it. */
static void test_recv1_skips_the_overflown(void **state)
{
    pair_config c = pair_default(KIND_2016);
    pair p;
    nl_conn *full, *good, *s = NULL;
    nl_packet *got = NULL;
    char bytes[300] = "";

    (void)state;
    c.server.limits.rx_fail = true;
    c.server.limits.conn_rx_bytes = 500;
    p = pair_of(&c);
    full = conn_new(p.client);
    good = conn_new(p.client);
    send_ok(full, ASK, bytes, 300);
    send_ok(full, ASK, bytes, 300);
    send_ok(good, ASK, bytes, 300);
    wait_until(stats_of(p.server).packets_received == 3);       /* else it may be had before it overflows */
    must_be(retried(nl_link_recv1(p.server, in_ms(PATIENCE_MS), &s, &got)), NL_OK);
    must(nl_conn_id(s) == nl_conn_id(good) && got->len == 300);
    nl_packet_free(got);
    nl_conn_rele(full);
    nl_conn_rele(good);
    nl_conn_rele(s);
    must(stats_of(p.server).conns == 0);
    pair_free(&p);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static void test_ask_and_answer(void **state)
{
    (void)state;
    for_each_kind(k) {
        size_t sizes[] = { 0, 10, 100, 1000, 5000, 70000, 300000 };
        pair p = pair_new(*k);
        job echo = { .link = p.server };

        job_start(&echo, job_echo);
        for (unsigned i = 0; i < 7; i++) {
            uint8_t *bytes = payload_new(k->wire, sizes[i], i);
            nl_ask ask;
            nl_packet *answer = NULL;
            bool maybe = false;
            must_be(nl_ask_begin(p.client, &ask, ASK, bytes, sizes[i], in_ms(PATIENCE_MS), &maybe), NL_OK);
            must_be(retried(nl_ask_wait(&ask, in_ms(PATIENCE_MS), &answer)), NL_OK);
            must(maybe && answer->code == ANSWER && payload_is(k->wire, answer, sizes[i], i));
            nl_ask_end(&ask);
            nl_packet_free(answer);
            free(bytes);
        }
        must(stats_of(p.client).conns == 0);
        nl_link_abort(p.client);
        job_join(&echo);
        pair_free(&p);
    }
}

/* nl_ask_whole: begun once, however often it is called, and not at all without room. */
static void test_ask_as_one(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_CLIENT, *k);
        static uint8_t large[4096];
        nl_packet *answer = NULL;
        nl_ask ask = { .begun = false };
        peer_packet request;
        bool maybe = true;
        int peer;

        c.limits.packet_bytes = 1024;
        nl_link *link = link_and_peer(&c, true, &peer);
        must_be(nl_ask_whole(link, &ask, ASK, large, sizeof large, NL_NOW, &maybe, &answer), NL_ETOOBIG);
        must(!ask.begun && !maybe);
        must_be(nl_ask_whole(link, &ask, ASK, NULL, 0, NL_NOW, &maybe, &answer), NL_ETIMEOUT);
        must(ask.begun && maybe);
        must_be(nl_ask_whole(link, &ask, ASK, NULL, 0, in_ms(1), &maybe, &answer), NL_ETIMEOUT);
        request = peer_recv(peer, k->wire);
        must(request.id == ask.conn_id);
        peer_silent(peer);
        peer_send(peer, k->wire, request.id, ANSWER, NULL, 0);
        must_be(retried(nl_ask_whole(link, &ask, ASK, NULL, 0, NL_FOREVER, &maybe, &answer)), NL_OK);
        must(answer->conn_id == request.id && ask.begun);
        nl_ask_end(&ask);
        nl_packet_free(answer);
        must(stats_of(link).conns == 0);
        ask.begun = false;
        nl_link_abort(link);
        must_be(retried(nl_ask_whole(link, &ask, ASK, NULL, 0, NL_FOREVER, &maybe, &answer)), NL_ELINKCLOSED);
        must(!ask.begun && !maybe);
        close(peer);
        link_free(link);
    }
}

/* S5: three ends, three errors. */
static void test_ask_and_three_ends(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        int peer;
        nl_link *link = link_and_peer(&c, true, &peer);
        job a = { .link = link };

        job_start(&a, job_ask);
        wait_until(stats_of(link).waiters == 1);
        must(peer_recv(peer, c.wire).code == ASK);
        if (how == 0)
            must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
        if (how == 2)
            peer_reset(peer);
        else
            close(peer);
        job_join(&a);
        must_be(a.result, how == 0 ? NL_ELINKCLOSED : NL_ELINKDOWN);
        must(fault_of(link).clean == (how == 1) && fault_of(link).sys_errno == (how == 2 ? ECONNRESET : 0));
        link_free(link);
    }
}

static void test_ask_many(void **state)
{
    enum { N = 3000 };
    static nl_out requests[N];
    static nl_packet *answers[N];

    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        pair p;
        job echo;
        nl_ask_many *batch;
        size_t failed = N;

        c.client.limits.link_tx_bytes = 20000;          /* less than all of them: they wait for each other */
        c.client.limits.conns = 300;
        p = pair_of(&c);
        echo = (job){ .link = p.server };
        job_start(&echo, job_echo);
        for (unsigned i = 0; i < N; i++)
            requests[i] = (nl_out){ payload_new(k->wire, i % 200, i), i % 200, (uint16_t)(ASK + (i & 1) * 0x100) };
        memset(answers, 0, sizeof answers);
        must_be(nl_ask_many_begin(p.client, requests, answers, N, &batch), NL_OK);
        must_be(retried(nl_ask_many_wait(batch, in_ms(PATIENCE_MS), &failed)), NL_OK);
        nl_ask_many_end(batch);
        for (unsigned i = 0; i < N; i++) {
            must(answers[i]->code == (requests[i].code | NL_ANSWER_BIT) && payload_is(k->wire, answers[i], i % 200, i));
            nl_packet_free(answers[i]);
            free((void *)(uintptr_t)requests[i].payload);
        }
        must(stats_of(p.client).conns == 0);
        nl_link_abort(p.client);
        job_join(&echo);
        pair_free(&p);
    }
}

/* Some are answered, then time is up: those that were are had, the first that was not is named, later ones are late. */
static void test_ask_many_in_part(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    nl_out requests[4] = { { NULL, 0, ASK }, { NULL, 0, ASK }, { NULL, 0, ASK }, { NULL, 0, ASK } };
    nl_packet *answers[4] = { NULL };
    nl_ask_many *batch;
    uint32_t id[4];
    size_t failed = 99;
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)state;
    must_be(nl_ask_many_begin(link, requests, answers, 4, &batch), NL_OK);
    must(nl_ask_many_sent(batch) == 0);
    must_be(nl_ask_many_wait(batch, NL_NOW, &failed), NL_ETIMEOUT);
    must(failed == 0 && nl_ask_many_sent(batch) > 3);
    for (int i = 0; i < 4; i++)
        id[i] = peer_recv(peer, c.wire).id;
    peer_send(peer, c.wire, id[3], ANSWER, NULL, 0);
    peer_send(peer, c.wire, id[0], ANSWER, NULL, 0);
    wait_until(stats_of(link).packets_received == 2);
    must_be(nl_ask_many_wait(batch, NL_NOW, &failed), NL_ETIMEOUT);
    must(failed == 1 && answers[0] && !answers[1] && !answers[2] && answers[3]);
    nl_ask_many_end(batch);
    peer_send(peer, c.wire, id[1], ANSWER, NULL, 0);
    wait_until(stats_of(link).late_answers == 1);
    must(!answers[1]);
    nl_packet_free(answers[0]);
    nl_packet_free(answers[3]);
    close(peer);
    link_free(link);
}

/* Answers race the end of the batch's time, read by another thread: `failed_at` is one of the truths. */
static void test_ask_many_races_its_deadline(void **state)
{
    enum { N = 400 };
    nl_out requests[N];
    pair_config c = pair_default(KIND_2016);
    job echo, reader;
    uint64_t answered = 0, asked = 0;
    pair p;

    (void)state;
    c.server.limits.accept_backlog = 1 << 20;   /* what was given up still waits there: it is not to be refused */
    p = pair_of(&c);
    echo = (job){ .link = p.server };
    reader = (job){ .conn = conn_new(p.client) };
    job_start(&echo, job_echo);
    job_start(&reader, job_recv);               /* leads, so answers come by another thread's hand */
    wait_until(stats_of(p.client).waiters == 1);
    for (int i = 0; i < N; i++)
        requests[i] = (nl_out){ NULL, 0, ASK };
    for (int turn = 0; turn < 100; turn++) {
        nl_packet *answers[N] = { NULL };
        nl_ask_many *batch;
        size_t failed = N;
        nl_err e;

        must_be(nl_ask_many_begin(p.client, requests, answers, N, &batch), NL_OK);
        e = retried(nl_ask_many_wait(batch, nl_now_ns() + turn * 5000, &failed));
        must(e == NL_OK || (e == NL_ETIMEOUT && failed < N));
        nl_ask_many_end(batch);
        for (int i = 0; i < N; i++) {
            answered += answers[i] != NULL;
            nl_packet_free(answers[i]);
        }
        asked += N;
    }
    wait_until(stats_of(p.client).packets_received == asked);
    must(answered + stats_of(p.client).late_answers + stats_of(p.client).ignored_packets == asked);
    nl_conn_close(reader.conn);
    job_join(&reader);
    nl_conn_rele(reader.conn);
    nl_link_abort(p.client);
    job_join(&echo);
    pair_free(&p);
}

/* S33: answer and deadline at the same time, 10^5 times: answer xor timeout, and the numbers add up. How long an ask
 * may take follows how long it does take, so that half of them are in time and the rest miss it by microseconds. */
static void test_answer_races_deadline(void **state)
{
    enum { TURNS = 50000 };

    (void)state;
    for (int other_leads = 0; other_leads < 2; other_leads++) {
        pair p = pair_new(KIND_2016);
        job echo = { .link = p.server }, reader = { .conn = conn_new(p.client) };
        uint64_t answered = 0;
        int64_t patience = 20000;

        job_start(&echo, job_echo);
        if (other_leads) {
            job_start(&reader, job_recv);
            wait_until(stats_of(p.client).waiters == 1);
        }
        for (int i = 0; i < TURNS; i++) {
            nl_ask ask;
            nl_packet *answer = NULL;
            nl_err e;

            must_be(nl_ask_begin(p.client, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
            e = retried(nl_ask_wait(&ask, nl_now_ns() + patience, &answer));
            nl_ask_end(&ask);
            must(e == NL_OK ? answer && answer->conn_id == ask.conn_id : e == NL_ETIMEOUT && !answer);
            answered += e == NL_OK;
            nl_packet_free(answer);
            patience += e == NL_OK ? -200 : 200;        /* so that half of them are in time */
        }
        wait_until(stats_of(p.client).packets_received == TURNS);
        must(answered + stats_of(p.client).late_answers + stats_of(p.client).ignored_packets == TURNS);
        /* Tombs are bounded. */
        must(stats_of(p.client).ignored_packets == 0 || stats_of(p.client).late_answers > 1000);
        must(answered > TURNS / 10 && answered < TURNS);
        nl_conn_close(reader.conn);
        if (other_leads)
            job_join(&reader);
        nl_conn_rele(reader.conn);
        nl_link_abort(p.client);
        job_join(&echo);
        pair_free(&p);
    }
}

/* Eight threads ask, notify and converse on one link, closing at random; every packet is accounted for. */
typedef struct crowd { nl_link *link; atomic_uint asked, answered; } crowd;

static void converse(job *j)
{
    crowd *all = j->arg;
    unsigned seed = (unsigned)j->n * 7919u + 1;
    nl_packet *p;

    for (int i = 0; i < 300; i++) {
        nl_ask ask;
        nl_conn *conn;

        seed = seed * 1103515245u + 12345u;
        switch (seed >> 16 & 3) {
        case 0:                                 /* may be given up */
            must_be(nl_ask_begin(all->link, &ask, ASK, &seed, 4, NL_FOREVER, NULL), NL_OK);
            atomic_fetch_add(&all->asked, 1);
            if (retried(nl_ask_wait(&ask, nl_now_ns() + (seed >> 20) * 100, &p)) == NL_OK) {
                must(memcmp(p->payload, &seed, 4) == 0);
                atomic_fetch_add(&all->answered, 1);
                nl_packet_free(p);
            }
            nl_ask_end(&ask);
            break;
        case 1:
            must_be(nl_link_notify(all->link, notification(NL_WIRE_2016), NULL, 0, NL_FOREVER, NULL), NL_OK);
            break;
        default:                                /* a Conn that is closed before, while or after its answer comes */
            must_be(nl_conn_new(all->link, &conn), NL_OK);
            must_be(nl_conn_send(conn, ASK, &seed, 4, NL_FOREVER, NULL), NL_OK);
            if (seed & 0x100000 && retried(nl_conn_recv(conn, NL_FOREVER, &p)) == NL_OK) {
                must(memcmp(p->payload, &seed, 4) == 0);
                nl_packet_free(p);
            }
            if (seed & 0x200000)
                nl_conn_close(conn);
            nl_conn_rele(conn);
        }
    }
}

static void test_crowd(void **state)
{
    (void)state;
    for (int tcp = 0; tcp < 2; tcp++) {
        pair_config c = pair_default(KIND_2016);
        pair p;
        crowd all;
        job j[8], echo[2];

        c.tcp = tcp;
        p = pair_of(&c);
        all = (crowd){ .link = p.client };
        for (int i = 0; i < 2; i++) {
            echo[i] = (job){ .link = p.server };
            job_start(&echo[i], job_echo);
        }
        for (int i = 0; i < 8; i++) {
            j[i] = (job){ .arg = &all, .n = (uint64_t)i };
            job_start(&j[i], converse);
        }
        for (int i = 0; i < 8; i++)
            job_join(&j[i]);
        wait_until(stats_of(p.client).packets_received == stats_of(p.server).packets_sent &&
                   stats_of(p.server).packets_received == stats_of(p.client).packets_sent &&
                   stats_of(p.server).waiters == 2 && stats_of(p.server).tx_bytes_queued == 0);
        must(stats_of(p.client).conns == 0 && stats_of(p.client).rx_bytes_queued == 0);
        must(atomic_load(&all.answered) + stats_of(p.client).late_answers == atomic_load(&all.asked));
        nl_link_abort(p.client);
        for (int i = 0; i < 2; i++)
            job_join(&echo[i]);
        pair_free(&p);
    }
}

static size_t conns_made(nl_link *link)
{
    size_t n;

    nl_link_lock(link);
    n = link->conns_made;
    nl_link_unlock(link);
    return n;
}

/* What keeps a link in memory: Conns that a caller has, either side's, and no ask, however it ends. */
static void test_asks_do_not_keep_their_link(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_out request = { NULL, 0, ASK };
    nl_packet *answer = NULL;
    nl_ask_many *many;
    nl_conn *c, *s;
    nl_ask ask;

    (void)state;
    for (int answered = 0; answered < 2; answered++) {
        must_be(nl_ask_begin(p.client, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
        must_be(nl_ask_many_begin(p.client, &request, &answer, 1, &many), NL_OK);
        must_be(nl_ask_many_wait(many, NL_NOW, NULL), NL_ETIMEOUT);
        must(conns_made(p.client) == 0);
        for (int i = 0; i < 2; i++) {
            wait_until(stats_of(p.server).conns == 2 - (unsigned)i);
            s = accept_ok(p.server);
            must(conns_made(p.server) == 2 - (size_t)i);
            if (answered)
                send_ok(s, ANSWER, NULL, 0);
            nl_conn_rele(s);
        }
        if (answered) {
            must_be(retried(nl_ask_many_wait(many, NL_FOREVER, NULL)), NL_OK);
            nl_packet_free(answer);
            must_be(retried(nl_ask_wait(&ask, NL_FOREVER, &answer)), NL_OK);
            nl_packet_free(answer);
        }
        nl_ask_many_end(many);
        nl_ask_end(&ask);
        must(conns_made(p.client) == 0 && conns_made(p.server) == 0);
    }
    c = conn_new(p.client);
    must(conns_made(p.client) == 1);
    nl_conn_rele(c);
    must(conns_made(p.client) == 0);
    pair_free(&p);
}

/* S9: the last reference goes while another thread is about to close it, over and over. */
static void test_handles_outlive_links(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client), *s;
    nl_packet *got, *none;

    (void)state;
    send_ok(c, ASK, "abc", 3);
    s = accept_ok(p.server);
    got = recv_ok(s);
    pair_free(&p);
    must_be(nl_conn_send(c, ASK, NULL, 0, NL_FOREVER, NULL), NL_ELINKCLOSED);
    must(retried(nl_conn_recv(s, NL_FOREVER, &none)) == NL_ELINKCLOSED || nl_conn_is_closed(s));
    must(nl_conn_is_closed(c) && nl_link_fd(nl_conn_link(c)) == -1);
    must(got->len == 3 && memcmp(got->payload, "abc", 3) == 0);
    nl_conn_close(c);
    nl_conn_close_recv(c);
    nl_conn_hold(c);
    nl_conn_rele(c);
    nl_conn_rele(c);
    nl_conn_rele(s);
    nl_conn_rele(NULL);
    nl_packet_free(got);
}

/* So many bytes are allocated now; 0 where the allocator does not tell. */
static size_t allocated(void) { return mallinfo2().uordblks; }

/* S51: ten Conns opened and closed in each millisecond, half of them before their answer comes. Table, budgets,
 * descriptors and memory stay flat. A second of it, or $NL_CHURN_SECONDS. */
static void test_open_and_close_many(void **state)
{
    const char *seconds = getenv("NL_CHURN_SECONDS");
    uint64_t turns = 1000 * (seconds ? strtoull(seconds, NULL, 10) : 1), late = 0;
    pair_config config = pair_default(KIND_2016);
    pair p;
    job echo;
    size_t descriptors, bytes = 0;
    int64_t begin;

    (void)state;
    config.server.limits.closed_ns = 1000000;   /* the peer's memory of closed ids comes to its level at once */
    p = pair_of(&config);
    echo = (job){ .link = p.server };
    job_start(&echo, job_echo);
    wait_until(stats_of(p.server).waiters == 1);
    descriptors = kit_descriptors();
    begin = nl_now_ns();
    for (uint64_t i = 0; i < turns; i++) {
        for (int k = 0; k < 10; k++) {
            nl_conn *c = conn_new(p.client);
            send_ok(c, ASK, NULL, 0);
            if (k & 1)
                recv_is(c, ANSWER);
            nl_conn_rele(c);
        }
        if (i == turns / 10)                            /* warm: from here on nothing grows */
            bytes = allocated();
        late += nl_now_ns() > begin + ((int64_t)i + 1) * 1000000;
        while (nl_now_ns() < begin + ((int64_t)i + 1) * 1000000)
            kit_pause();
    }
    wait_until(stats_of(p.client).packets_received == 10 * turns);
    must(stats_of(p.client).conns == 0);
    wait_until(stats_of(p.server).conns == 0);
    must(kit_descriptors() <= descriptors + 1);         /* a sleeping reader may hold one to be woken by */
    must(allocated() < bytes + 300000);
    if (seconds)
        print_message("%llu Conns in %.1f s, %llu of %llu ms begun late, %+zd bytes allocated since a tenth of it\n",
                      (unsigned long long)(10 * turns), (double)(nl_now_ns() - begin) / 1e9, (unsigned long long)late,
                      (unsigned long long)turns, (ssize_t)(allocated() - bytes));
    nl_link_abort(p.client);
    job_join(&echo);
    pair_free(&p);
}

/* S30 with traffic: ids wrap under asks, with an old Conn in their way. */
static void test_wrap_under_traffic(void **state)
{
    pair_config c = pair_default(KIND_2016);
    pair p;
    job echo;
    nl_conn *old;

    (void)state;
    c.client.first_id = UINT32_MAX - 20;
    p = pair_of(&c);
    echo = (job){ .link = p.server };
    job_start(&echo, job_echo);
    old = conn_new(p.client);
    for (int i = 0; i < 100; i++) {
        job a = { .link = p.client, .deadline = in_ms(PATIENCE_MS) };
        job_ask(&a);
        must_be(a.result, NL_OK);
        must(a.packet->conn_id != nl_conn_id(old));
        nl_packet_free(a.packet);
    }
    nl_conn_rele(old);
    nl_link_abort(p.client);
    job_join(&echo);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_close_wakes_recv), TEST(test_close_recv), TEST(test_last_data), TEST(test_odd_deadlines),
        TEST(test_impatient_receivers_lose_nothing), TEST(test_accept_is_woken), TEST(test_wake_accept),
        TEST(test_wake_on_the_way),
        TEST(test_overflow), TEST(test_recv1_skips_the_overflown), TEST(test_ask_and_answer),
        TEST(test_ask_as_one), TEST(test_ask_and_three_ends), TEST(test_ask_many), TEST(test_ask_many_in_part),
        TEST(test_ask_many_races_its_deadline), TEST(test_answer_races_deadline), TEST(test_crowd),
        TEST(test_asks_do_not_keep_their_link), TEST(test_handles_outlive_links),
        TEST(test_open_and_close_many), TEST(test_wrap_under_traffic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
