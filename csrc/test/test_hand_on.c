/* What is left behind when one of the rarer lines that hand on or wake is missing (core/hand_on.h): each test here is
 * the one that notices.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

/* shut_kick: a burst that is corked was told to be on its way; an abort behind it must not cut it off. */
static void test_abort_uncorks(void **state)
{
    (void)state;
    for (int corked = 0, tries = 0; corked < 20 && tries < 2000; tries++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        int peer, sent = 0;
        nl_link *link = link_and_peer(&c, false, &peer);

        for (; sent < 5; sent++)
            must_be(nl_link_notify(link, notification(c.wire), NULL, 0, NL_FOREVER, NULL), NL_OK);
        corked += stats_of(link).tx_bytes_queued > 0;
        link_free(link);
        must(peer_drain(peer) == 10 * (size_t)sent);
        close(peer);
    }
}

/* tx_cork_timer: what a burst left behind leaves by itself. */
static void test_burst_leaves_by_itself(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer, corked = 0;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)state;
    for (int tries = 0; corked < 20 && tries < 500; tries++) {
        for (int i = 0; i < 5; i++)
            must_be(nl_link_notify(link, notification(c.wire), NULL, 0, NL_FOREVER, NULL), NL_OK);
        corked += stats_of(link).tx_bytes_queued > 0;
        for (int i = 0; i < 5; i++)
            must(peer_recv(peer, c.wire).code == notification(c.wire));
    }
    link_free(link);
    close(peer);
}

/* close_abort: when close runs out of time because a call is still inside, the link ends as soon as that one leaves. */
static void test_late_close_ends_all_the_same(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job reader = { .conn = conn_new(link), .deadline = NL_FOREVER };

    (void)state;
    job_start(&reader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    must_be(nl_link_close(link, NL_NOW), NL_ETIMEOUT);
    /* Nobody else lets go of it. */
    must(poll(&(struct pollfd){ .fd = peer, .events = POLLIN }, 1, PATIENCE_MS) == 1);
    peer_eof(peer);
    job_join(&reader);
    nl_conn_rele(reader.conn);
    link_free(link);
    close(peer);
}

static void on_signal(int number) { (void)number; }

static void job_close_once(job *j) { j->result = nl_link_close(j->link, j->deadline); }

/* A signal takes the one closer out of close while it delivers; another that waits for it goes on in its place. */
static void test_next_closer(void **state)
{
    struct sigaction act = { .sa_handler = on_signal };
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[1 << 20];
    job first, second;
    nl_link *link;
    nl_conn *conn;
    int fd[2];

    (void)state;
    sigaction(SIGUSR1, &act, NULL);
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    send_ok(conn, ASK, bytes, sizeof bytes);
    first = (job){ .link = link, .deadline = NL_FOREVER };
    second = (job){ .link = link, .deadline = in_ms(PATIENCE_MS) };
    job_start(&first, job_close_once);
    wait_until(nl_link_is_closed(link));
    job_start(&second, job_close_once);
    for (int i = 0; i < 200; i++)
        kit_pause();                    /* else it comes later, and has nobody to wait for: passes as well */
    while (!atomic_load(&first.done)) {
        pthread_kill(first.thread, SIGUSR1);
        kit_pause();
    }
    job_join(&first);
    must_be(first.result, NL_EINTR);
    peer_drain(fd[1]);
    job_join(&second);
    must_be(second.result, NL_OK);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
}

static void job_recv_packet(job *j)
{
    do
        j->result = nl_link_recv_packet(j->link, j->deadline, &j->packet);
    while (j->result == NL_EINTR);
}

/* conn_end_wake: who waits for a packet learns that it was too big for the Conn. */
static void test_overflow_wakes_its_receiver(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[5000];
    nl_link *link;
    job reader;
    int peer;

    (void)state;
    c.limits.rx_fail = true;
    c.limits.conn_rx_bytes = 1000;
    link = link_and_peer(&c, false, &peer);
    reader = (job){ .conn = conn_new(link), .deadline = in_ms(PATIENCE_MS) };
    job_start(&reader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    peer_send(peer, c.wire, nl_conn_id(reader.conn), ANSWER, bytes, sizeof bytes);
    job_join(&reader);
    must_be(reader.result, NL_ETOOBIG);
    nl_conn_rele(reader.conn);
    link_free(link);
    close(peer);
}

/* accept_wake, raw_wake: who waits for a request without a deadline, as the one who reads, has it when it comes. A
 * deadline would bring it, too: later. */
static void test_request_wakes_who_waits_for_it(void **state)
{
    (void)state;
    for (int raw = 0; raw < 2; raw++) {
        nl_link_config c = config_of(NL_SERVER, KIND_2016);
        int peer;
        job taker = { .deadline = NL_FOREVER };

        c.raw = raw;
        taker.link = link_and_peer(&c, false, &peer);
        job_start(&taker, raw ? job_recv_packet : job_accept);
        wait_until(stats_of(taker.link).waiters == 1);
        peer_send(peer, c.wire, 1, ASK, NULL, 0);
        job_join(&taker);
        must_be(taker.result, NL_OK);
        nl_conn_rele(taker.conn);
        nl_packet_free(taker.packet);
        link_free(taker.link);
        close(peer);
    }
}

static void job_drain(job *j) { j->n = peer_drain(*(int *)j->arg); }

/* rx_give_idle: a reader that has slept long leaves, and nobody follows: the poller must look again. */
static void test_poller_follows_a_reader(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job reader = { .conn = conn_new(link), .deadline = NL_FOREVER };

    (void)state;
    job_start(&reader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    for (int i = 0; i < 200; i++)
        kit_pause();                                    /* until the sweep has let go of a link whose reader sleeps */
    peer_send(peer, c.wire, nl_conn_id(reader.conn), ANSWER, NULL, 0);
    job_join(&reader);
    must_be(reader.result, NL_OK);
    nl_packet_free(reader.packet);
    peer_send(peer, c.wire, nl_conn_id(reader.conn), ANSWER, NULL, 0);
    wait_until(stats_of(link).packets_received == 2);
    nl_conn_rele(reader.conn);
    link_free(link);
    close(peer);
}

/* drop_relieve: the replies to all that waits unread in a Conn are no flood of a peer that reads them. */
static void test_closing_a_full_inbox(void **state)
{
    enum { N = 20000 };
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job drain;
    nl_link *link;
    nl_conn *conn;
    int peer;

    (void)state;
    link = link_and_peer(&c, true, &peer);
    conn = conn_new(link);
    drain = (job){ .arg = &peer };
    for (int i = 0; i < N; i++)
        peer_send(peer, c.wire, nl_conn_id(conn), ASK, NULL, 0);
    wait_until(stats_of(link).packets_received == N);
    job_start(&drain, job_drain);
    nl_conn_close(conn);
    must(!nl_link_is_closed(link) && fault_of(link).code == NL_OK);
    nl_conn_rele(conn);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
    job_join(&drain);
    must(drain.n > (uint64_t)N * 20);
    link_free(link);
    close(peer);
}

/* finish_wake: of two closers one does the work, and the other learns when it is done. */
static void test_second_closer_learns(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[1 << 20];
    job first, second;
    nl_link *link;
    nl_conn *conn;
    int fd[2];

    (void)state;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    send_ok(conn, ASK, bytes, sizeof bytes);
    first = (job){ .link = link, .deadline = NL_FOREVER };
    second = (job){ .link = link, .deadline = NL_FOREVER };
    job_start(&first, job_close);
    wait_until(nl_link_is_closed(link));
    job_start(&second, job_close);
    for (int i = 0; i < 200; i++)
        kit_pause();                                    /* as above */
    peer_drain(fd[1]);
    job_join(&first);
    job_join(&second);
    must_be(first.result, NL_OK);
    must_be(second.result, NL_OK);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
}

/* Sends until the queue has no room, to a peer that does not read. */
static void fill_queue(nl_conn *conn)
{
    job filler = { .conn = conn, .deadline = 1 };       /* a deadline long gone */

    job_start(&filler, job_fill);
    job_join(&filler);
    must_be(filler.result, NL_ETIMEOUT);
}

/* end_wake_tx: a link that is shut keeps its queue; who waits for room in it must leave. */
static void test_shut_wakes_senders(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job sender = { .conn = conn_new(link), .deadline = NL_FOREVER };

    (void)state;
    fill_queue(sender.conn);
    job_start(&sender, job_fill);
    wait_until(stats_of(link).waiters == 1);
    nl_link_shut(link);
    job_join(&sender);
    must_be(sender.result, NL_ELINKCLOSED);
    nl_conn_rele(sender.conn);
    link_free(link);
    close(peer);
}

/* A link whose reading is paused: `conn` has more unread than the link may hold. */
static nl_link *paused_link(nl_conn **conn, int *peer)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[4000];
    nl_link *link;

    c.limits.link_rx_bytes = 1000;
    link = link_and_peer(&c, false, peer);
    *conn = conn_new(link);
    peer_send(*peer, c.wire, nl_conn_id(*conn), ANSWER, bytes, sizeof bytes);
    wait_until(stats_of(link).packets_received == 1);
    return link;
}

/* tx_failed_fail: nobody reads a link that is paused, so nobody but the writer learns that the peer is gone. */
static void test_paused_link_learns_from_its_writer(void **state)
{
    job asker = { .deadline = NL_FOREVER };
    nl_conn *conn;
    int peer;
    nl_link *link = asker.link = paused_link(&conn, &peer);

    (void)state;
    job_start(&asker, job_ask);
    wait_until(stats_of(link).waiters == 1);
    close(peer);
    must_be(nl_link_notify(link, notification(NL_WIRE_2016), NULL, 0, NL_FOREVER, NULL), NL_ELINKDOWN);
    job_join(&asker);
    must_be(asker.result, NL_ELINKDOWN);
    nl_conn_rele(conn);
    link_free(link);
}

/* tx_give_drop: what is queued when the writer finds the peer gone will not leave, and its memory is not held until
 * close. */
static void test_writer_drops_what_cannot_leave(void **state)
{
    nl_conn *conn;
    int peer;
    nl_link *link = paused_link(&conn, &peer);

    (void)state;
    fill_queue(conn);
    close(peer);
    wait_until(fault_of(link).code == NL_ELINKDOWN && stats_of(link).tx_bytes_queued == 0);
    nl_conn_rele(conn);
    link_free(link);
}

/* event_watch: the socket tells of room only; that it is to be watched for packets as well must not be forgotten. */
static void test_watched_for_the_other_direction(void **state)
{
    static char waste[65536];
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    nl_conn *conn = conn_new(link);

    (void)state;
    fill_queue(conn);
    wait_until(stats_of(link).rx_arms == 1);
    while (stats_of(link).tx_bytes_queued)
        if (recv(peer, waste, sizeof waste, MSG_DONTWAIT) < 0)
            kit_pause();
    peer_send(peer, c.wire, nl_conn_id(conn), ANSWER, NULL, 0);
    wait_until(stats_of(link).packets_received == 1);
    nl_conn_rele(conn);
    link_free(link);
    close(peer);
}

/* post_eventfd: a leader that sleeps for long polls, and is called away by its eventfd. */
static void test_leader_is_called_from_poll(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job reader = { .conn = conn_new(link), .deadline = NL_FOREVER };
    size_t descriptors = kit_descriptors();

    (void)state;
    job_start(&reader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    wait_until(kit_descriptors() > descriptors);        /* the eventfd; else the word in memory calls it */
    for (int i = 0; i < 20; i++)
        kit_pause();
    nl_conn_close(reader.conn);
    job_join(&reader);
    must_be(reader.result, NL_ECONNCLOSED);
    nl_conn_rele(reader.conn);
    link_free(link);
    close(peer);
}

/* raw_pop_unpause: who takes packets off a raw link over its budget lets it read on. */
static void test_raw_link_reads_on(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static uint8_t bytes[4000];
    nl_packet *p;
    nl_link *link;
    int peer;

    (void)state;
    c.raw = true;
    c.limits.link_rx_bytes = 1000;
    link = link_and_peer(&c, false, &peer);
    for (int i = 0; i < 3; i++) {
        peer_send(peer, c.wire, 1, ANSWER, bytes, sizeof bytes);
        wait_until(stats_of(link).packets_received == (uint64_t)i + 1);
        must_be(nl_link_recv_packet(link, in_ms(PATIENCE_MS), &p), NL_OK);
        nl_packet_free(p);
    }
    link_free(link);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_abort_uncorks), TEST(test_burst_leaves_by_itself), TEST(test_late_close_ends_all_the_same),
        TEST(test_request_wakes_who_waits_for_it),
        TEST(test_next_closer), TEST(test_second_closer_learns),
        TEST(test_overflow_wakes_its_receiver), TEST(test_poller_follows_a_reader), TEST(test_closing_a_full_inbox),
        TEST(test_shut_wakes_senders), TEST(test_paused_link_learns_from_its_writer),
        TEST(test_writer_drops_what_cannot_leave), TEST(test_watched_for_the_other_direction),
        TEST(test_leader_is_called_from_poll), TEST(test_raw_link_reads_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
