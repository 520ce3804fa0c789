/* Races that need the system's help: here it hands out what was received byte by byte, so a reader never catches up;
 * interrupts whoever polls; or keeps a thread where it falls asleep.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "certs.h"
#include "poller.h"
#include "sys.h"

static atomic_bool slow;            /* recv gives one byte */
static atomic_bool interrupted;     /* a signal comes to whoever polls */


/* Where a thread comes no further until it is let go; the call then fails so, or goes on (0). */
typedef struct stop { sys_call at; int then; atomic_bool reached, let_go; } stop;
static _Thread_local stop *my_stop;
static stop *_Atomic poller_stop;   /* the poller's */

static int stay(stop *s)
{
    bool first = !atomic_exchange(&s->reached, true);

    while (!atomic_load(&s->let_go))
        kit_pause();
    return first ? s->then : 0;
}

int sys_fault(sys_call call, size_t *len)
{
    stop *s = nl_poller_is_me() ? atomic_load(&poller_stop) : my_stop;

    if (call == SC_RECV && atomic_load(&slow))
        *len = 1;
    if (s && call == s->at)
        return stay(s);
    return call == SC_POLL && atomic_load(&interrupted) ? EINTR : 0;
}

/* Packets for nobody, until the socket breaks. */
static void job_hose(job *j)
{
    static uint8_t bytes[4000 * 10];

    for (uint32_t i = 0; i < 4000; i++)
        nl_wire_head(NL_WIRE_2016, 2 * i + 1, notification(NL_WIRE_2016), 0, bytes + 10 * i);
    while (send((int)(intptr_t)j->arg, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes)
        ;
}

/* S10: close has bytes to deliver; the peer does not read, but writes faster than close throws away. Close
 * looked at its clock only when nothing was left to throw away. */
static void test_close_under_a_hose(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    job pump = { 0 }, filler = { .deadline = 1 }, closer = { 0 };
    nl_link *link;
    int fd[2];

    (void)state;
    c.accept = NL_ACCEPT_IGNORE;
    sockets_tcp(fd);
    pump.arg = (void *)(intptr_t)fd[1];
    closer.link = link = link_over(fd[0], &c);
    filler.conn = conn_new(link);
    job_start(&filler, job_fill);                       /* a deadline long gone: until there is no room */
    job_join(&filler);
    job_start(&pump, job_hose);
    wait_until(stats_of(link).packets_received > 1000);
    atomic_store(&slow, true);
    closer.deadline = in_ms(50);
    job_start(&closer, job_close);
    job_join(&closer);
    atomic_store(&slow, false);
    must_be(closer.result, NL_ETIMEOUT);
    nl_conn_rele(filler.conn);
    link_free(link);
    job_join(&pump);
    close(fd[1]);
}

/* Reads what is there now; how many bytes that were. */
static size_t peer_take(int fd)
{
    static char bytes[65536];
    size_t all = 0;

    for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0; all += (size_t)n)
        ;
    return all;
}

/* S10: a signal cuts a close short while it delivers, and it is not made again: what was sent leaves all the same. */
static void test_interrupted_close_delivers(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    static uint8_t bytes[4 << 20];
    size_t came = 0, all = sizeof bytes + 10;
    nl_conn *conn;
    nl_link *link;
    int fd[2];

    (void)state;
    sockets_small(fd);
    conn = conn_new(link = link_over(fd[0], &c));
    send_ok(conn, ASK, bytes, sizeof bytes);
    atomic_store(&interrupted, true);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_EINTR);
    atomic_store(&interrupted, false);
    must(stats_of(link).tx_bytes_queued > 0);
    wait_until((came += peer_take(fd[1])) == all);
    wait_until(stats_of(link).tx_bytes_queued == 0);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
}

static void job_close_once(job *j)
{
    my_stop = j->arg;
    j->result = nl_link_close(j->link, j->deadline);
}

static void job_recv_late(job *j)
{
    my_stop = j->arg;
    job_recv(j);
}

static void job_fill_late(job *j)
{
    my_stop = j->arg;
    job_fill(j);
}

/* S10: another thread aborts while a close delivers, and leaves the finish to it; then a signal calls that closer away.
 * It must finish before it goes. */
static void test_abort_beside_an_interrupted_close(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    stop polls = { .at = SC_POLL, .then = EINTR };
    job closer = { .deadline = NL_FOREVER, .arg = &polls };
    static uint8_t bytes[4 << 20];
    nl_conn *conn;
    int fd[2];

    (void)state;
    sockets_small(fd);
    conn = conn_new(closer.link = link_over(fd[0], &c));
    send_ok(conn, ASK, bytes, sizeof bytes);
    job_start(&closer, job_close_once);
    wait_until(atomic_load(&polls.reached));
    nl_link_abort(closer.link);
    must(nl_link_fd(closer.link) >= 0);                 /* it is the closer's */
    atomic_store(&polls.let_go, true);
    job_join(&closer);
    must_be(closer.result, NL_EINTR);
    must(nl_link_fd(closer.link) == -1);
    nl_conn_rele(conn);
    link_free(closer.link);
    close(fd[1]);
}

/* close_next: a signal takes the one closer out of close while a call is still inside, so another that waits for it
 * must go on in its place. */
static void test_next_closer(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    stop sends = { .at = SC_FUTEX }, waits = { .at = SC_FUTEX, .then = EINTR };
    stop follows = { .at = SC_FUTEX, .let_go = true };
    job sender = { .deadline = NL_FOREVER, .arg = &sends };
    job first = { .deadline = NL_FOREVER, .arg = &waits }, second = { .deadline = NL_FOREVER, .arg = &follows };
    int peer;

    (void)state;
    first.link = second.link = link_and_peer(&c, true, &peer);
    sender.conn = conn_new(first.link);
    job_start(&sender, job_fill_late);                  /* until it waits for room */
    wait_until(atomic_load(&sends.reached));
    job_start(&first, job_close_once);                  /* which waits for the sender */
    wait_until(atomic_load(&waits.reached));
    job_start(&second, job_close_once);                 /* which waits for the first */
    wait_until(atomic_load(&follows.reached));
    atomic_store(&waits.let_go, true);
    job_join(&first);
    must_be(first.result, NL_EINTR);
    atomic_store(&sends.let_go, true);
    job_join(&sender);
    peer_drain(peer);
    job_join(&second);
    must_be(second.result, NL_OK);
    nl_conn_rele(sender.conn);
    link_free(first.link);
    close(peer);
}

/* tx_give_quiet: a closer waits while the poller writes, which is in no call that it would leave; so it must say
 * is done. */
static void test_closer_waits_for_the_poller(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    stop writes = { .at = SC_SENDMSG }, waits = { .at = SC_FUTEX, .let_go = true };
    job closer = { .deadline = NL_FOREVER, .arg = &waits };
    static uint8_t bytes[4 << 20];
    nl_conn *conn;
    int fd[2];

    (void)state;
    sockets_small(fd);
    conn = conn_new(closer.link = link_over(fd[0], &c));
    send_ok(conn, ASK, bytes, sizeof bytes);
    atomic_store(&poller_stop, &writes);
    peer_take(fd[1]);                                   /* room, so the poller writes on */
    wait_until(atomic_load(&writes.reached));
    job_start(&closer, job_close_once);
    wait_until(atomic_load(&waits.reached));
    atomic_store(&poller_stop, NULL);
    atomic_store(&writes.let_go, true);
    peer_drain(fd[1]);
    job_join(&closer);
    must_be(closer.result, NL_OK);
    nl_conn_rele(conn);
    link_free(closer.link);
    close(fd[1]);
}

/* One waiter has been woken, but the scheduler keeps it from running; the leader has left. What comes now is for the
 * poller to read: it left that to the waiter, gave the token up, and was told again, in circles. */
static void test_poller_reads_beside_a_late_waiter(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job leader = { .conn = conn_new(link), .deadline = NL_FOREVER };
    stop sleeps = { .at = SC_FUTEX };
    job late = { .conn = conn_new(link), .deadline = NL_FOREVER, .arg = &sleeps };

    (void)state;
    job_start(&leader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    job_start(&late, job_recv_late);
    wait_until(atomic_load(&sleeps.reached));
    peer_send(peer, c.wire, nl_conn_id(late.conn), ANSWER, NULL, 0);
    wait_until(stats_of(link).packets_received == 1);
    peer_send(peer, c.wire, nl_conn_id(leader.conn), ANSWER, NULL, 0);
    job_join(&leader);
    peer_send(peer, c.wire, nl_conn_id(leader.conn), ANSWER, NULL, 0);
    wait_until(stats_of(link).packets_received == 3);
    atomic_store(&sleeps.let_go, true);
    job_join(&late);
    must_be(leader.result, NL_OK);
    must_be(late.result, NL_OK);
    nl_packet_free(leader.packet);
    nl_packet_free(late.packet);
    nl_conn_rele(leader.conn);
    nl_conn_rele(late.conn);
    link_free(link);
    close(peer);
}

/* Not a small packet, which would be written under the lock. */
static void job_send_late(job *j)
{
    static uint8_t bytes[2000];

    my_stop = j->arg;
    j->result = nl_conn_send(j->conn, ASK, bytes, sizeof bytes, j->deadline, NULL);
}

/* tx_give_end: the socket tells its error to whoever writes, and to the reader only that it has ended; the reader comes
 * first, and took it for the peer's end. */
static void test_error_that_only_the_writer_knows(void **state)
{
    static const int errors[] = { ETIMEDOUT, ECONNRESET, 0 };

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        stop writes = { .at = SC_SENDMSG, .then = errors[i] };
        job sender = { .deadline = NL_FOREVER, .arg = &writes }, receiver = { .deadline = NL_FOREVER };
        nl_link *link;
        int fd[2];

        sockets_tcp(fd);
        link = link_over(fd[0], &c);
        sender.conn = conn_new(link);
        receiver.conn = conn_new(link);
        job_start(&sender, job_send_late);
        wait_until(atomic_load(&writes.reached));
        job_start(&receiver, job_recv);
        close(fd[1]);
        wait_until(end_was_read(link));
        atomic_store(&writes.let_go, true);
        job_join(&sender);
        job_join(&receiver);
        must_be(sender.result, errors[i] ? NL_ELINKDOWN : NL_OK);
        must_be(receiver.result, NL_ELINKDOWN);
        must(fault_of(link).sys_errno == errors[i] && fault_of(link).clean == !errors[i]);
        nl_conn_rele(sender.conn);
        nl_conn_rele(receiver.conn);
        link_free(link);
    }
}

/* The other way round: the reader knows, and comes last; the writer has only EPIPE. */
static void test_error_that_only_the_reader_knows(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    stop reads = { .at = SC_RECV, .then = ETIMEDOUT }, writes = { .at = SC_SENDMSG, .then = EPIPE, .let_go = true };
    job sender = { .deadline = NL_FOREVER, .arg = &writes }, receiver = { .deadline = NL_FOREVER, .arg = &reads };
    nl_link *link;
    int peer;

    (void)state;
    link = link_and_peer(&c, true, &peer);
    sender.conn = conn_new(link);
    receiver.conn = conn_new(link);
    job_start(&receiver, job_recv_late);
    wait_until(atomic_load(&reads.reached));
    job_start(&sender, job_send_late);
    job_join(&sender);
    must_be(sender.result, NL_ELINKDOWN);
    atomic_store(&reads.let_go, true);
    job_join(&receiver);
    must_be(receiver.result, NL_ELINKDOWN);
    must(fault_of(link).sys_errno == ETIMEDOUT);
    nl_conn_rele(sender.conn);
    nl_conn_rele(receiver.conn);
    link_free(link);
    close(peer);
}

static void job_send_large(job *j)
{
    static uint8_t bytes[16 << 20];

    j->result = nl_conn_send(j->conn, ASK, bytes, sizeof bytes, j->deadline, NULL);
}

/* write_direct_end: the peer ends its half, and reads no more of a packet that is too large to be left in the queue. */
static void test_end_beside_a_send_that_is_stuck(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job sender = { .deadline = NL_FOREVER }, receiver = { .deadline = NL_FOREVER };
    nl_link *link;
    int fd[2];

    (void)state;
    c.limits.link_tx_bytes = 1 << 20;
    sockets_tcp(fd);
    link = link_over(fd[0], &c);
    sender.conn = conn_new(link);
    receiver.conn = conn_new(link);
    job_start(&sender, job_send_large);
    wait_until(stats_of(link).bytes_sent > 0);
    shutdown(fd[1], SHUT_WR);
    job_start(&receiver, job_recv);
    job_join(&receiver);
    job_join(&sender);
    must_be(receiver.result, NL_ELINKDOWN);
    must_be(sender.result, NL_ELINKDOWN);
    must(fault_of(link).clean);
    nl_conn_rele(sender.conn);
    nl_conn_rele(receiver.conn);
    link_free(link);
    close(fd[1]);
}

#ifndef NL_NO_TLS

typedef struct adoption { int fd; nl_link_config config; } adoption;

static void job_adopt(job *j)
{
    adoption *a = j->arg;
    nl_fault why;

    j->result = nl_link_new(a->fd, &a->config, in_ms(PATIENCE_MS), &j->link, &why);
}

static void take_over_in_child(void *takeover)
{
    nl_link *link;
    nl_fault why;

    must_be(nl_takeover_wait(takeover, NL_NOW, &link, &why), NL_EFORKED);
}

/* S58: a handshake over a bare socket stops for a signal and goes on where it was; but not in a child that the signal's
 * handler forked, though the process has had no link yet. */
static void test_takeover_with_signals(void **state)
{
    nl_tls_ctx *ctx = tls_ctx_new();
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    adoption a = { .config = config_of(NL_SERVER, KIND_2016) };
    job server = { .arg = &a };
    nl_takeover takeover;
    nl_conn *conn;
    nl_fault why;
    pair p;
    int fd[2];

    (void)state;
    sockets_unix(fd);
    a.fd = fd[1];
    c.tls = a.config.tls = ctx;
    must_be(nl_takeover_begin(&takeover, fd[0], &c, &why), NL_OK);
    atomic_store(&interrupted, true);
    for (int i = 0; i < 3; i++)
        must_be(nl_takeover_wait(&takeover, NL_FOREVER, &p.client, &why), NL_EINTR);
    must(!fails(take_over_in_child, &takeover));
    atomic_store(&interrupted, false);
    job_start(&server, job_adopt);
    must_be(nl_takeover_wait(&takeover, in_ms(PATIENCE_MS), &p.client, &why), NL_OK);
    nl_takeover_end(&takeover);
    job_join(&server);
    must_be(server.result, NL_OK);
    p.server = server.link;
    conn = conn_new(p.client);
    send_ok(conn, ASK, NULL, 0);
    nl_conn_rele(accept_ok(p.server));
    nl_conn_rele(conn);
    pair_free(&p);
    nl_tls_ctx_rele(ctx);
}

#endif

static void job_ask_late(job *j)
{
    my_stop = j->arg;
    job_ask(j);
}

static void job_ask_many_late(job *j)
{
    nl_out request = { .code = ASK };
    nl_ask_many *many;

    must_be(nl_ask_many_begin(j->link, &request, &j->packet, 1, &many), NL_OK);
    my_stop = j->arg;
    j->result = retried(nl_ask_many_wait(many, j->deadline, NULL));
    nl_ask_many_end(many);
}

/* S10: an ask without a deadline sleeps in a read that has no timeout, so the link's end must free it also when it comes
 * just before that read. On a Unix socket it has one. */
static void test_end_before_an_ask_sleeps(void **state)
{
    static void (*const asks[])(job *) = { job_ask_late, job_ask_many_late };

    (void)state;
    for (int way = 0; way < 8; way++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        stop reads = { .at = SC_RECV };
        job asker = { .deadline = NL_FOREVER, .arg = &reads }, closer = { 0 };
        int peer;

        c.limits.spin_ns = 0;
        asker.link = closer.link = link_and_peer(&c, way & 1, &peer);
        job_start(&asker, asks[way >> 1 & 1]);
        wait_until(atomic_load(&reads.reached));
        if (way & 4)
            nl_link_abort(asker.link);
        else
            job_start(&closer, job_close);
        wait_until(nl_link_is_closed(asker.link));
        atomic_store(&reads.let_go, true);
        job_join(&asker);
        must_be(asker.result, NL_ELINKCLOSED);
        if (!(way & 4)) {
            job_join(&closer);
            must_be(closer.result, NL_OK);
        }
        link_free(asker.link);
        close(peer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifndef NL_NO_TLS
        TEST(test_takeover_with_signals),               /* the first: before there is a link */
#endif
        TEST(test_close_under_a_hose), TEST(test_interrupted_close_delivers),
        TEST(test_abort_beside_an_interrupted_close), TEST(test_next_closer), TEST(test_closer_waits_for_the_poller),
        TEST(test_poller_reads_beside_a_late_waiter),
        TEST(test_error_that_only_the_writer_knows), TEST(test_error_that_only_the_reader_knows),
        TEST(test_end_beside_a_send_that_is_stuck),
        TEST(test_end_before_an_ask_sleeps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
