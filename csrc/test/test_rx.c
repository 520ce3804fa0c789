/* Tests of receiving: who reads, how the read token travels, budgets that pause the link, packets of every size.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The counters of nl_stats tell where the token is: so a test can put a thread to sleep as the leader, another behind
 * it, and see that an answer wakes the right one.
 */
#include "link.h"

#include <netdb.h>
#include <sched.h>

#include "kit.h"

#include "poller.h"

/* Leader and follower: the follower's packet comes by the leader's hand; then the leader's own, and the token
 * travels. */
static void test_token_travels(void **state)
{
    (void)state;
    for_each_kind(k) {
        nl_link_config c = config_of(NL_CLIENT, *k);
        int peer;
        nl_link *link = link_and_peer(&c, true, &peer);
        job first = { .conn = conn_new(link) }, second = { .conn = conn_new(link) }, third = { .conn = conn_new(link) };

        must(!nl_link_is_waited_on(link));
        job_start(&first, job_recv);
        wait_until(stats_of(link).waiters == 1 && stats_of(link).rx_takes >= 1);
        job_start(&second, job_recv);
        wait_until(stats_of(link).waiters == 2);
        job_start(&third, job_recv);
        wait_until(stats_of(link).waiters == 3);
        must(stats_of(link).rx_handovers == 0 && nl_link_is_waited_on(link));
        peer_send(peer, k->wire, nl_conn_id(second.conn), ANSWER, NULL, 0);
        job_join(&second);                      /* the leader routed it and reads on */
        must(nl_link_is_waited_on(link));
        must(!atomic_load(&first.done) && !atomic_load(&third.done) && stats_of(link).rx_handovers == 0);
        peer_send(peer, k->wire, nl_conn_id(first.conn), ANSWER, NULL, 0);
        job_join(&first);
        wait_until(stats_of(link).rx_handovers == 1);
        peer_send(peer, k->wire, nl_conn_id(third.conn), ANSWER, NULL, 0);
        job_join(&third);
        must(!nl_link_is_waited_on(link));
        must_be(first.result, NL_OK);
        must_be(second.result, NL_OK);
        must_be(third.result, NL_OK);
        nl_packet_free(first.packet);
        nl_packet_free(second.packet);
        nl_packet_free(third.packet);
        nl_conn_rele(first.conn);
        nl_conn_rele(second.conn);
        nl_conn_rele(third.conn);
        close(peer);
        link_free(link);
    }
}

/* A leader whose time is up hands over; one that is told to leave does, and the link is read on. */
static void test_leader_leaves(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)state;
    for (int how = 0; how < 2; how++) {
        uint64_t handovers = stats_of(link).rx_handovers;
        job leader = { .conn = conn_new(link) }, other = { .conn = conn_new(link) };

        leader.deadline = in_ms(how ? PATIENCE_MS : 50);
        job_start(&leader, job_recv);
        wait_until(stats_of(link).waiters == 1 || atomic_load(&leader.done));
        job_start(&other, job_recv);
        wait_until(stats_of(link).waiters == 2 || atomic_load(&leader.done));
        if (how)
            nl_conn_close(leader.conn);
        job_join(&leader);
        must_be(leader.result, how ? NL_ECONNCLOSED : NL_ETIMEOUT);
        wait_until(stats_of(link).rx_handovers > handovers || stats_of(link).waiters == 1);
        peer_send(peer, c.wire, nl_conn_id(other.conn), ANSWER, NULL, 0);
        job_join(&other);
        must_be(other.result, NL_OK);
        nl_packet_free(other.packet);
        nl_conn_rele(leader.conn);
        nl_conn_rele(other.conn);
    }
    close(peer);
    link_free(link);
}

/* Nobody waits: the background thread reads, and then sleeps. */
static void test_poller_reads_for_nobody(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client);

    (void)state;
    for (uint64_t i = 1; i <= 20; i++) {
        send_ok(c, ASK, NULL, 0);
        wait_until(stats_of(p.server).packets_received == i);
    }
    must(stats_of(p.server).poller_reads > 0 && stats_of(p.server).conns == 1);
    nl_conn_rele(c);
    pair_free(&p);
}

/* S45: nobody accepts, and the link is full of the peer's Conns: our own asks are answered. */
static void test_own_asks_while_nobody_accepts(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    job a = { .link = link };
    peer_packet asked;

    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        peer_send(peer, c.wire, 2 * i + 1, ASK, "something", 9);
        if (i >= c.limits.accept_backlog) {
            asked = peer_recv(peer, c.wire);
            must(peer_says(&asked, "connection refused"));
        }
    }
    job_start(&a, job_ask);
    asked = peer_recv(peer, c.wire);
    must(asked.code == ASK);
    peer_send(peer, c.wire, asked.id, ANSWER, NULL, 0);
    job_join(&a);
    must_be(a.result, NL_OK);
    nl_packet_free(a.packet);
    close(peer);
    link_free(link);
}

/* S44: over the link's budget nobody reads, whoever waits; taking what is there starts it again, and all are served. */
static void test_pause_with_waiters(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static char bytes[1000];
    int peer;
    nl_link *link;
    nl_conn *slow;
    job j[3];
    unsigned taken = 0;
    nl_packet *p;

    (void)state;
    c.limits.link_rx_bytes = 20000;      /* what is sent all fits a socket: the peer never waits for room */
    link = link_and_peer(&c, false, &peer);
    slow = conn_new(link);
    for (int i = 0; i < 3; i++) {
        j[i] = (job){ .conn = conn_new(link) };
        job_start(&j[i], job_recv);
        wait_until(stats_of(link).waiters == (uint64_t)i + 1);
    }
    for (int i = 0; i < 40; i++)
        peer_send(peer, c.wire, nl_conn_id(slow), ANSWER, bytes, sizeof bytes);
    wait_until(stats_of(link).rx_bytes_queued > 20000);
    for (int i = 0; i < 3; i++)
        peer_send(peer, c.wire, nl_conn_id(j[i].conn), ANSWER, NULL, 0);
    must(!atomic_load(&j[0].done) && !atomic_load(&j[1].done) && !atomic_load(&j[2].done));
    while (taken < 40) {
        must_be(retried(nl_conn_recv(slow, in_ms(PATIENCE_MS), &p)), NL_OK);
        nl_packet_free(p);
        taken++;
    }
    for (int i = 0; i < 3; i++) {
        job_join(&j[i]);
        must_be(j[i].result, NL_OK);
        nl_packet_free(j[i].packet);
        nl_conn_rele(j[i].conn);
    }
    must(stats_of(link).rx_bytes_queued == 0);
    nl_conn_rele(slow);
    close(peer);
    link_free(link);
}

/* A paused link goes on when the Conn that fills it is closed, or closed for receiving, instead of read. */
static void test_pause_ends_with_the_conn(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        static char bytes[1000];
        int peer;
        nl_link *link;
        nl_conn *slow;
        job waiter;

        c.limits.link_rx_bytes = 20000;
        link = link_and_peer(&c, false, &peer);
        slow = conn_new(link);
        waiter = (job){ .conn = conn_new(link) };
        for (int i = 0; i < 40; i++)
            peer_send(peer, c.wire, nl_conn_id(slow), ANSWER, bytes, sizeof bytes);
        wait_until(stats_of(link).rx_bytes_queued > 20000);
        peer_send(peer, c.wire, nl_conn_id(waiter.conn), ANSWER, NULL, 0);
        job_start(&waiter, job_recv);
        wait_until(stats_of(link).waiters == 1);
        if (how == 0)
            nl_conn_close(slow);
        else if (how == 1)
            nl_conn_close_recv(slow);
        else
            nl_conn_rele(slow);
        job_join(&waiter);
        must_be(waiter.result, NL_OK);
        nl_packet_free(waiter.packet);
        nl_conn_rele(waiter.conn);
        if (how < 2)
            nl_conn_rele(slow);
        close(peer);
        link_free(link);
    }
}

/* S48: at the limit, one over it, and lies about length: what is over is refused at its header. */
static void test_giants(void **state)
{
    (void)state;
    for_each_kind(k) {
        size_t limit = 300000, head = k->wire == NL_WIRE_N ? 0 : k->wire == NL_WIRE_M ? 6 : 10;
        nl_link_config c = config_of(NL_SERVER, *k);
        uint8_t *bytes = payload_new(k->wire, limit - head, 1), *over = payload_new(k->wire, limit + 1, 1);
        int peer;
        nl_link *link;
        nl_conn *conn;
        nl_packet *p, *none;
        uint8_t head_bytes[NL_HEAD_MAX];

        c.limits.packet_bytes = limit;
        link = link_and_peer(&c, true, &peer);
        peer_send(peer, k->wire, 1, ASK, bytes, limit - head);
        conn = accept_ok(link);
        p = recv_ok(conn);
        must(payload_is(k->wire, p, limit - head, 1));
        nl_packet_free(p);
        peer_write(peer, head_bytes, nl_wire_head(k->wire, 1, ASK, limit + 1, head_bytes));
        peer_write(peer, over, 10);             /* on M the length is in here */
        must_be(retried(nl_conn_recv(conn, in_ms(PATIENCE_MS), &none)), NL_EPROTO);
        must(fault_of(link).text[0]);
        nl_conn_rele(conn);
        link_free(link);
        close(peer);
        free(bytes);
        free(over);
    }
}

/* Packets of many sizes back to back, so that they end and begin at every place of a block; kept and then checked. */
static void test_sizes_back_to_back(void **state)
{
    enum { N = 400 };

    (void)state;
    for_each_kind(k) {
        pair_config c = pair_default(*k);
        pair p;
        nl_conn *from, *to;
        nl_packet *kept[N];
        unsigned seed = 1;
        size_t size[N];

        c.tcp = true;
        p = pair_of(&c);
        from = conn_new(p.client);
        for (unsigned i = 0; i < N; i++) {
            uint8_t *bytes;
            seed = seed * 1103515245u + 12345u;
            size[i] = seed >> 16 & 7 ? (seed >> 8) % 6000 : (seed >> 8) % 150000;
            bytes = payload_new(k->wire, size[i], i);
            send_ok(from, ASK, bytes, size[i]);
            free(bytes);
        }
        to = accept_ok(p.server);
        for (unsigned i = 0; i < N; i++)
            kept[i] = recv_ok(to);
        for (unsigned i = 0; i < N; i++) {
            must(payload_is(k->wire, kept[i], size[i], i));
            nl_packet_free(kept[i]);
        }
        nl_conn_rele(from);
        nl_conn_rele(to);
        pair_free(&p);
    }
}

/* An idle link makes no work: the background thread sleeps after the last sweep. */
static void test_idle_link_is_idle(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client), *s;
    uint64_t wakeups;
    int64_t end;

    (void)state;
    send_ok(c, ASK, NULL, 0);
    s = accept_ok(p.server);
    end = in_ms(PATIENCE_MS);
    do {                                        /* until a while has passed without a round */
        int64_t quiet = in_ms(100);
        must(nl_now_ns() < end);
        wakeups = nl_poller_wakeups();
        wait_until(nl_now_ns() > quiet);
    } while (nl_poller_wakeups() != wakeups);
    send_ok(c, ASK, NULL, 0);                   /* and it is watched all the same */
    wait_until(stats_of(p.server).packets_received == 2);
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

static size_t table_size(nl_link *link)
{
    size_t cap;

    nl_link_lock(link);
    cap = link->table.cap;
    nl_link_unlock(link);
    return cap;
}

/* What a crowd of Conns needed stays for the next one; a link that is idle gives it back. */
static void test_idle_link_has_a_small_table(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *c, *crowd[300], *s;

    (void)state;
    for (int i = 0; i < 300; i++)
        crowd[i] = conn_new(p.client);
    must(table_size(p.client) == 512);
    for (int i = 0; i < 300; i++)
        nl_conn_rele(crowd[i]);
    c = conn_new(p.client);
    send_ok(c, ASK, NULL, 0);
    s = accept_ok(p.server);
    send_ok(s, ANSWER, NULL, 0);
    nl_packet_free(recv_ok(c));                 /* whoever read it, the link is looked after until it is idle */
    wait_until(table_size(p.client) == 8);
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

static bool has_block(nl_link *link)
{
    bool has;

    nl_link_lock(link);
    has = link->rx.block;
    nl_link_unlock(link);
    return has;
}

/* Nor does it keep what the poller read into. */
static void test_idle_link_has_no_block(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *c = conn_new(p.client), *s;

    (void)state;
    for (uint64_t n = 1; n <= 3; n++) {
        wait_until(stats_of(p.server).rx_arms >= n && !has_block(p.server));       /* watched, so the poller reads */
        send_ok(c, ASK, NULL, 0);
        wait_until(stats_of(p.server).packets_received == n);
    }
    wait_until(!has_block(p.server));
    must(stats_of(p.server).poller_reads >= 3);
    s = accept_ok(p.server);
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

static unsigned tries_of(nl_ask *ask)
{
    uint64_t before = stats_of(ask->link).spins;
    nl_packet *packet = NULL;

    must_be(nl_ask_wait(ask, NL_TRY, &packet), NL_ETIMEOUT);
    return (unsigned)(stats_of(ask->link).spins - before);
}

/* Tries in vain become rare, but one is made in the place of a sleep as dear as the last, and for as long as it may. */
static void test_a_dear_sleep_is_tried_for(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    const int64_t dear = INT64_C(20000000);
    int64_t begun;
    nl_ask ask;
    int peer;

    (void)state;
    c.limits.spin_ns = 1;
    nl_link *link = link_and_peer(&c, false, &peer);
    must_be(nl_ask_begin(link, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
    if (!nl_link_tries(link)) {
        print_message("one processor: nothing tries\n");
        nl_link_slept_dearly(link, dear);
        must(tries_of(&ask) == 0);
    } else {
        must(tries_of(&ask) == 1);
        must(tries_of(&ask) == 0);              /* skipped, for the first was in vain */
        must(tries_of(&ask) == 1);
        for (int i = 0; i < 3; i++)
            must(tries_of(&ask) == 0);
        must(tries_of(&ask) == 1);              /* and the next seven would be */
        nl_link_slept_dearly(link, 300000);     /* a 32nd of it is no time */
        must(tries_of(&ask) == 0);
        nl_link_slept_dearly(link, dear);
        begun = nl_now_ns();
        must(tries_of(&ask) == 1);
        must(nl_now_ns() - begun >= dear / 32);
        must(tries_of(&ask) == 0);              /* for a sleep there is one */
        nl_link_slept_dearly(link, NL_FOREVER); /* a millisecond, or the test would not end */
        must(tries_of(&ask) == 1);
    }
    nl_ask_end(&ask);
    close(peer);
    link_free(link);
}

static void run_on(size_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    must(sched_setaffinity(0, sizeof set, &set) == 0);
}

/* The first two processors that we may use. */
static bool find_two_cpus(size_t cpu[2])
{
    cpu_set_t set;
    int n = 0;

    must(sched_getaffinity(0, sizeof set, &set) == 0);
    for (size_t i = 0; i < CPU_SETSIZE && n < 2; i++)
        if (CPU_ISSET(i, &set))
            cpu[n++] = i;
    return n == 2;
}

typedef struct near {
    job         job;        /* on a processor of its own, `here` */
    size_t      here;
    int         peer;
    unsigned    tries;      /* an ask is tried so often, at most, before it is slept for ... */
    unsigned    made;       /* ... and so many of the tries were made */
    uint32_t    id;
    atomic_bool sleeps;
} near;

static void job_try_and_sleep(job *j)
{
    near *b = (near *)(void *)j;
    nl_packet *packet;
    nl_ask ask;

    run_on(b->here);
    must_be(nl_ask_begin(j->link, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
    b->id = ask.conn_id;
    while (b->tries--)
        b->made += tries_of(&ask);
    atomic_store(&b->sleeps, true);
    must_be(retried(nl_ask_wait(&ask, NL_FOREVER, &packet)), NL_OK);
    nl_packet_free(packet);
    nl_ask_end(&ask);
}

/* The answer is sent from a processor of the peer's when the asker has the read token: only he can read it. */
static unsigned ask_near(near *b, unsigned tries, size_t peer_cpu)
{
    b->tries = tries;
    b->made = 0;
    atomic_store(&b->sleeps, false);
    job_start(&b->job, job_try_and_sleep);
    wait_until(atomic_load(&b->sleeps) && stats_of(b->job.link).waiters == 1);
    run_on(peer_cpu);
    peer_send(b->peer, NL_WIRE_2016, b->id, ANSWER, NULL, 0);
    job_join(&b->job);
    return b->made;
}

/* Whoever tries keeps a peer on his own processor from answering, and may have it moved; so it is seen where it is, and
 * nothing is tried when that is one of his own. */
static void test_nothing_is_tried_near_the_peer(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    cpu_set_t all;
    size_t cpu[2];
    near b = { .made = 0 };

    (void)state;
    if (!find_two_cpus(cpu)) {
        print_message("one processor: nothing tries\n");
        return;
    }
    must(sched_getaffinity(0, sizeof all, &all) == 0);
    c.limits.spin_ns = 1;
    b.job.link = link_and_peer(&c, true, &b.peer);
    b.here = cpu[0];
    must(ask_near(&b, 1, cpu[1]) == 0);         /* looked for, and not found */
    must(ask_near(&b, 1, cpu[0]) == 1);         /* skipped now: 1, of which the sleep takes it */
    must(ask_near(&b, 1, cpu[0]) == 1);         /* 3, and the peer is looked for, and found: 255 */
    must(ask_near(&b, 10, cpu[1]) == 0);        /* and not looked for now */
    must(ask_near(&b, 243, cpu[1]) == 0);       /* with both sleeps that is all of them */
    must(ask_near(&b, 1, cpu[0]) == 0);         /* looked for, and found */
    must(ask_near(&b, 255, cpu[1]) == 0);       /* this sleep finds that it has left ... */
    must(ask_near(&b, 1, cpu[1]) == 1);         /* ... and it is as if nothing had been tried yet */
    must(ask_near(&b, 1, cpu[1]) == 1);
    must(sched_setaffinity(0, sizeof all, &all) == 0);
    close(b.peer);
    link_free(b.job.link);
}

/* Whose processors they are is the thread's affinity, not where it happens to be. */
static void test_whose_processor(void **state)
{
    cpu_set_t all;
    size_t cpu[2];

    (void)state;
    must(!nl_cpu_is_ours(-1) && !nl_cpu_is_ours(CPU_SETSIZE));
    if (!find_two_cpus(cpu))
        return;
    must(nl_cpu_is_ours((int)cpu[0]) && nl_cpu_is_ours((int)cpu[1]));
    must(sched_getaffinity(0, sizeof all, &all) == 0);
    run_on(cpu[1]);
    must(!nl_cpu_is_ours((int)cpu[0]) && nl_cpu_is_ours((int)cpu[1]));
    must(sched_setaffinity(0, sizeof all, &all) == 0);
}

static struct addrinfo *address(const char *text)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;

    must(getaddrinfo(text, NULL, &hints, &found) == 0);
    return found;
}

/* Two TCP sockets of these addresses. False: this host has no such family. */
static bool sockets_between(int fd[2], const char *server_text, const char *client_text)
{
    struct addrinfo *server = address(server_text), *client = address(client_text);
    int listener = socket(server->ai_family, SOCK_STREAM, 0);
    socklen_t size = server->ai_addrlen;
    bool have = listener >= 0 && bind(listener, server->ai_addr, size) == 0;

    must(have || server->ai_family == AF_INET6);
    if (have) {
        must(listen(listener, 1) == 0 && getsockname(listener, server->ai_addr, &size) == 0);
        must((fd[0] = socket(client->ai_family, SOCK_STREAM, 0)) >= 0);
        must(bind(fd[0], client->ai_addr, client->ai_addrlen) == 0 && connect(fd[0], server->ai_addr, size) == 0);
        must((fd[1] = accept(listener, NULL, NULL)) >= 0);
    }
    if (listener >= 0)
        close(listener);
    freeaddrinfo(server);
    freeaddrinfo(client);
    return have;
}

static void is_local_is(int fd[2], bool local)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    nl_link *link = link_over(fd[0], &c);

    must(nl_link_is_local(link) == local);
    close(fd[1]);
    link_free(link);
}

/* Is the peer taken for one of this host? Of another host's peer a processor says nothing: interrupts of the network
 * come to ours, too, and can while we try. A Unix socket has no address. */
static void test_peers_of_this_host(void **state)
{
    int fd[2];

    (void)state;
    must(sockets_between(fd, "127.0.0.1", "127.0.0.1"));
    is_local_is(fd, true);
    must(sockets_between(fd, "127.0.0.1", "127.0.0.2"));
    is_local_is(fd, false);
    if (sockets_between(fd, "::1", "::1"))
        is_local_is(fd, true);
    sockets_unix(fd);
    is_local_is(fd, false);
}

/* In microseconds; 0: none. */
static long receive_timeout_of(nl_link *link)
{
    struct timeval tv;
    socklen_t len = sizeof tv;

    must(getsockopt(nl_link_fd(link), SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0);
    return tv.tv_sec * 1000000 + tv.tv_usec;
}

/* A reader that may be called away has a receive timeout. An ask without a deadline need not be, where close can free it
 * by a shutdown, and goes without: the kernel's timer is a good part of what a round trip costs besides. */
static void test_receive_timeout(void **state)
{
    const long some = 20000;            /* NL_RCVTIMEO_NS */

    (void)state;
    for (int tcp = 0; tcp < 2; tcp++)
        for (int what = 0; what < 3; what++) {
            nl_link_config c = config_of(NL_CLIENT, KIND_2016);
            job waits = { .deadline = what == 1 ? in_ms(PATIENCE_MS) : NL_FOREVER };
            int peer;

            c.limits.spin_ns = 0;
            waits.link = link_and_peer(&c, tcp, &peer);
            waits.conn = conn_new(waits.link);
            must(receive_timeout_of(waits.link) == 0);
            job_start(&waits, what == 2 ? job_recv : job_ask);
            wait_until(stats_of(waits.link).waiters == 1);
            if (!tcp || what)
                wait_until(receive_timeout_of(waits.link) == some);
            peer_send(peer, c.wire, what == 2 ? nl_conn_id(waits.conn) : nl_conn_id(waits.conn) + 2, ANSWER, NULL, 0);
            job_join(&waits);
            must_be(waits.result, NL_OK);
            must(receive_timeout_of(waits.link) == (tcp && !what ? 0 : some));
            nl_packet_free(waits.packet);
            nl_conn_rele(waits.conn);
            close(peer);
            link_free(waits.link);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_token_travels), TEST(test_leader_leaves), TEST(test_poller_reads_for_nobody),
        TEST(test_own_asks_while_nobody_accepts), TEST(test_pause_with_waiters), TEST(test_pause_ends_with_the_conn),
        TEST(test_giants), TEST(test_sizes_back_to_back), TEST(test_idle_link_is_idle),
        TEST(test_idle_link_has_a_small_table), TEST(test_idle_link_has_no_block),
        TEST(test_nothing_is_tried_near_the_peer), TEST(test_whose_processor), TEST(test_peers_of_this_host),
        TEST(test_a_dear_sleep_is_tried_for), TEST(test_receive_timeout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
