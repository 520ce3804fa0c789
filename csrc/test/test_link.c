/* Tests of a link's life: every way it ends, with callers in every call, and what its peer gets to see of it.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

/* ---- birth ------------------------------------------------------------------------------------------------------- */

static void test_what_a_link_is_made_of(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_SERVER, *k);
        int fd[2];
        nl_link *link;
        socklen_t n;

        c.version = 4;
        sockets_tcp(fd);
        link = link_over(fd[0], &c);
        must(nl_link_role(link) == NL_SERVER && nl_link_wire(link) == k->wire && nl_link_routing(link) == k->routing);
        must(nl_link_version(link) == 4 && nl_link_fd(link) == fd[0] && !nl_link_is_closed(link));
        must(fault_of(link).code == NL_OK && nl_link_local(link, &n)->sa_family == AF_INET && n > 0);
        must(nl_link_peer(link, &n)->sa_family == AF_INET && n > 0);
        must(fcntl(fd[0], F_GETFD) & FD_CLOEXEC && !(fcntl(fd[0], F_GETFL) & O_NONBLOCK));
        link_free(link);
        close(fd[1]);
    }
}

static void test_what_is_no_link(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    nl_link *link = NULL;
    nl_fault why;
    int fd[2], pipe_fd[2];

    (void)state;
    must(pipe(pipe_fd) == 0);
    must_be(nl_link_new(pipe_fd[0], &c, NL_FOREVER, &link, &why), NL_EINVAL);
    must(strstr(why.text, "not a stream socket"));
    must_be(nl_link_new(-1, &c, NL_FOREVER, &link, &why), NL_EINVAL);
    sockets_unix(fd);
    c.wire = NL_WIRE_AUTO;
    must_be(nl_link_new(fd[0], &c, NL_FOREVER, &link, &why), NL_EINVAL);
    must(strstr(why.text, "auto") && !link && fcntl(fd[0], F_GETFD) >= 0);
    for (int i = 0; i < 2; i++) {
        close(fd[i]);
        close(pipe_fd[i]);
    }
}

/* What a link that routes cannot do, and what a raw one can. */
static void test_raw(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        pair p;
        nl_packet *got = NULL;
        nl_conn *conn = NULL;
        nl_ask ask;
        uint8_t *bytes = payload_new(k->wire, 6000, 1);
        job j;

        c.client.raw = true;
        p = pair_of(&c);
        must_be(nl_link_send_packet(p.server, 1, ASK, NULL, 0, NL_NOW, NULL), NL_EINVAL);
        must_be(nl_link_recv_packet(p.server, NL_NOW, &got), NL_EINVAL);
        must_be(nl_conn_new(p.client, &conn), NL_EINVAL);
        must_be(nl_link_accept(p.client, NL_NOW, &conn), NL_EINVAL);
        must_be(nl_ask_begin(p.client, &ask, ASK, NULL, 0, NL_NOW, NULL), NL_EINVAL);
        must_be(nl_link_notify(p.client, ASK, NULL, 0, NL_NOW, NULL), NL_EINVAL);
        must_be(nl_link_recv_packet(p.client, NL_NOW, &got), NL_ETIMEOUT);
        must_be(nl_link_send_packet(p.client, 77, ASK, bytes, 6000, NL_FOREVER, NULL), NL_OK);
        conn = accept_ok(p.server);
        must(nl_conn_id(conn) == 77);
        send_ok(conn, ERROR, bytes, 6000);
        must_be(nl_link_recv_packet(p.client, in_ms(PATIENCE_MS), &got), NL_OK);
        must(got->conn_id == 77 && got->code == ERROR && payload_is(k->wire, got, 6000, 1));
        nl_packet_free(got);
        send_ok(conn, ERROR, bytes, 6000);              /* left behind: its bytes must come back */
        wait_until(stats_of(p.client).rx_bytes_queued == 6000);
        nl_conn_rele(conn);
        j = (job){ .link = p.server };
        job_start(&j, job_accept);
        wait_until(stats_of(p.server).waiters == 1);
        nl_link_abort(p.client);
        job_join(&j);
        must_be(j.result, NL_ELINKDOWN);
        pair_free(&p);
        free(bytes);
    }
}

/* ---- waiters of every kind --------------------------------------------------------------------------------------- */

static void many_job(job *j)
{
    nl_out requests[3] = { { NULL, 0, ASK }, { NULL, 0, ASK }, { NULL, 0, ASK } };
    nl_packet *answers[3] = { NULL };
    nl_ask_many *batch;

    must_be(nl_ask_many_begin(j->link, requests, answers, 3, &batch), NL_OK);
    j->result = retried(nl_ask_many_wait(batch, j->deadline, NULL));
    nl_ask_many_end(batch);
}

static void notify_job(job *j)
{
    static char bytes[32768];

    do
        j->result = nl_link_notify(j->link, 5, bytes, sizeof bytes, j->deadline, NULL);
    while (j->result == NL_OK);
}

/* Fills the link until senders sleep: nothing more can be sent then, so asks must be under way before. */
#define KINDS_OF_WAITERS 7
static void (*const waiters[KINDS_OF_WAITERS])(job *) = {
    job_recv, job_accept, job_recv1, job_ask, many_job, job_fill, notify_job,
};

enum { END_CLOSE, END_ABORT, END_SHUT, END_PEER_CLOSES, END_PEER_RESETS, END_GARBAGE, END_LAST_REFERENCE, ENDS };

static nl_err end_link(nl_link *link, int peer, int how)
{
    switch (how) {
    case END_CLOSE:
        nl_link_close(link, in_ms(100));            /* the peer does not read: what is queued is cut */
        return NL_ELINKCLOSED;
    case END_ABORT:
        nl_link_abort(link);
        return NL_ELINKCLOSED;
    case END_SHUT:
        nl_link_shut(link);
        return NL_ELINKCLOSED;
    case END_PEER_CLOSES:
        shutdown(peer, SHUT_WR);
        return NL_ELINKDOWN;
    case END_PEER_RESETS:
        peer_reset(dup(peer));
        shutdown(peer, SHUT_RDWR);
        return NL_ELINKDOWN;
    case END_GARBAGE:
        peer_write(peer, "GET / HTTP/1.1\r\n", 16);
        return NL_EPROTO;
    default:
        nl_link_rele(link);                         /* somebody else's: ours is the one that stays */
        nl_link_abort(link);
        return NL_ELINKCLOSED;
    }
}

/* S2, S3, S5, S7, S8: thirty callers of seven kinds, one end: all return, with one story. */
static void test_all_wake(void **state)
{
    enum { EACH = 4, N = KINDS_OF_WAITERS * EACH };

    (void)state;
    for (int how = 0; how < ENDS; how++) {
        nl_link_config c = config_of(NL_SERVER, KIND_2016);
        job j[N] = { { .n = 0 } };
        int fd[2];
        nl_link *link;
        nl_err want;

        c.limits.link_tx_bytes = 100000;
        sockets_small(fd);
        link = link_over(fd[0], &c);
        nl_link_hold(link);
        for (int i = 0; i < N; i++) {               /* kind by kind: those who fill the socket are the last */
            j[i].link = link;
            if (waiters[i / EACH] == job_recv || waiters[i / EACH] == job_fill)
                j[i].conn = conn_new(link);
            job_start(&j[i], waiters[i / EACH]);
            if (i < 5 * EACH)
                wait_until(stats_of(link).waiters == (uint64_t)i + 1);
        }
        wait_until(stats_of(link).waiters == N);
        want = end_link(link, fd[1], how);
        for (int i = 0; i < N; i++) {
            job_join(&j[i]);
            if (how == END_PEER_RESETS || how == END_PEER_CLOSES)
                must(j[i].result == NL_ELINKDOWN);
            else
                must_be(j[i].result, want);
            if (j[i].conn && (waiters[i / EACH] == job_recv || waiters[i / EACH] == job_fill))
                nl_conn_rele(j[i].conn);
        }
        must(stats_of(link).waiters == 0 && stats_of(link).inside == 0);
        must((fault_of(link).code == NL_OK) == (want == NL_ELINKCLOSED));
        if (how != END_LAST_REFERENCE)
            nl_link_rele(link);
        link_free(link);
        close(fd[1]);
    }
}

/* S8: a write that fails is what readers hear, after they had what was there to read. */
static void test_write_failure_is_heard_by_readers(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    nl_conn *s, *other = conn_new(link);
    job r = { .conn = other };
    nl_packet *none;

    (void)state;
    peer_send(peer, c.wire, 1, ASK, NULL, 0);
    s = accept_ok(link);
    recv_is(s, ASK);
    job_start(&r, job_recv);
    wait_until(stats_of(link).waiters == 1);
    peer_send(peer, c.wire, 1, notification(c.wire), "last", 4);
    shutdown(peer, SHUT_RD);                        /* our next write fails with EPIPE */
    must_be(nl_conn_send(s, ANSWER, NULL, 0, NL_FOREVER, NULL), NL_ELINKDOWN);
    job_join(&r);
    must_be(r.result, NL_ELINKDOWN);
    must(fault_of(link).sys_errno == EPIPE && strstr(fault_of(link).text, "writing"));
    recv_is(s, notification(c.wire));
    must_be(retried(nl_conn_recv(s, NL_FOREVER, &none)), NL_ELINKDOWN);
    nl_conn_rele(s);
    nl_conn_rele(other);
    link_free(link);
    close(peer);
}

/* ---- close ------------------------------------------------------------------------------------------------------- */

/* Reads slowly: a little, then a pause of the scheduler's making. */
static void read_slowly(job *j)
{
    char bytes[8192];
    ssize_t n;

    while ((n = recv((int)(intptr_t)j->arg, bytes, sizeof bytes, 0)) > 0) {
        j->n += (uint64_t)n;
        kit_pause();
    }
    j->result = n == 0 ? NL_OK : NL_ESYS;
}

/* S18: close delivers what was sent, megabytes to a slow reader, although the peer has sent what we never read. */
static void test_close_delivers(void **state)
{
    (void)state;
    for (int unread = 0; unread < 2; unread++) {
        nl_link_config c = config_of(NL_SERVER, KIND_2016);
        uint8_t *bytes = payload_new(c.wire, 3 << 20, 1);
        int fd[2];
        nl_link *link;
        nl_conn *conn;
        job reader = { 0 };

        sockets_small(fd);
        link = link_over(fd[0], &c);
        conn = conn_new(link);
        if (unread)
            for (int i = 0; i < 100; i++)
                peer_send(fd[1], c.wire, 1, ASK, bytes, 50);
        send_ok(conn, ASK, bytes, 3 << 20);
        reader.arg = (void *)(intptr_t)fd[1];
        job_start(&reader, read_slowly);
        must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
        job_join(&reader);
        must_be(reader.result, NL_OK);              /* the end of the stream, not a reset */
        must(reader.n == (3u << 20) + 10);
        nl_conn_rele(conn);
        link_free(link);
        close(fd[1]);
        free(bytes);
    }
}

/* S10: a peer that never reads costs close no more than its time. S50: and nothing stays queued. */
static void test_close_keeps_its_time(void **state)
{
    int64_t budgets[] = { 0, 1, 50, 200 };

    (void)state;
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        nl_link_config c = config_of(NL_SERVER, KIND_2016);
        static uint8_t bytes[4 << 20];
        int fd[2];
        nl_link *link;
        nl_conn *conn;
        int64_t start;

        sockets_small(fd);
        link = link_over(fd[0], &c);
        conn = conn_new(link);
        send_ok(conn, ASK, bytes, sizeof bytes);
        must(stats_of(link).tx_bytes_queued > 0);
        start = nl_now_ns();
        must_be(nl_link_close(link, budgets[i] ? in_ms(budgets[i]) : NL_NOW), NL_ETIMEOUT);
        must(nl_now_ns() - start >= budgets[i] * 1000000 && nl_now_ns() - start < (budgets[i] + PATIENCE_MS) * 1000000);
        must(nl_link_fd(link) == -1 && stats_of(link).tx_bytes_queued == 0);
        must_be(nl_link_close(link, NL_NOW), NL_OK);        /* it is closed: there is nothing to wait for */
        nl_conn_rele(conn);
        link_free(link);
        close(fd[1]);
    }
}

/* S9: from many threads at once, and again. S11: after it returned no byte is written. */
static void test_many_closers(void **state)
{
    (void)state;
    for (int turn = 0; turn < 30; turn++) {
        pair p = pair_new(KINDS[turn % 6]);
        job closers[4], fill = { .conn = conn_new(p.client) };
        uint64_t sent;

        job_start(&fill, job_fill);
        for (int i = 0; i < 4; i++) {
            closers[i] = (job){ .link = p.client, .deadline = in_ms(turn % 3 * 5 + 1) };
            job_start(&closers[i], job_close);
        }
        for (int i = 0; i < 4; i++) {
            job_join(&closers[i]);
            must(closers[i].result == NL_OK || closers[i].result == NL_ETIMEOUT);
        }
        must_be(nl_link_close(p.client, in_ms(PATIENCE_MS)), NL_OK);
        must(nl_link_fd(p.client) == -1);
        sent = stats_of(p.client).bytes_sent;
        job_join(&fill);
        must_be(fill.result, NL_ELINKCLOSED);
        must(stats_of(p.client).bytes_sent == sent);
        nl_conn_rele(fill.conn);
        pair_free(&p);
    }
}

/* S11: nobody is inside when close returns, so the owner of what the callers use may free it. */
static void test_close_waits_for_callers(void **state)
{
    (void)state;
    for (int turn = 0; turn < 50; turn++) {
        pair p = pair_new(KIND_2016);
        job j[3] = { { .conn = conn_new(p.client) }, { .link = p.client }, { .link = p.client } };

        job_start(&j[0], job_recv);
        job_start(&j[1], job_accept);
        job_start(&j[2], job_ask);
        if (turn & 1)
            wait_until(stats_of(p.client).waiters == 3);
        must_be(nl_link_close(p.client, in_ms(PATIENCE_MS)), NL_OK);
        must(stats_of(p.client).inside == 0 && stats_of(p.client).waiters == 0);
        for (int i = 0; i < 3; i++) {
            job_join(&j[i]);
            must_be(j[i].result, NL_ELINKCLOSED);
        }
        nl_conn_rele(j[0].conn);
        pair_free(&p);
    }
}

/* S13: the thread that has just read for all closes the link. */
static void recv_then_close(job *j)
{
    job_recv(j);
    if (j->result == NL_OK)
        j->result = nl_link_close(nl_conn_link(j->conn), in_ms(PATIENCE_MS));
}

/* S13 */
static void test_reader_closes(void **state)
{
    (void)state;
    for_each_kind(k) {
        pair p = pair_new(*k);
        nl_conn *c = conn_new(p.client), *s;
        job leader, follower = { .link = p.client };

        send_ok(c, ASK, NULL, 0);
        s = accept_ok(p.server);
        leader = (job){ .conn = c };
        job_start(&leader, recv_then_close);
        wait_until(stats_of(p.client).waiters == 1);
        job_start(&follower, job_accept);
        wait_until(stats_of(p.client).waiters == 2);
        send_ok(s, ANSWER, NULL, 0);
        job_join(&leader);
        job_join(&follower);
        must_be(leader.result, NL_OK);
        must_be(follower.result, NL_ELINKCLOSED);
        nl_packet_free(leader.packet);
        nl_conn_rele(c);
        nl_conn_rele(s);
        pair_free(&p);
    }
}

static void abort_job(job *j) { nl_link_abort(j->link); }

/* abort cuts a close short that waits for a peer. */
static void test_abort_cuts_close_short(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    static uint8_t bytes[4 << 20];
    int fd[2];
    nl_link *link;
    nl_conn *conn;
    job closer, aborter;
    int64_t start = nl_now_ns();

    (void)state;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    send_ok(conn, ASK, bytes, sizeof bytes);
    closer = (job){ .link = link, .deadline = NL_FOREVER };
    aborter = (job){ .link = link };
    job_start(&closer, job_close);
    wait_until(nl_link_is_closed(link));
    job_start(&aborter, abort_job);
    job_join(&aborter);
    job_join(&closer);
    must_be(closer.result, NL_ETIMEOUT);            /* not everything was delivered */
    must(nl_now_ns() - start < (int64_t)PATIENCE_MS * 1000000 && nl_link_fd(link) == -1);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
}

/* Notifications of a burst that still wait for others leave when the link is shut: there will be no others. */
static void test_shut_delivers_a_burst(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    uint64_t sent = 0;

    (void)state;
    for (; !stats_of(link).tx_bytes_queued; sent++)
        must_be(nl_link_notify(link, notification(c.wire), NULL, 0, in_ms(PATIENCE_MS), NULL), NL_OK);
    nl_link_shut(link);
    for (; sent; sent--)
        must(peer_recv(peer, c.wire).code == notification(c.wire));
    close(peer);
    link_free(link);
}

/* S14: the last reference goes with everything under way. */
static void test_drop_without_close(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        pair p = pair_new(KIND_2016);
        nl_conn *c = conn_new(p.client);

        send_ok(c, ASK, NULL, 0);
        nl_link_rele(p.client);
        wait_until(nl_link_is_closed(p.server));
        if (i & 1)
            must(nl_conn_is_closed(c));
        nl_conn_rele(c);
        nl_link_rele(p.server);
    }
}

/* S6: a race of close with a call that is about to sleep, from every side of the lock. */
static void close_conn_job(job *j)
{
    for (uint64_t i = 0; i < j->n; i++)
        sched_yield();
    nl_conn_close(j->conn);
}

/* S6 */
static void test_close_races_sleep(void **state)
{
    pair p = pair_new(KIND_2016);

    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        nl_conn *c = conn_new(p.client);
        job r = { .conn = c }, closer = { .conn = c, .n = i % 20 };

        job_start(&r, job_recv);
        job_start(&closer, close_conn_job);
        job_join(&r);
        job_join(&closer);
        must_be(r.result, NL_ECONNCLOSED);
        nl_conn_rele(c);
    }
    pair_free(&p);
}

/* ---- the peer misbehaves ----------------------------------------------------------------------------------------- */

/* S54: an end in the middle, a reset, and what is no packet: one clear fault each. */
static void test_bad_ends(void **state)
{
    static const struct { const char *bytes; size_t n; bool reset; nl_err code; const char *text; } ends[] = {
        { "", 0, false, NL_ELINKDOWN, "the peer closed the link" },
        { "\0\0\0\1", 4, false, NL_ELINKDOWN, "in the middle of a packet: 4 of at least 10 bytes" },
        { "\0\0\0\1\0\40\0\0\1\0ab", 12, false, NL_ELINKDOWN, "in the middle of a packet: 12 of at least 256" },
        { "\0\0\0\1\0\40\0\0\1\0ab", 12, true, NL_ELINKDOWN, "reset" },
        { "\0\0\0\1\0\40\0\0\0\11", 10, false, NL_EPROTO, "below the 10 bytes" },
        { "\0\0\0\1\0\40\377\377\377\377", 10, false, NL_EPROTO, "over the limit" },
        { "GET / HTTP/1.1\r\n\r\n", 18, false, NL_EPROTO, "HTTP" },
        { "\x92\xa3NEO\5\x93\0\1\x90", 10, false, NL_EPROTO, "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        nl_link_config c = config_of(NL_SERVER, KIND_2016);
        nl_conn *conn;
        nl_packet *none;
        int peer;
        nl_link *link = link_and_peer(&c, true, &peer);

        peer_send(peer, c.wire, 3, ASK, NULL, 0);
        conn = accept_ok(link);
        peer_write(peer, ends[i].bytes, ends[i].n);
        wait_until(stats_of(link).bytes_received == 10 + ends[i].n);
        if (ends[i].reset)
            peer_reset(peer);
        else
            shutdown(peer, SHUT_WR);
        recv_is(conn, ASK);
        must_be(retried(nl_conn_recv(conn, in_ms(PATIENCE_MS), &none)), ends[i].code);
        if (!strstr(fault_of(link).text, ends[i].text))
            kit_fail(__FILE__, __LINE__, "\"%s\" does not say \"%s\"", fault_of(link).text, ends[i].text);
        must(fault_of(link).clean == (ends[i].n == 0));
        nl_conn_rele(conn);
        link_free(link);
        if (!ends[i].reset)
            close(peer);
    }
}

/* S47: a byte at a time, in every wire; and everything at once. */
static void test_split_bytes(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_SERVER, *k);
        uint8_t stream[4096];
        size_t n = 0;
        int peer;
        nl_link *link = link_and_peer(&c, false, &peer);
        nl_conn *conn = NULL;

        for (unsigned i = 0; i < 10; i++) {
            uint8_t *bytes = payload_new(k->wire, i * 9, i);
            n += nl_wire_head(k->wire, 70001, notification(k->wire), i * 9, stream + n);
            memcpy(stream + n, bytes, i * 9);
            n += i * 9;
            free(bytes);
        }
        for (size_t i = 0; i < n; i++) {
            peer_write(peer, stream + i, 1);
            wait_until(stats_of(link).bytes_received == i + 1);
        }
        peer_write(peer, stream, n);
        conn = accept_ok(link);
        for (unsigned i = 0; i < 20; i++) {
            nl_packet *p = recv_ok(conn);
            must(p->conn_id == 70001 && payload_is(k->wire, p, i % 10 * 9, i % 10));
            nl_packet_free(p);
        }
        nl_conn_rele(conn);
        link_free(link);
        close(peer);
    }
}

/* S55: somebody closes the descriptor under us: the link notices by itself when it is next used, and says so. */
static void test_descriptor_closed_under_us(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    int peer, null;
    nl_link *link = link_and_peer(&c, false, &peer);
    job r = { .conn = conn_new(link) };

    (void)state;
    job_start(&r, job_recv);
    wait_until(stats_of(link).waiters == 1);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    must(dup2(null, nl_link_fd(link)) >= 0);        /* closed, and its number is another file's at once */
    close(null);
    job_join(&r);
    must_be(r.result, NL_ELINKDOWN);
    must(fault_of(link).sys_errno == ENOTSOCK);
    nl_conn_rele(r.conn);
    link_free(link);
    close(peer);
}

/* ---- signals, clock, fork ---------------------------------------------------------------------------------------- */

static atomic_uint signals;
static void on_signal(int n) { (void)n; atomic_fetch_add(&signals, 1); }

static void storm(bool on)
{
    struct sigaction a = { .sa_handler = on_signal };           /* no SA_RESTART */
    struct itimerval every = { { 0, on ? 1000 : 0 }, { 0, on ? 1000 : 0 } };

    sigaction(SIGALRM, &a, NULL);
    must(setitimer(ITIMER_REAL, &every, NULL) == 0);
}

/* S39, S43: a signal every millisecond: calls return NL_EINTR, deadlines hold, nothing is lost. */
static void test_signal_storm(void **state)
{
    sigset_t alarm_only, before;
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    nl_conn *conn = conn_new(link), *none;
    unsigned interrupted = 0;
    nl_packet *p = NULL;

    (void)state;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm_only, &before);
    atomic_store(&signals, 0);
    storm(true);
    for (int what = 0; what < 3; what++) {
        int64_t start = nl_now_ns(), end = start + 100000000;
        nl_ask ask = { 0 };
        nl_err e;

        if (what == 2)
            while (nl_ask_begin(link, &ask, ASK, NULL, 0, NL_FOREVER, NULL) == NL_EINTR) ;
        do {
            e = what == 0 ? nl_conn_recv(conn, end, &p) : what == 1 ? nl_link_accept(link, end, &none)
              : nl_ask_wait(&ask, end, &p);
            interrupted += e == NL_EINTR;
        } while (e == NL_EINTR);
        if (what == 2)
            nl_ask_end(&ask);
        must_be(e, NL_ETIMEOUT);
        must(nl_now_ns() >= end && nl_now_ns() < end + 2000000000);
    }
    must(interrupted > 10 && atomic_load(&signals) > 10);
    close(peer);
    link_free(link);
    nl_conn_rele(conn);
    storm(false);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* S39: traffic goes on under the storm, in order and whole. */
static void test_traffic_in_a_storm(void **state)
{
    pair_config c = pair_default(KIND_2016);
    pair p;
    job echo;
    uint8_t *bytes = payload_new(NL_WIRE_2016, 300000, 5);

    (void)state;
    c.tcp = true;
    c.client.limits.link_tx_bytes = 100000;
    p = pair_of(&c);
    echo = (job){ .link = p.server };
    job_start(&echo, job_echo);
    storm(true);
    for (int i = 0; i < 100; i++) {
        job a = { .link = p.client, .deadline = in_ms(PATIENCE_MS) };
        nl_ask ask;
        nl_packet *answer = NULL;
        nl_err e;

        do
            e = nl_ask_begin(p.client, &ask, ASK, bytes, 300000, a.deadline, NULL);
        while (e == NL_EINTR);
        must_be(e, NL_OK);
        do
            e = nl_ask_wait(&ask, a.deadline, &answer);
        while (e == NL_EINTR);
        must_be(e, NL_OK);
        nl_ask_end(&ask);
        must(payload_is(NL_WIRE_2016, answer, 300000, 5));
        nl_packet_free(answer);
    }
    storm(false);
    nl_link_abort(p.client);
    job_join(&echo);
    free(bytes);
    pair_free(&p);
}

/* S58: a child may touch nothing of its parent's, and its end is not seen by the peer. */
typedef struct parent { pair p; nl_conn *conn; nl_link *raw; nl_ask_many *batch; } parent;

static void child_touches_conns(parent *ours)
{
    nl_packet *packet = NULL;
    nl_ask ask = { .link = ours->p.client };
    size_t done = 0;

    must_be(nl_conn_send(ours->conn, ASK, NULL, 0, NL_FOREVER, NULL), NL_EFORKED);
    must_be(nl_conn_recv(ours->conn, NL_FOREVER, &packet), NL_EFORKED);
    must(nl_conn_is_closed(ours->conn));
    nl_conn_close_recv(ours->conn);
    nl_conn_close(ours->conn);
    nl_conn_rele(ours->conn);
    must_be(nl_ask_wait(&ask, NL_FOREVER, &packet), NL_EFORKED);
    nl_ask_end(&ask);
    must_be(nl_ask_many_wait(ours->batch, NL_FOREVER, &done), NL_EFORKED);
    must(done == 0);
    nl_ask_many_end(ours->batch);
    must_be(nl_link_notify_many(ours->p.client, &(nl_out){ .code = ASK }, 1, NL_FOREVER, &done), NL_EFORKED);
    must_be(nl_link_send_packet(ours->raw, 1, ASK, NULL, 0, NL_FOREVER, NULL), NL_EFORKED);
    must_be(nl_link_recv_packet(ours->raw, NL_FOREVER, &packet), NL_EFORKED);
    must(stats_of(ours->p.client).packets_sent == 0);
}

static void child(void *arg)
{
    parent *ours = arg;
    pair *p = &ours->p;
    nl_conn *conn = NULL;
    nl_packet *packet = NULL;
    nl_ask ask = { .link = p->client };
    nl_fault f;

    child_touches_conns(ours);
    must_be(nl_conn_new(p->client, &conn), NL_EFORKED);
    must_be(nl_link_accept(p->client, NL_FOREVER, &conn), NL_EFORKED);
    must_be(nl_link_recv1(p->client, NL_FOREVER, &conn, &packet), NL_EFORKED);
    must_be(nl_link_notify(p->client, ASK, NULL, 0, NL_FOREVER, NULL), NL_EFORKED);
    must_be(nl_ask_begin(p->client, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_EFORKED);
    must_be(nl_link_close(p->client, NL_FOREVER), NL_EFORKED);
    must(nl_link_is_closed(p->client) && nl_link_fd(p->client) == -1 && !nl_link_fault(p->client, &f));
    nl_link_close_accept(p->client);
    nl_link_wake_accept(p->client);
    nl_link_shut(p->client);
    nl_link_abort(p->client);
    nl_link_rele(p->client);
    *p = pair_new(KIND_2016);                       /* and links of its own work */
    conn = conn_new(p->client);
    send_ok(conn, ASK, NULL, 0);
    nl_conn_rele(accept_ok(p->server));
    nl_conn_rele(conn);
    pair_free(p);
    nl_shutdown();
}

static void keep_asking(job *j)
{
    atomic_bool *stop = j->arg;

    while (!atomic_load(stop)) {
        job a = { .link = j->link, .deadline = in_ms(PATIENCE_MS) };
        job_ask(&a);
        must_be(a.result, NL_OK);
        nl_packet_free(a.packet);
    }
}

/* The address sanitizer's allocator is not made safe for a fork beside threads that use it: a child that allocates may
 * sleep on its lock for ever. The test runs in every other build. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FORK_IS_UNSAFE
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FORK_IS_UNSAFE
#endif

/* S58 */
static void test_fork(void **state)
{
#ifdef FORK_IS_UNSAFE
    skip();
#endif
    nl_link_config raw = config_of(NL_CLIENT, KIND_2016);
    pair p = pair_new(KIND_2016);
    parent ours = { .p = p, .conn = conn_new(p.client) };
    nl_packet *answers[1] = { NULL };
    job echo = { .link = p.server }, asker[2];
    atomic_bool stop = false;
    int peer;

    (void)state;
    raw.raw = true;
    ours.raw = link_and_peer(&raw, false, &peer);
    must_be(nl_ask_many_begin(p.client, &(nl_out){ .code = ASK }, answers, 1, &ours.batch), NL_OK);
    job_start(&echo, job_echo);
    for (int i = 0; i < 2; i++) {
        asker[i] = (job){ .link = p.client, .arg = &stop };
        job_start(&asker[i], keep_asking);
    }
    for (int i = 0; i < 5; i++) {
        parent copy = ours;
        uint64_t so_far = stats_of(p.client).packets_received;
        wait_until(stats_of(p.client).packets_received > so_far);
        must(!fails(child, &copy));
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        job_join(&asker[i]);
    nl_ask_many_end(ours.batch);
    nl_conn_rele(ours.conn);
    link_free(ours.raw);
    close(peer);
    nl_link_abort(p.client);
    job_join(&echo);
    pair_free(&p);
}

/* nl_shutdown: links that need the thread go down, and the process can go on with new ones. */
static void test_shutdown_and_on(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        pair p = pair_new(KIND_2016);
        nl_conn *c = conn_new(p.client);

        nl_shutdown();
        nl_conn_rele(c);
        pair_free(&p);
        p = pair_new(KIND_2016);
        c = conn_new(p.client);
        send_ok(c, ASK, NULL, 0);
        nl_conn_rele(accept_ok(p.server));
        nl_conn_rele(c);
        pair_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_a_link_is_made_of), TEST(test_what_is_no_link), TEST(test_raw), TEST(test_all_wake),
        TEST(test_write_failure_is_heard_by_readers), TEST(test_close_delivers), TEST(test_close_keeps_its_time),
        TEST(test_many_closers), TEST(test_close_waits_for_callers), TEST(test_reader_closes),
        TEST(test_abort_cuts_close_short), TEST(test_shut_delivers_a_burst), TEST(test_drop_without_close),
        TEST(test_close_races_sleep),
        TEST(test_bad_ends), TEST(test_split_bytes), TEST(test_descriptor_closed_under_us), TEST(test_signal_storm),
        TEST(test_traffic_in_a_storm), TEST(test_fork), TEST(test_shutdown_and_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
