/* NodeLink: its life. The state table is in link.h; reading, writing, routing and Conns have files of their own.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The end of a link, read aloud
 *   1. shut: CLOSING. Inboxes go, Conns leave the table, everybody who waits is woken and told. Never blocks.
 *   2. quiet: the calls inside leave, the tokens come free. close() waits for that; after abort() the last one out goes
 *     on.
 *   3. flush (close only): what was sent with success is written, and input is read and thrown away meanwhile, for a
 *      peer that is stuck writing to us would not read.
 *   4. FIN, and a short wait until the peer's kernel has it all: a socket closed with unread input sends a reset, which
 *      would overtake what is still under way.
 *   5. finish: the poller lets go, the descriptor is closed, CLOSED.
 */
#include "link.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define LINGER_NS  INT64_C(1000000000)  /* longest wait of step 4, within close's own deadline */
#define SLICE_NS   INT64_C(20000000)    /* close looks up so often whether it was told to abort */
#define DISCARD_READS 64                /* a large receive buffer's worth, between two looks at the clock */

/* ---- defaults --------------------------------------------------------------------------------------------------- */

void nl_limits_default(nl_limits *l)
{
    *l = (nl_limits){
        .packet_bytes = NL_PACKET_BYTES_DEFAULT,
        .conn_rx_bytes = (size_t)16 << 20,
        .link_rx_bytes = (size_t)64 << 20,
        .link_tx_bytes = (size_t)8 << 20,
        .conns = (size_t)1 << 20,
        .accept_backlog = 1024,
        .closed_ns = INT64_C(60000000000),
        .spin_ns = 30000,
        .stray_share = 0.05,
    };
}

void nl_link_config_default(nl_link_config *c)
{
    *c = (nl_link_config){ .role = NL_CLIENT, .wire = NL_WIRE_2016, .routing = NL_ROUTE_DEFAULT, .version = -1,
                           .keepalive = { 60, 10, 3 } };
    nl_limits_default(&c->limits);
}

/* ---- references, entering and leaving --------------------------------------------------------------------------- */

void nl_link_hold(nl_link *link)         { atomic_fetch_add_explicit(&link->users, 1, memory_order_relaxed); }
void nl_link_hold_memory(nl_link *link)  { atomic_fetch_add_explicit(&link->refs, 1, memory_order_relaxed); }

void nl_link_rele_memory(nl_link *link) NL_UNSHARED
{
    if (atomic_fetch_sub_explicit(&link->refs, 1, memory_order_acq_rel) != 1)
        return;
    nl_conn_trim_locked(link);          /* nobody else is left to lock against */
    nl_rx_fini(link);
    nl_table_fini(&link->table);
    nl_pool_rele(link->pool);
    nl_tls_free(link->tls);
    sys_free(link->local);
    sys_free(link->peer);
    pthread_mutex_destroy(&link->mu);
    sys_free(link);
}

static bool is_forked(const nl_link *link) { return link->fork_generation != nl_fork_generation(); }

void nl_link_rele(nl_link *link)
{
    /* A child leaks what is its parent's: whatever it did here would be felt there. */
    if (!link || is_forked(link))
        return;
    if (atomic_fetch_sub_explicit(&link->users, 1, memory_order_acq_rel) == 1) {
        nl_link_abort(link);
        nl_link_rele_memory(link);
    }
}

bool nl_link_enter(nl_link *link)
{
    if (is_forked(link))
        return false;
    nl_link_lock(link);
    link->inside++;
    return true;
}

void nl_link_leave(nl_link *link)
{
    link->inside--;
    if (link->state == NL_LINK_CLOSING)
        HAND_ON(leave_quiet, nl_link_quiet_locked(link));
    nl_link_unlock_and_leave(link);
}

nl_err nl_link_error_locked(const nl_link *link)
{
    if (link->fault.code)
        return link->fault.code;
    return link->state == NL_LINK_OPEN ? NL_OK : NL_ELINKCLOSED;
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */

void nl_fault_set(nl_fault *f, nl_err code, int sys_errno, const char *format, ...)
{
    va_list ap;

    f->code = code;
    f->sys_errno = sys_errno;
    f->clean = false;
    va_start(ap, format);
    vsnprintf(f->text, sizeof f->text, format, ap);
    va_end(ap);
}

static void wake_all_locked(nl_link *link) NL_LOCKED
{
    for (nl_list *i = link->rx.waiters.next; i != &link->rx.waiters; i = i->next)
        HAND_ON(end_wake_rx, nl_waiter_wake_locked(link, NL_ITEM(i, nl_waiter, all)));
    HAND_ON(end_wake_tx, nl_waiters_wake_locked(link, &link->tx.waiters));
}

/* The queue can be dropped unless somebody is writing from it: then that one drops it (tx_give_locked). */
static void drop_queue_locked(nl_link *link) NL_LOCKED
{
    if (link->tx.holder == NL_TX_ARMED)
        link->tx.holder = NL_TX_NONE;
    if (link->tx.holder == NL_TX_NONE)
        nl_tx_drop_locked(link);
}

void nl_link_fail_locked(nl_link *link, const nl_fault *why)
{
    if (link->state != NL_LINK_OPEN)
        return;
    link->state = NL_LINK_DOWN;
    link->fault = *why;
    nl_rx_unthrottle_locked(link);
    shutdown(link->fd, SHUT_RDWR);
    drop_queue_locked(link);
    wake_all_locked(link);
}

/* ---- the poller ------------------------------------------------------------------------------------------------- */

void nl_link_watch_locked(nl_link *link)
{
    uint32_t want = (link->rx.watched ? EPOLLIN | EPOLLRDHUP : 0) | (link->tx.holder == NL_TX_ARMED ? EPOLLOUT : 0);
    nl_fault why;

    if (!(want & ~link->watching) || link->state == NL_LINK_CLOSED)
        return;
    link->watching = want;
    if (nl_poller_watch(&link->pollee, want) != NL_OK) {
        nl_fault_set(&why, NL_ELINKDOWN, errno, "the poller cannot watch the socket: %s", strerror(errno));
        nl_link_fail_locked(link, &why);
    }
}

static nl_link *link_of(nl_pollee *p) { return NL_ITEM(p, nl_link, pollee); }

static void link_event(nl_pollee *p, uint32_t events)
{
    nl_link *link = link_of(p);
    bool ended = events & (EPOLLERR | EPOLLHUP);

    nl_link_lock(link);
    link->watching = 0;                 /* one-shot: nothing is watched now */
    nl_link_unlock(link);
    if (ended || events & EPOLLOUT)
        HAND_ON(event_tx, nl_tx_event(link));
    if (ended || events & (EPOLLIN | EPOLLRDHUP))
        HAND_ON(event_rx, nl_rx_event(link));
    nl_link_lock(link);
    HAND_ON(event_watch, nl_link_watch_locked(link));      /* the other direction, if it still waits */
    nl_link_unlock(link);
}

void nl_link_timer_locked(nl_link *link, int64_t at_ns)
{
    if (link->rx.throttled && link->rx.throttled_until_ns < at_ns)
        at_ns = link->rx.throttled_until_ns;
    nl_poller_timer(&link->pollee, at_ns);
}

static void link_timer(nl_pollee *p)
{
    HAND_ON(timer_tx, nl_tx_uncork(link_of(p)));
    HAND_ON(timer_rx, nl_rx_timer(link_of(p)));
}

static bool link_sweep(nl_pollee *p)        { return nl_rx_sweep(link_of(p)); }
static void link_released(nl_pollee *p)     { nl_link_rele_memory(link_of(p)); }

static const nl_pollee_ops link_ops = { link_event, link_timer, link_sweep, link_released };

/* ---- birth ------------------------------------------------------------------------------------------------------ */

static struct sockaddr *address_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *), socklen_t *len)
{
    struct sockaddr_storage a;
    struct sockaddr *copy;

    *len = sizeof a;
    if (get(fd, (struct sockaddr *)&a, len) < 0 || *len > sizeof a)
        *len = 0;
    if ((copy = sys_calloc(1, *len > sizeof *copy ? *len : sizeof *copy)))
        memcpy(copy, &a, *len);
    return copy;
}

bool nl_link_is_local(const nl_link *link)
{
    const struct sockaddr *a = link->local, *b = link->peer;

    if (a->sa_family == AF_INET && b->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 && b->sa_family == AF_INET6 &&
           IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                              &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr);
}

/* Trying before sleeping needs a second processor, or the peer could not answer meanwhile. And with one, threads that are
 * woken together run one after the other by themselves. */
static bool have_two_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
}

static void link_init(nl_link *link, const nl_link_config *config) NL_UNSHARED
{
    static atomic_uint_fast64_t serials = 1;

    atomic_init(&link->users, 1);
    atomic_init(&link->refs, 1);
    pthread_mutex_init(&link->mu, NULL);
    nl_list_init(&link->close_waiters);
    nl_list_init(&link->posted);
    nl_list_init(&link->rx.waiters);
    nl_list_init(&link->tx.waiters);
    nl_list_init(&link->backlog);
    nl_list_init(&link->acceptors);
    link->tx.last = &link->tx.first;
    link->raw_last = &link->raw_first;
    link->limits = config->limits;
    if (link->limits.closed_ns > NL_FOREVER / 2)        /* it is added to the clock */
        link->limits.closed_ns = NL_FOREVER / 2;
    link->version = config->version;
    link->fork_generation = nl_fork_generation();
    link->serial = atomic_fetch_add(&serials, 1);
    link->role = config->role;
    link->wire = config->wire;
    link->routing = config->routing != NL_ROUTE_DEFAULT ? config->routing
                  : config->wire == NL_WIRE_2016 ? NL_ROUTE_STREAM : NL_ROUTE_NEO;
    link->accept = config->accept;
    link->raw = config->raw;
    link->in_turn = config->in_turn && have_two_cpus();
    link->ahead = NL_AHEAD_ONE;
    link->next_id = (config->first_id & ~1u) | (config->role == NL_CLIENT);
    link->rx.spin_ns = have_two_cpus() ? config->limits.spin_ns : 0;
    if (link->rx.spin_ns > NL_RCVTIMEO_NS)              /* so is this; and meanwhile nobody can wake the leader */
        link->rx.spin_ns = NL_RCVTIMEO_NS;
    link->fd = -1;
    link->pollee.ops = &link_ops;
}

/* Blocking, with a send timeout: see tx.c. 0, or -1 with errno and the socket as it was. */
static int prepare_socket(int fd)
{
    struct timeval tv = { .tv_usec = NL_SNDTIMEO_NS / 1000 };
    int status = sys_fcntl(fd, F_GETFL, 0), flags = sys_fcntl(fd, F_GETFD, 0), one = 1, e;

    if (status < 0 || flags < 0)
        return -1;
    if (sys_fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || sys_fcntl(fd, F_SETFL, status & ~O_NONBLOCK) < 0 ||
        sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) < 0) {
        e = errno;
        fcntl(fd, F_SETFD, flags);
        fcntl(fd, F_SETFL, status);
        errno = e;
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);      /* fails on other sockets, which do not need it */
    return 0;
}

/* What came with the end of the opening: bytes, and of TLS perhaps records that the session holds. */
static bool keep_early(nl_link *link, bool tls, const uint8_t *early, size_t n) NL_UNSHARED
{
    link->rx.held = tls;
    if (!n)
        return true;
    if (!(link->rx.block = nl_block_new(n > NL_BLOCK_BYTES ? n : NL_BLOCK_BYTES)))
        return false;
    memcpy(link->rx.block->data, early, n);
    link->rx.end = n;
    link->rx.more = true;
    link->stats.bytes_received = n;
    return true;
}

nl_err nl_link_new_open(int fd, const nl_link_config *config, nl_tls *tls, const uint8_t *early, size_t early_len,
                        nl_link **out, nl_fault *why)
{
    nl_link *link = sys_calloc(1, sizeof *link);
    nl_err e = NL_ENOMEM;

    if (!link)
        goto no_memory;
    link_init(link, config);
    link->local = address_of(fd, sys_getsockname, &link->local_len);
    link->peer = address_of(fd, sys_getpeername, &link->peer_len);
    if (!link->local || !link->peer || !(link->pool = nl_pool_new()) || !keep_early(link, tls, early, early_len))
        goto no_memory;
    nl_rx_init(link);
    if ((e = nl_poller_add(&link->pollee)) != NL_OK) {
        nl_fault_set(why, e, errno, "the background thread cannot be started: %s", strerror(errno));
        goto fail;
    }
    nl_link_hold_memory(link);          /* the poller's */
    if (prepare_socket(fd) < 0) {       /* the last that can fail: before it the socket is untouched */
        nl_fault_set(why, e = NL_ESYS, errno, "the socket cannot be used: %s", strerror(errno));
        nl_poller_del(&link->pollee);
        goto fail;
    }
    link->fd = link->pollee.fd = fd;
    link->tls = tls;
    nl_link_lock(link);
    nl_tx_kick_locked(link);            /* the last records of a TLS handshake, perhaps */
    HAND_ON(open_idle, nl_rx_idle_locked(link));
    nl_link_unlock(link);
    nl_trace(link, config->role == NL_CLIENT ? NL_TRACE_CONNECT : NL_TRACE_ACCEPT, 0, 0, 0);
    *out = link;
    return NL_OK;

no_memory:
    nl_fault_set(why, NL_ENOMEM, ENOMEM, "no memory for a link");
fail:
    if (link)
        nl_link_rele_memory(link);
    return e;
}

/* ---- looking at it ---------------------------------------------------------------------------------------------- */

nl_role nl_link_role(const nl_link *link)           { return link->role; }
nl_wire nl_link_wire(const nl_link *link)           { return link->wire; }
nl_routing nl_link_routing(const nl_link *link)     { return link->routing; }
int nl_link_version(const nl_link *link)            { return link->version; }
uint64_t nl_link_serial(const nl_link *link)        { return link->serial; }

int nl_link_fd(const nl_link *link)
{
    nl_link *l = (nl_link *)(uintptr_t)link;        /* to lock it: what is seen does not change */
    int fd;

    if (is_forked(link))
        return -1;
    nl_link_lock(l);
    fd = l->fd;
    nl_link_unlock(l);
    return fd;
}

const struct sockaddr *nl_link_local(const nl_link *link, socklen_t *len)
{
    *len = link->local_len;
    return link->local;
}

const struct sockaddr *nl_link_peer(const nl_link *link, socklen_t *len)
{
    *len = link->peer_len;
    return link->peer;
}

bool nl_link_is_closed(nl_link *link)
{
    bool closed;

    if (is_forked(link))
        return true;
    nl_link_lock(link);
    closed = link->state != NL_LINK_OPEN;
    nl_link_unlock(link);
    return closed;
}

bool nl_link_fault(nl_link *link, nl_fault *out)
{
    bool is;

    if (is_forked(link))
        return false;
    nl_link_lock(link);
    *out = link->fault.code || link->state != NL_LINK_OPEN ? link->fault : link->tx_fault;
    is = out->code != NL_OK;
    nl_link_unlock(link);
    return is;
}

void nl_link_stats(nl_link *link, nl_stats *out)
{
    memset(out, 0, sizeof *out);
    if (is_forked(link))
        return;
    nl_link_lock(link);
    *out = link->stats;
    out->conns = link->table.conns;
    out->rx_bytes_queued = link->rx.bytes;
    out->tx_bytes_queued = link->tx.bytes;
    out->inside = link->inside;
    nl_link_unlock(link);
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void drop_raw_locked(nl_link *link) NL_LOCKED
{
    for (nl_pkt *p; (p = link->raw_first);) {
        link->raw_first = p->next;
        link->rx.bytes -= p->charge;
        nl_packet_free(&p->pub);
    }
    link->raw_last = &link->raw_first;
}

static void shut_locked(nl_link *link) NL_LOCKED
{
    size_t at = 0;

    HAND_ON(shut_kick, nl_tx_kick_locked(link));        /* what is still corked was told to be on its way */
    if (link->state >= NL_LINK_CLOSING)
        return;
    link->aborted |= link->state == NL_LINK_DOWN;       /* there is nobody to deliver to */
    link->state = NL_LINK_CLOSING;
    nl_rx_unthrottle_locked(link);
    wake_all_locked(link);
    for (nl_conn *conn; (conn = nl_table_next(&link->table, &at));)
        nl_conn_drop_inbox_locked(conn, NULL);
    while (!nl_list_empty(&link->backlog)) {
        nl_conn *conn = NL_ITEM(link->backlog.next, nl_conn, item);
        nl_list_del(&conn->item);
        nl_conn_unref_locked(conn);
    }
    link->backlog_len = 0;
    nl_table_fini(&link->table);
    drop_raw_locked(link);
    if (link->rx.holder == NL_RX_THREAD && !link->read_shut && nl_link_end_frees_reader(link)) {
        link->read_shut = true;
        HAND_ON(shut_read, shutdown(link->fd, SHUT_RD));
    }
}

static bool is_quiet_locked(const nl_link *link) NL_LOCKED
{
    return link->inside == 0 && link->rx.holder == NL_RX_NONE &&
           (link->tx.holder == NL_TX_NONE || link->tx.holder == NL_TX_ARMED);
}

/* Step 5. Quiet, and mu held. */
static void finish_locked(nl_link *link) NL_LOCKED
{
    link->tx.holder = NL_TX_NONE;
    nl_tx_drop_locked(link);
    nl_poller_del(&link->pollee);
    close(link->fd);
    link->fd = -1;
    link->state = NL_LINK_CLOSED;
    nl_trace(link, NL_TRACE_CLOSE, 0, 0, 0);
    HAND_ON(finish_wake, nl_waiters_wake_locked(link, &link->close_waiters));
}

void nl_link_quiet_locked(nl_link *link)
{
    if (link->state != NL_LINK_CLOSING || !is_quiet_locked(link))
        return;
    if (link->closer)
        HAND_ON(quiet_wake, nl_waiters_wake_locked(link, &link->close_waiters));
    else if (link->aborted)
        HAND_ON(quiet_finish, finish_locked(link));
}

void nl_link_shut(nl_link *link)
{
    if (is_forked(link))
        return;
    nl_link_lock(link);
    shut_locked(link);
    nl_link_unlock(link);
}

static void abort_locked(nl_link *link) NL_LOCKED
{
    shut_locked(link);
    if (link->state == NL_LINK_CLOSED)
        return;
    link->aborted = true;
    shutdown(link->fd, SHUT_RDWR);
    drop_queue_locked(link);
    HAND_ON(abort_quiet, nl_link_quiet_locked(link));
}

void nl_link_abort(nl_link *link)
{
    if (is_forked(link))
        return;
    nl_link_lock(link);
    abort_locked(link);
    nl_link_unlock(link);
}

/* Sleeps until somebody changes what close waits for. 0, EINTR, ETIMEDOUT. */
static int close_wait_locked(nl_link *link, int64_t deadline_ns) NL_LOCKED
{
    nl_waiter w;
    int r;

    nl_waiter_init(&w);
    nl_list_push(&link->close_waiters, &w.on);
    r = nl_waiter_sleep_locked(link, &w, deadline_ns);
    nl_list_del(&w.on);
    return w.ready ? 0 : r;
}

static bool told_to_abort(nl_link *link)
{
    bool told;

    nl_link_lock(link);
    told = link->aborted;
    nl_link_unlock(link);
    return told;
}

/* Throws input away, but not without end: a peer may write faster than this reads. True while more may come. */
static bool discard_input(nl_link *link)
{
    char waste[16384];
    ssize_t n = 1;

    for (int i = 0; i < DISCARD_READS && n > 0; i++)
        n = sys_recv(link->fd, waste, sizeof waste, MSG_DONTWAIT);
    return (n > 0 || (n < 0 && errno == EAGAIN)) && !link->read_shut;
}

static int64_t slice(int64_t deadline_ns, int64_t longest)
{
    int64_t now = sys_now_ns();

    return deadline_ns <= now ? 0 : deadline_ns - now < longest ? deadline_ns - now : longest;
}

/* NEO/py up to 1.12 spins for ever on a TLS stream that ends properly (mended behind 1.12, by its commit 061cd5d8);
 * what it knows is the bare end of file, and it sends no close_notify itself. Those nodes speak the wires before M. */
static bool hangs_on_close_notify(const nl_link *link)
{
    return link->wire != NL_WIRE_M && link->routing == NL_ROUTE_NEO;
}

/* Writes what is queued and then, where TLS asks for it, the end of the session: it takes nothing after that. Result as
 * nl_tx_flush(). */
static int flush_and_end(nl_link *link)
{
    int e = nl_tx_flush(link);

    if (e || !link->tls || hangs_on_close_notify(link))
        return e;
    nl_tls_close_notify(link->tls);
    return nl_tx_flush(link);
}

/* Step 3. mu not held, both tokens are ours. */
static nl_err flush(nl_link *link, int64_t deadline_ns)
{
    int e;

    while ((e = flush_and_end(link)) == EAGAIN) {
        struct pollfd p = { .fd = link->fd, .events = POLLOUT };
        int64_t ns = slice(deadline_ns, SLICE_NS);

        if (discard_input(link))
            p.events |= POLLIN;
        if (ns == 0 || told_to_abort(link))
            return NL_ETIMEOUT;
        if (sys_poll(&p, 1, ns) < 0)
            return errno == EINTR ? NL_EINTR : NL_ETIMEOUT;
    }
    if (e == ENOMEM || e == ENOBUFS || (e && told_to_abort(link)))
        return NL_ETIMEOUT;             /* there is somebody, who did not get it */
    return NL_OK;                       /* all gone, or nobody is left to take it */
}

/* Whether the peer's kernel has yet to take bytes of ours. Of a socket that was reset it never will. */
static bool is_unsent(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    int unsent = 0;

    if (sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || info.tcpi_state == TCP_CLOSE)
        return false;
    return ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent > 0;
}

/* Step 4. On a Unix socket the peer's buffer is where the bytes are already. */
static void linger(nl_link *link, int64_t deadline_ns)
{
    int64_t end = sys_now_ns() + LINGER_NS, nap = 50000;

    shutdown(link->fd, SHUT_WR);
    discard_input(link);
    if (end > deadline_ns)
        end = deadline_ns;
    if (link->local->sa_family == AF_UNIX)
        return;
    while (is_unsent(link->fd) && sys_now_ns() < end && !told_to_abort(link)) {
        sys_poll(NULL, 0, slice(end, nap));
        nap = nap * 2 < SLICE_NS ? nap * 2 : SLICE_NS;
        discard_input(link);
    }
}

/* Steps 2 to 5, by the one closer. */
static nl_err close_locked(nl_link *link, int64_t deadline_ns) NL_LOCKED
{
    nl_err e = NL_OK;
    int r = 0;

    while (!is_quiet_locked(link) && r == 0)
        r = close_wait_locked(link, deadline_ns);
    if (r == EINTR)
        return NL_EINTR;
    if (r)
        return NL_ETIMEOUT;             /* somebody is still inside: the last one out finishes */
    if (!link->aborted) {
        link->rx.holder = NL_RX_THREAD;
        link->tx.holder = NL_TX_THREAD;
        nl_link_unlock(link);
        if ((e = flush(link, deadline_ns)) != NL_EINTR)
            linger(link, deadline_ns);
        nl_link_lock(link);
        link->rx.holder = NL_RX_NONE;
        nl_tx_flushed_locked(link, e == NL_EINTR);
    }
    if (e != NL_EINTR)
        HAND_ON(close_finish, finish_locked(link));
    return e;
}

nl_err nl_link_close(nl_link *link, int64_t deadline_ns)
{
    nl_err e = NL_OK;
    int r = 0;

    if (is_forked(link))
        return NL_EFORKED;
    nl_link_lock(link);
    shut_locked(link);
    while (link->closer && link->state != NL_LINK_CLOSED && r == 0)
        r = close_wait_locked(link, deadline_ns);
    if (link->state != NL_LINK_CLOSED && r) {
        e = r == EINTR ? NL_EINTR : NL_ETIMEOUT;        /* the other closer goes on */
    } else if (link->state != NL_LINK_CLOSED) {
        link->closer = true;
        e = close_locked(link, deadline_ns);
        link->closer = false;
        if (e == NL_ETIMEOUT)
            HAND_ON(close_abort, abort_locked(link));
        else
            nl_link_quiet_locked(link);         /* aborted while a signal called us away: who aborted left it to us */
        if (link->state != NL_LINK_CLOSED)
            HAND_ON(close_next, nl_waiters_wake_locked(link, &link->close_waiters));      /* another closer may try */
    }
    nl_link_unlock(link);
    return e;
}
