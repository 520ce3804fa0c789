/* Interleavings that once went wrong, each as its own test: who did what, in order, is in its comment.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A signal handler that does not return until it is told to holds its thread between "woken by the signal" and "back
 * under the link's lock", so that others can be made to act in just that gap.
 */
#include "kit.h"

#include "certs.h"
#include "tls.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

/* ---- deadlines under traffic ------------------------------------------------------------------------------------ */

typedef struct hose { int fd; atomic_bool stop; } hose;

/* Writes notifications for nobody, as fast as the other side takes them. */
static void job_hose(job *j)
{
    enum { N = 4000 };
    static uint8_t bytes[N * 10];
    hose *h = j->arg;

    for (uint32_t i = 0; i < N; i++)
        nl_wire_head(NL_WIRE_2016, 2 * i + 1, notification(NL_WIRE_2016), 0, bytes + 10 * i);
    while (!atomic_load(&h->stop) && send(h->fd, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes)
        ;
}

/* A leader that reads for others kept its own deadline only when the socket was empty. A hose keeps it full: then such
 * a wait never ended. How long one takes is no matter here: behind its deadline a leader makes some reads, of which
 * each may bring thousands of packets. */
static void test_deadline_of_a_busy_leader(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    hose h = { .stop = false };
    job pump = { .arg = &h };
    nl_link *link;
    nl_conn *conn;
    nl_packet *p;

    (void)state;
    c.accept = NL_ACCEPT_IGNORE;
    link = link_and_peer(&c, true, &h.fd);
    conn = conn_new(link);
    job_start(&pump, job_hose);
    wait_until(stats_of(link).packets_received > 10000);
    for (int i = 0; i < 10; i++)
        must_be(retried(nl_conn_recv(conn, in_ms(5), &p)), NL_ETIMEOUT);
    atomic_store(&h.stop, true);
    nl_conn_rele(conn);
    link_free(link);
    job_join(&pump);
    close(h.fd);
}

/* ---- signals ---------------------------------------------------------------------------------------------------- */

/* The thread sanitizer runs a handler not where the signal comes, but when its thread has just got a lock: to hold it
 * there would stop everybody. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIGNALS_COME_LATE
#endif
#elif defined(__SANITIZE_THREAD__)
#define SIGNALS_COME_LATE
#endif

static atomic_int in_handler;       /* 0 not yet, 1 in it, 2 told to leave */

static void hold_here(int number)
{
    (void)number;
    atomic_store(&in_handler, 1);
    while (atomic_load(&in_handler) != 2)
        ;
}

static void catch_signals(void)
{
    struct sigaction a = { .sa_handler = hold_here };

    atomic_store(&in_handler, 0);
    must(sigaction(SIGUSR1, &a, NULL) == 0);
}

/* Is the thread in futex(2)? If the kernel does not tell, it is taken to be. */
static bool is_asleep(const job *j)
{
    char path[64], text[16] = "";
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)atomic_load(&j->tid));
    if (!(f = fopen(path, "r")))
        return true;
    if (!fgets(text, sizeof text, f))           /* "running", or the number and the arguments of the call */
        strcpy(text, "unknown");
    fclose(f);
    return strcmp(text, "unknown") == 0 || strtol(text, NULL, 10) == SYS_futex;
}

/* Interrupts a thread that sleeps, and comes back while it is in the handler. */
static void interrupt(job *j)
{
    wait_until(is_asleep(j));
    pthread_kill(j->thread, SIGUSR1);
    wait_until(atomic_load(&in_handler) == 1);
}

/* More than the budget, so that there is room for it only when nothing at all is queued: a socket that is full may
 * still take a little. */
static void job_send_once(job *j)
{
    const size_t n = 131072;
    uint8_t *bytes = payload_new(NL_WIRE_2016, n, 1);

    j->result = nl_conn_send(j->conn, ASK, bytes, n, j->deadline, NULL);
    free(bytes);
}

static void job_recv_once(job *j)   { j->result = nl_conn_recv(j->conn, j->deadline, &j->packet); }

/* Until there is no room, and there will be none: the background thread may be about to write what is queued, so the
 * socket must be full, too. Its peer does not read. */
static void fill_up(nl_link *link, job *filler)
{
    struct pollfd p = { .fd = nl_link_fd(link), .events = POLLOUT };

    do {
        filler->deadline = 1;                           /* long gone */
        job_start(filler, job_fill);
        job_join(filler);
    } while (poll(&p, 1, 0) != 0 || stats_of(link).tx_bytes_queued <= 32768);
}

/* Of a wait that a signal should end, and may miss: see is_interrupted(). */
static __attribute__((unused)) int64_t attempt_ends(void) { return in_ms(PATIENCE_MS / 4); }

/* A sender sleeps for room; a signal; before the sender is back under the lock a Conn is closed, which wakes all
 * senders to look for themselves. There is still no room, and the signal must not be forgotten. */
static __attribute__((unused)) nl_err signal_and_wake_of_a_sender(void)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job filler = { 0 }, sender = { .deadline = attempt_ends() };
    int fd[2];
    nl_link *link;
    nl_conn *other;

    catch_signals();
    c.limits.link_tx_bytes = 65536;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    filler.conn = sender.conn = conn_new(link);
    other = conn_new(link);
    fill_up(link, &filler);
    job_start(&sender, job_send_once);
    wait_until(stats_of(link).waiters == 1);
    interrupt(&sender);
    nl_conn_close(other);
    atomic_store(&in_handler, 2);
    job_join(&sender);
    nl_conn_rele(other);
    nl_conn_rele(sender.conn);
    link_free(link);
    close(fd[1]);
    return sender.result;
}

/* The same with a receiver, whose packet is taken by another before it is back. */
static __attribute__((unused)) nl_err signal_and_wake_of_a_receiver(void)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    job leader = { 0 }, second = { .deadline = attempt_ends() };
    nl_packet *p;
    nl_link *link;
    int peer;

    catch_signals();
    link = link_and_peer(&c, false, &peer);
    leader.link = link;
    second.conn = conn_new(link);
    job_start(&leader, job_accept);
    wait_until(stats_of(link).waiters == 1);
    job_start(&second, job_recv_once);
    wait_until(stats_of(link).waiters == 2);
    interrupt(&second);
    peer_send(peer, NL_WIRE_2016, nl_conn_id(second.conn), ASK, NULL, 0);
    wait_until(nl_conn_recv(second.conn, NL_NOW, &p) == NL_OK);
    nl_packet_free(p);
    atomic_store(&in_handler, 2);
    job_join(&second);
    peer_send(peer, NL_WIRE_2016, 1, ASK, NULL, 0);
    job_join(&leader);
    nl_conn_rele(leader.conn);
    nl_conn_rele(second.conn);
    link_free(link);
    close(peer);
    return second.result;
}

/* A thread is counted as waiting just before it sleeps, and a signal in between is noticed when the wait is over. It is
 * seen asleep before, but may be so for a lock: so it is tried again, for what forgets signals forgets each. */
static __attribute__((unused)) void is_interrupted(nl_err (*attempt)(void))
{
    nl_err e = attempt();

    for (int i = 0; i < 3 && e == NL_ETIMEOUT; i++)
        e = attempt();
    must_be(e, NL_EINTR);
}

static __attribute__((unused)) void test_signal_and_wake_of_a_sender(void **state)
{
    (void)state;
    is_interrupted(signal_and_wake_of_a_sender);
}

static __attribute__((unused)) void test_signal_and_wake_of_a_receiver(void **state)
{
    (void)state;
    is_interrupted(signal_and_wake_of_a_receiver);
}

/* ---- a packet larger than the budget ---------------------------------------------------------------------------- */

/* A packet larger than the budget whose rest is smaller than what a sender stays for: it was begun, so it is on its
 * way, and a send without a deadline has not timed out. */
static void test_small_budget_is_no_timeout(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    uint8_t *bytes = payload_new(NL_WIRE_2016, 60000, 1);
    bool maybe_sent = true;
    int fd[2];
    nl_link *link;
    nl_conn *conn;

    (void)state;
    c.limits.link_tx_bytes = 1000;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    for (int i = 0; i < 20; i++) {                      /* until a rest stays */
        nl_err e;
        while (stats_of(link).tx_bytes_queued)
            recv(fd[1], bytes, 4096, MSG_DONTWAIT);
        e = nl_conn_send(conn, ASK, bytes, 60000, NL_FOREVER, &maybe_sent);
        must_be(e, NL_OK);
        must(maybe_sent);
    }
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
    free(bytes);
}

/* A sender stays with a packet larger than the budget; a signal whose handler returns. The packet was begun and goes
 * on: no timeout, whose time has not come, and no NL_EINTR, after which it would be sent twice. */
static void job_send_large(job *j)
{
    uint8_t *bytes = payload_new(NL_WIRE_2016, (size_t)1 << 20, 1);

    j->result = nl_conn_send(j->conn, ASK, bytes, (size_t)1 << 20, NL_FOREVER, NULL);
    free(bytes);
}

static void do_nothing(int number) { (void)number; }    /* one that waited for us might never let the sender go on */

static void test_signal_while_staying(void **state)
{
    struct sigaction ignore = { .sa_handler = do_nothing };
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job sender = { 0 };
    int fd[2];
    nl_link *link;

    (void)state;
    sigaction(SIGUSR1, &ignore, NULL);
    c.limits.link_tx_bytes = 65536;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    sender.conn = conn_new(link);
    job_start(&sender, job_send_large);
    wait_until(stats_of(link).bytes_sent > 0);
    while (!atomic_load(&sender.done)) {
        pthread_kill(sender.thread, SIGUSR1);           /* again and again: one of them meets it asleep */
        kit_pause();
    }
    job_join(&sender);
    must_be(sender.result, NL_OK);
    nl_conn_rele(sender.conn);
    link_free(link);
    close(fd[1]);
}

/* ---- replies ---------------------------------------------------------------------------------------------------- */

/* Replies among other traffic, on a link whose queue is never empty because we send more than the peer takes, while the
 * peer reads all the time: they leave in turn, and however many there were they are no flood. */
static void test_replies_in_a_full_queue_are_no_flood(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    uint8_t *bytes = payload_new(NL_WIRE_2016, 32768, 1), *waste = malloc(65536);
    uint64_t refused = 0;
    int fd[2];
    nl_link *link;
    nl_conn *conn;

    (void)state;
    c.accept = NL_ACCEPT_REFUSE;
    c.limits.link_tx_bytes = (size_t)1 << 20;
    sockets_small(fd);
    link = link_over(fd[0], &c);
    conn = conn_new(link);
    while (refused < 4000 && !nl_link_is_closed(link)) {
        while (nl_conn_send(conn, ASK, bytes, 32768, NL_NOW, NULL) == NL_OK)
            ;
        for (int i = 0; i < 20; i++)
            peer_send(fd[1], NL_WIRE_2016, (uint32_t)(2 * (refused + (unsigned)i) + 1), ASK, NULL, 0);
        refused += 20;
        for (size_t n = 0; n < 200000;) {               /* 20 replies and more than was sent since */
            ssize_t k = recv(fd[1], waste, 65536, 0);
            must(k > 0);
            n += (size_t)k;
        }
        wait_until(nl_link_is_closed(link) || stats_of(link).refused_conns == refused);
    }
    must_be(fault_of(link).code, NL_OK);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
    free(bytes);
    free(waste);
}

/* ---- limits ----------------------------------------------------------------------------------------------------- */

/* "For ever" in a limit is added to the clock somewhere. */
static void test_limits_for_ever(void **state)
{
    pair_config c = pair_default(KIND_2016);
    pair p;
    nl_conn *a, *b;
    nl_packet *got;

    (void)state;
    c.server.limits.closed_ns = c.client.limits.closed_ns = NL_FOREVER;
    c.server.limits.spin_ns = c.client.limits.spin_ns = NL_FOREVER;
    c.server.limits.link_rx_bytes = c.client.limits.link_tx_bytes = NL_UNLIMITED;
    c.server.limits.conn_rx_bytes = c.client.limits.packet_bytes = NL_UNLIMITED;
    p = pair_of(&c);
    a = conn_new(p.client);
    send_ok(a, ASK, NULL, 0);
    b = accept_ok(p.server);
    recv_is(b, ASK);
    nl_conn_close(b);
    send_ok(a, ASK, NULL, 0);                           /* the tomb is still there: "closed", not a new Conn */
    got = recv_ok(a);
    must(got->code == ERROR);
    nl_packet_free(got);
    must_be(nl_link_accept(p.server, NL_NOW, &(nl_conn *){ NULL }), NL_ETIMEOUT);
    nl_conn_rele(a);
    nl_conn_rele(b);
    pair_free(&p);
}

static void test_handshake_for_ever(void **state)
{
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    nl_listen_config listen;
    nl_dial_config dial;
    nl_listener *listener;
    nl_dialer *dialer;
    nl_link *link;
    nl_fault why;
    const struct sockaddr *address;
    socklen_t len;

    (void)state;
    nl_listen_config_default(&listen);
    nl_dial_config_default(&dial);
    listen.link.wire = dial.link.wire = NL_WIRE_M;
    listen.handshake_ns = NL_FOREVER;
    must_be(nl_listener_new((struct sockaddr *)&any, sizeof any, &listen, &listener, &why), NL_OK);
    address = nl_listener_address(listener, &len);
    must_be(nl_dialer_new(address, len, &dial, &dialer), NL_OK);
    must_be(nl_dialer_wait(dialer, in_ms(PATIENCE_MS), &link, &why, NULL), NL_OK);
    nl_dialer_free(dialer);
    link_free(link);
    nl_listener_rele(listener);
}

/* ---- TLS -------------------------------------------------------------------------------------------------------- */

#ifndef NL_NO_TLS

typedef struct adoption { int fd; nl_link_config config; } adoption;

static void job_adopt(job *j)
{
    adoption *a = j->arg;
    nl_fault why;

    j->result = nl_link_new(a->fd, &a->config, j->deadline, &j->link, &why);
}

/* A TLS peer without a link. */
typedef struct tls_peer { int fd; nl_tls *tls; } tls_peer;

static void tls_peer_flush(tls_peer *p)
{
    const uint8_t *cipher;
    size_t n;

    while ((n = nl_tls_output(p->tls, &cipher))) {
        peer_write(p->fd, cipher, n);
        nl_tls_sent(p->tls, n);
    }
}

static void tls_peer_feed(tls_peer *p)
{
    uint8_t cipher[4096];
    ssize_t n = recv(p->fd, cipher, sizeof cipher, 0);

    must(n > 0);
    must_be(nl_tls_input(p->tls, cipher, (size_t)n), NL_OK);
}

static void tls_peer_handshake(tls_peer *p)
{
    nl_fault why;
    bool done = false;

    for (;;) {
        must(nl_tls_handshake(p->tls, &done, &why) == NL_TLS_OK);
        tls_peer_flush(p);
        if (done)
            return;
        tls_peer_feed(p);
    }
}

static void tls_peer_recv(tls_peer *p, void *plain, size_t n)
{
    nl_fault why;

    for (size_t got = 0, k; got < n; got += k) {
        must(nl_tls_read(p->tls, (uint8_t *)plain + got, n - got, &k, &why) == NL_TLS_OK);
        if (!k)
            tls_peer_feed(p);
    }
}

/* The answer to an ask fills the reader's block to the last byte, in the middle of a record. The reader has what it
 * wants and leaves; what is left of the record is in the session, and no event of the socket will tell of it. The
 * request in there must be refused all the same. */
static void test_tls_rest_of_a_record(void **state)
{
    enum { BLOCK = 65600, ANSWER_BYTES = 65560 };       /* of the first block, and of the answer: 40 bytes are left */
    nl_tls_ctx *ctx = tls_ctx_new();
    adoption a = { .config = config_of(NL_CLIENT, KIND_2016) };
    job adopts = { .arg = &a }, asks = { 0 };
    tls_peer peer;
    uint8_t *bytes = calloc(1, ANSWER_BYTES + 500), head[10], reply[10];
    int fd[2];

    (void)state;
    sockets_unix(fd);
    a.fd = fd[0];
    a.config.tls = ctx;
    a.config.accept = NL_ACCEPT_REFUSE;
    peer.fd = fd[1];
    must_be(nl_tls_new(ctx, NL_SERVER, &peer.tls), NL_OK);
    job_start(&adopts, job_adopt);
    tls_peer_handshake(&peer);
    job_join(&adopts);
    must_be(adopts.result, NL_OK);
    asks.link = adopts.link;
    job_start(&asks, job_ask);
    tls_peer_recv(&peer, head, sizeof head);
    wait_until(stats_of(adopts.link).waiters == 1);
    nl_wire_head(NL_WIRE_2016, 1, ANSWER, ANSWER_BYTES - 10, bytes);
    nl_wire_head(NL_WIRE_2016, 2, ASK, 490, bytes + ANSWER_BYTES);
    must_be(nl_tls_write(peer.tls, bytes, ANSWER_BYTES + 500, &(nl_fault){ 0 }), NL_OK);
    tls_peer_flush(&peer);
    job_join(&asks);
    must_be(asks.result, NL_OK);
    must(asks.packet->len == ANSWER_BYTES - 10);
    nl_packet_free(asks.packet);
    wait_until(stats_of(adopts.link).refused_conns == 1);
    tls_peer_recv(&peer, reply, sizeof reply);
    link_free(adopts.link);
    nl_tls_free(peer.tls);
    close(fd[1]);
    nl_tls_ctx_rele(ctx);
    free(bytes);
}

#define TLS_TESTS TEST(test_tls_rest_of_a_record),
#else
#define TLS_TESTS
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_deadline_of_a_busy_leader),
#ifndef SIGNALS_COME_LATE
        TEST(test_signal_and_wake_of_a_sender), TEST(test_signal_and_wake_of_a_receiver),
#endif
        TEST(test_small_budget_is_no_timeout), TEST(test_signal_while_staying),
        TEST(test_replies_in_a_full_queue_are_no_flood), TEST(test_limits_for_ever), TEST(test_handshake_for_ever),
        TLS_TESTS
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
