/* The read token: who reads a link's socket, how the token travels, and what keeps it cheap.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nobody's job, everybody's duty
 *   A thread that waits for something on a link (an answer, a packet, a Conn) has a waiter on its stack. If the read
 *   token is free it takes it and becomes the leader: it reads the socket and routes what comes, for all, until its own
 *   waiter is ready. The others sleep on their futex (waiter.c). So a program with one busy thread has no hand-over at
 *   all, and an answer wakes exactly the thread that asked. When nobody waits, the poller watches and reads.
 *
 * The invariant
 *   A live link is held by a reader, or watched by the poller, or on the poller's sweep list (which watches within
 *   NL_SWEEP_NS), or paused over its budget, or throttled until the poller's timer, or ending. Every path that gives the
 *   token up goes through rx_give_locked(), which passes it to a waiter that is not ready, or sees to the watching.
 *
 * How a leader sleeps
 *   First, perhaps, it tries: reads without waiting for a few microseconds, because sleeping and being woken costs more
 *   than the answer takes (adaptive, see rx_spin). Then it makes one *blocking* read: a poll before it would be a third
 *   system call per round trip. A blocking read cannot be interrupted by another thread. Who asks without a deadline
 *   need not be: nobody can call an ask off, and the link's end shuts the socket (waiter.stays). Whoever else reads (its
 *   Conn may be closed, say) has the socket given a receive timeout of NL_RCVTIMEO_NS before, so who wants the leader
 *   waits so long at the most. From then on it sleeps in poll, together with an eventfd that wakes it at once. A
 *   deadline nearer than the timeout is slept out in poll too. The timeout stays with the socket once it is set: without
 *   one a round trip saves the kernel's timer, but setting it back and forth would cost more than it.
 *
 * How it ends
 *   A socket tells its error once, to a reader or to a writer; the other finds an end, as if the peer had closed, or
 *   EPIPE. So a reader that finds the end while somebody writes does not believe it yet: nobody reads on (rx.ending), and
 *   whoever comes back from that write tells what the end was, nl_rx_tell_end_locked(). That is soon: no write sleeps
 *   longer than NL_SNDTIMEO_NS.
 *
 * Strays
 *   A packet that nobody wants is cheap, and how many there are is for the peer to say. So they are charged what they
 *   take, in nanoseconds and by estimate, since a clock for each would double it; and a link whose strays took more than
 *   limits.stray_share of the time that passed is read no more until they did not. Meanwhile the peer's own sends wait,
 *   by TCP, and so does whatever else it sends on this link: others have the processor. While several links are
 *   throttled the share is that of all together. Answers that come late are no strays: there are no more of them than
 *   there were asks.
 *
 * What is read is decoded without the lock (the decoder and the packets' pool belong to the token), then routed under
 * it, a batch at a time. A leader that finds its own answer routes the rest of what it has before it leaves.
 */
#include "link.h"

#include <sched.h>

#define BATCH 128       /* packets decoded between two holds of the lock */
#define SPIN_BACKOFF_MAX 255u
#define TRY_NS INT64_C(50000)   /* longer tries than this are not for a caller who keeps others waiting: see NL_TRY */
#define DEAR_SHARE 32           /* of what a sleep cost its caller besides, a try in its place may take one part */
#define DEAR_TRY_MIN_NS 10000   /* less than this is no sleep's worth */
#define DEAR_TRY_MAX_NS 1000000u
#define LATE_TURNS 16   /* of a leader past its deadline, while they bring something: it may be its own */
#define STRAY_NS   100  /* what a packet takes that is thrown away, from the socket on ... */
#define REPLY_NS   200  /* ... and a reply to it, until it is in the socket */
#define STRAY_BYTES 8u  /* so many bytes of payload are another nanosecond, but a nanosecond each on a TLS link */
#define STRAYS_NS  INT64_C(200000)      /* strays that took less than this together are not worth a look at the clock */
#define THROTTLE_MAX_NS INT64_C(1000000000)     /* the longest wait, however many links share */

/* ---- the token -------------------------------------------------------------------------------------------------- */

#define NL_READER           NL_REQUIRES(nl_rx_token)
#define NL_LOCKED_READER    NL_REQUIRES(nl_link_mu, nl_rx_token)

/* To the analysis (guarded.h), for which a token that is handed from thread to thread is beyond sight: from here on it
 * is ours. Either w->leader says so, or nobody holds it and nobody can take it, for mu is held. */
static void rx_is_ours_locked(void) NL_REQUIRES(nl_link_mu) NL_ASSUME(nl_rx_token) { }

static void rx_take_locked(nl_link *link, nl_rx_holder holder) NL_LOCKED NL_ASSUME(nl_rx_token)
{
    link->rx.holder = holder;
    link->rx.turns++;
    link->stats.rx_takes++;
}

/* Is there something to do that the socket will not tell of? */
static bool rx_has_left(const nl_rx *rx) NL_READER
{
    return rx->more || rx->held;
}

static bool rx_may_read(const nl_link *link) NL_LOCKED
{
    return link->state == NL_LINK_OPEN && !link->rx.paused && !link->rx.throttled && !link->rx.ending;
}

static void rx_watch_locked(nl_link *link) NL_LOCKED
{
    link->rx.watched = true;
    link->stats.rx_arms++;
    nl_link_watch_locked(link);
}

/* To the youngest waiter that still needs it: its cache is the warmest. False: nobody does. */
static bool rx_hand_over_locked(nl_link *link) NL_LOCKED
{
    for (nl_list *i = link->rx.waiters.prev; i != &link->rx.waiters; i = i->prev) {
        nl_waiter *w = NL_ITEM(i, nl_waiter, all);
        if (!w->ready) {
            w->leader = true;
            rx_take_locked(link, NL_RX_THREAD);
            link->stats.rx_handovers++;
            HAND_ON(rx_hand_over_post, nl_waiter_post_locked(link, w));
            return true;
        }
    }
    return false;
}

static void rx_drop_locked(nl_link *link) NL_LOCKED NL_RELEASE(nl_rx_token) NL_UNCHECKED
{
    link->rx.holder = NL_RX_NONE;
}

/* Gives the token up: the one way out for whoever holds it. */
static void rx_give_locked(nl_link *link) NL_LOCKED NL_RELEASE(nl_rx_token)
{
    bool poller = link->rx.holder == NL_RX_POLLER, has_left = rx_has_left(&link->rx);

    rx_drop_locked(link);
    if (rx_may_read(link) && !HANDED_ON(rx_give_hand_over, rx_hand_over_locked(link))) {
        if (poller && !has_left)
            rx_watch_locked(link);              /* the poller is awake: it watches on at once, and sweeps later */
        HAND_ON(rx_give_idle, nl_rx_idle_locked(link));
    }
    HAND_ON(rx_give_quiet, nl_link_quiet_locked(link));
}

/* Nobody reads, so the poller must watch, and an idle link be shrunk: but within a sweep only. In a run of asks the next
 * one takes the token before that, and arming for each would cost a system call and a wake-up of the poller for nothing.
 */
void nl_rx_idle_locked(nl_link *link)
{
    if (!rx_may_read(link) || link->rx.holder != NL_RX_NONE || link->rx.sweeping)
        return;
    rx_is_ours_locked();
    link->rx.sweeping = true;
    link->rx.swept_turns = link->rx.turns;
    HAND_ON(rx_idle_sweep, nl_poller_sweep(&link->pollee));
}

void nl_rx_unpause_locked(nl_link *link)
{
    if (!link->rx.paused || link->rx.bytes > link->limits.link_rx_bytes / 2)
        return;
    link->rx.paused = false;
    if (link->rx.holder == NL_RX_NONE) {
        rx_is_ours_locked();
        HAND_ON(rx_unpause_give, rx_give_locked(link));
    }
}

/* ---- strays ----------------------------------------------------------------------------------------------------- */

/* How many links of the process are throttled; above it the fork generation, since a child has none of its parent's. */
static atomic_uint_fast64_t throttled_links;

/* Adds to it, and returns what it was. */
static unsigned throttled_add(int more)
{
    uint_fast64_t generation = (uint_fast64_t)nl_fork_generation() << 32, before = atomic_load(&throttled_links), now;

    do
        now = before >> 32 == generation >> 32 ? before : generation;
    while (!atomic_compare_exchange_weak(&throttled_links, &before, now + (uint_fast64_t)(int64_t)more));
    return (unsigned)now;
}

void nl_rx_stray_locked(nl_link *link, size_t bytes, bool answered)
{
    link->rx.strays_ns += STRAY_NS + (answered ? REPLY_NS : 0) + (int64_t)(link->tls ? bytes : bytes / STRAY_BYTES);
}

/* In how long work of so many nanoseconds is its share, when `links` have to share. */
static int64_t rx_fair_ns(int64_t work_ns, double share, unsigned links)
{
    double ns = (double)work_ns / share * links;

    return ns < (double)THROTTLE_MAX_NS ? (int64_t)ns : THROTTLE_MAX_NS;
}

/* Have strays taken more than their share? Then nobody reads for as long as makes it their share. */
static void rx_throttle_locked(nl_link *link) NL_LOCKED
{
    nl_rx *rx = &link->rx;
    double share = link->limits.stray_share;
    int64_t now, wait;

    if (rx->strays_ns < STRAYS_NS || share >= 1 || !rx_may_read(link))
        return;
    now = sys_now_ns();
    wait = rx_fair_ns(rx->strays_ns, share, throttled_add(0) + 1) - (now - rx->strays_since_ns);
    rx->strays_ns = 0;
    rx->strays_since_ns = now;
    if (wait <= 0)
        return;
    throttled_add(1);
    rx->throttled = true;
    rx->throttled_until_ns = rx->strays_since_ns = now + wait;
    link->stats.throttles++;
    HAND_ON(rx_throttle_timer, nl_link_timer_locked(link, link->tx.corked ? now + NL_CORK_NS : NL_FOREVER));
}

void nl_rx_unthrottle_locked(nl_link *link)
{
    if (link->rx.throttled)
        throttled_add(-1);
    link->rx.throttled = false;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Reads from the TLS session like recv. A broken session is EPROTO, with its story in `why`. A session that holds
 * nothing is not asked before the socket has brought something. A read that may block does so once: a peer that sends a
 * record in crumbs must not keep the leader from its deadline. Not in line: a frame of four pages, which a plain link
 * would touch for each read. */
static ssize_t __attribute__((noinline)) tls_io_read(nl_link *link, void *p, size_t n, int flags, nl_fault *why)
               NL_READER
{
    uint8_t cipher[16384 + 512];

    for (bool dry = !link->rx.held;; dry = false) {
        size_t got = 0;
        ssize_t r;
        nl_tls_status s = dry ? NL_TLS_OK : nl_tls_read(link->tls, p, n, &got, why);

        if (got)
            return (ssize_t)got;
        if (s == NL_TLS_CLEAN_END)
            return 0;
        if (s == NL_TLS_BAD) {
            errno = EPROTO;
            return -1;
        }
        if ((r = sys_recv(link->fd, cipher, sizeof cipher, flags)) <= 0)
            return r;
        if (nl_tls_input(link->tls, cipher, (size_t)r) != NL_OK) {
            errno = ENOMEM;
            return -1;
        }
        flags |= MSG_DONTWAIT;
    }
}

/* Reads from the stream, like recv. */
static ssize_t io_read(nl_link *link, void *p, size_t n, int flags, nl_fault *why) NL_READER
{
    return link->tls ? tls_io_read(link, p, n, flags, why) : sys_recv(link->fd, p, n, flags);
}

/* Makes room behind `end` for what the packet at `at` still needs, moving it to a new block when slices pin this one.
 * Grows by what was received, not by what is declared: a block is at most four times the bytes in hand. */
static bool rx_room(nl_link *link) NL_READER
{
    nl_rx *rx = &link->rx;
    size_t have = rx->end - rx->at, want = NL_BLOCK_BYTES, cap;
    nl_block *b;

    if (!have && rx->large && !(rx->block && rx->block->cap >= rx->large && nl_block_is_mine(rx->block)) &&
        (b = nl_block_cached(rx->large)))
        goto move;                              /* large packets in a row are read where they can stay */
    if (rx->block && rx->at == rx->end && nl_block_is_mine(rx->block)) {
        rx->at = rx->end = 0;
        return true;
    }
    if (have && rx->scan.need > NL_BLOCK_BYTES) {
        /* What we have is in a block. NOLINTNEXTLINE(clang-analyzer-*) */
        if (rx->block->cap - rx->at < rx->scan.need && (b = nl_block_cached(rx->scan.need)))
            goto move;                          /* memory that is spent already may be as large as declared */
        want = rx->scan.need < have * 4 ? rx->scan.need : have * 4;
        want = want < NL_BLOCK_BYTES ? NL_BLOCK_BYTES : want;
    }
    if (rx->block) {
        size_t due = have && rx->scan.need > have ? rx->scan.need - have : 1;
        if (rx->block->cap - rx->end >= (due < 4096 ? due : 4096) && rx->block->cap - rx->at >= want / 4)
            return true;
        if (rx->at == 0 && nl_block_is_mine(rx->block)) {
            cap = rx->block->cap * 4 < want ? rx->block->cap * 4 : want;
            if (cap <= rx->block->cap)
                cap = rx->block->cap * 2;
            if (!(b = nl_block_grow(rx->block, cap)))
                return false;
            rx->block = b;
            return true;
        }
    }
    if (!(b = nl_block_new(want > have ? want : have * 2)))
        return false;
move:
    if (have)       /* in a block. NOLINTNEXTLINE(clang-analyzer-*) */
        memcpy(b->data, rx->block->data + rx->at, have);
    nl_block_rele(rx->block);
    rx->block = b;
    rx->at = 0;
    rx->end = have;
    return true;
}

/* How much one read may take. A large packet is read to its end and no further: the first bytes of the next one would
 * keep its block from being used again, and would have to be moved. */
static size_t rx_share(const nl_rx *rx) NL_READER
{
    size_t have = rx->end - rx->at, room = rx->block->cap - rx->end, due = have ? 0 : rx->large;

    if (rx->scan.need > NL_BLOCK_BYTES && rx->scan.need > have)
        due = rx->scan.need - have;
    return due && due < room ? due : room;
}

/* One read into the block. >0 bytes came; 0 end of stream; <0 an errno, negated (-EAGAIN: nothing there). */
static ssize_t rx_read(nl_link *link, int flags, nl_fault *why) NL_READER
{
    nl_rx *rx = &link->rx;
    size_t room;
    ssize_t n;

    if (!rx_room(link))
        return -ENOMEM;
    room = rx_share(rx);
    n = io_read(link, rx->block->data + rx->end, room, flags, why);
    rx->held = link->tls && n > 0 &&                    /* full amid a record, perhaps; or an end behind it */
               (n == (ssize_t)room || nl_tls_has_ended(link->tls));
    if (n > 0) {
        rx->end += (size_t)n;
        rx->more = true;
        return n;
    }
    if (n == 0)
        return 0;
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

bool nl_cpu_is_ours(int cpu)
{
    cpu_set_t ours;

    return cpu >= 0 && cpu < CPU_SETSIZE && sched_getaffinity(0, sizeof ours, &ours) == 0 &&
           CPU_ISSET((size_t)cpu, &ours);
}

/* Does the peer run on a processor that we may use? Its last bytes were sent from there. Unix sockets do not say. */
static bool rx_peer_is_near(const nl_link *link)
{
    int cpu = -1;
    socklen_t size = sizeof cpu;

    return nl_link_is_local(link) && sys_getsockopt(link->fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &size) == 0 &&
           nl_cpu_is_ours(cpu);
}

/* What was slept for has come. */
static void rx_look_for_peer(nl_link *link) NL_READER
{
    nl_rx *rx = &link->rx;
    bool was = rx->near;

    rx->looks = false;
    rx->near = rx_peer_is_near(link);
    if (rx->near)
        rx->spin_skip = SPIN_BACKOFF_MAX;
    else if (was)
        rx->spin_backoff = 0;
}

/* Tries for a few microseconds. Worth it when answers come faster than a thread falls asleep and wakes; a miss makes
 * the next tries rarer, up to one in SPIN_BACKOFF_MAX + 1, so a slow peer costs next to nothing. A peer on our own
 * processor cannot answer meanwhile, or the kernel moves it to another one, which may have to be woken for each request,
 * and then it stays there. So nothing is tried for a peer that may run beside us: a link within one host begins with a
 * look where it is, and two misses in a row have another one. Unless the last sleep was dear: then it is tried in any
 * case, for `dear_ns`. */
static ssize_t rx_spin(nl_link *link, int64_t deadline_ns, int64_t dear_ns, nl_fault *why) NL_READER
{
    nl_rx *rx = &link->rx;
    int64_t end;
    ssize_t n;

    if (rx->spin_ns <= 0)
        return -EAGAIN;
    if (rx->spin_skip && !dear_ns) {
        rx->spin_skip--;
        return -EAGAIN;
    }
    if (rx->near && !dear_ns) {
        rx->looks = true;
        return -EAGAIN;
    }
    rx->spun = 1;
    end = sys_now_ns() + (dear_ns ? dear_ns : rx->spin_ns);
    if (end > deadline_ns)
        end = deadline_ns;
    do
        n = rx_read(link, MSG_DONTWAIT, why);
    while (n == -EAGAIN && sys_now_ns() < end);
    if (n == -EAGAIN) {
        rx->spin_backoff = rx->spin_backoff * 2 + 1 < SPIN_BACKOFF_MAX ? rx->spin_backoff * 2 + 1 : SPIN_BACKOFF_MAX;
        rx->spin_skip = rx->spin_backoff;
        rx->looks = rx->spin_backoff > 1;
    } else {
        rx->spun = 2;
        rx->spin_backoff /= 2;
        rx->spin_skip = 0;
    }
    return n;
}

bool nl_link_tries(const nl_link *link)
{
    return link->rx.spin_ns > 0;
}

void nl_link_slept_dearly(nl_link *link, int64_t cost_ns)
{
    int64_t ns = cost_ns / DEAR_SHARE;

    if (ns > link->rx.spin_ns && ns >= DEAR_TRY_MIN_NS)
        atomic_store_explicit(&link->rx.dear_ns, ns < DEAR_TRY_MAX_NS ? (unsigned)ns : DEAR_TRY_MAX_NS,
                              memory_order_relaxed);
}

/* Once for each sleep: it must have been dear again to be tried for again. */
static int64_t rx_dear_ns(nl_link *link)
{
    if (!atomic_load_explicit(&link->rx.dear_ns, memory_order_relaxed))
        return 0;
    return atomic_exchange_explicit(&link->rx.dear_ns, 0, memory_order_relaxed);
}

/* Sleeps in poll until there is something to read, the waiter is posted, or the deadline. -EAGAIN, -EINTR, or 1. */
static ssize_t rx_poll(nl_link *link, nl_waiter *w, int64_t deadline_ns)
{
    int64_t now = sys_now_ns(), left = deadline_ns == NL_FOREVER ? -1 : deadline_ns > now ? deadline_ns - now : 0;
    bool longer = left < 0 || left > NL_RCVTIMEO_NS;
    struct pollfd p[2] = { { .fd = link->fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
    int n, e;

    if (longer && (p[1].fd = sys_eventfd()) < 0) {      /* no descriptor left: look up from time to time instead */
        left = NL_RCVTIMEO_NS;
    } else if (longer) {
        nl_link_lock(link);
        w->wake_fd = p[1].fd;
        if (atomic_load_explicit(&w->word, memory_order_acquire))
            left = 0;
        nl_link_unlock(link);
    }
    n = sys_poll(p, 2, left);
    e = n < 0 ? errno : 0;
    if (p[1].fd >= 0) {
        nl_link_lock(link);
        w->wake_fd = -1;
        nl_link_unlock(link);
        close(p[1].fd);
    }
    if (n < 0)
        return -e;
    return p[0].revents ? 1 : -EAGAIN;
}

/* May the leader sleep in a blocking read, where no other thread can wake it? Sees to the socket's timeout. */
static bool rx_may_block(nl_link *link, const nl_waiter *w, int64_t deadline_ns) NL_READER
{
    static const struct timeval tv = { .tv_usec = NL_RCVTIMEO_NS / 1000 };

    if (deadline_ns == NL_FOREVER && w->stays)
        return true;
    if (deadline_ns != NL_FOREVER && deadline_ns <= sys_now_ns() + NL_RCVTIMEO_NS)
        return false;
    if (!link->rx.timed)
        link->rx.timed = sys_setsockopt(link->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0;
    return link->rx.timed;
}

/* Reads, asleep or after a sleep. */
static ssize_t rx_read_asleep(nl_link *link, int flags, nl_fault *why) NL_READER
{
    ssize_t n = rx_read(link, flags, why);

    if (n > 0 && link->rx.looks)
        rx_look_for_peer(link);
    return n;
}

/* Waits for bytes as the leader. mu not held. */
static ssize_t rx_fill(nl_link *link, nl_waiter *w, int64_t deadline_ns, bool *slept, nl_fault *why) NL_READER
{
    ssize_t n;

    if (deadline_ns == NL_NOW || link->rx.held)
        return rx_read(link, MSG_DONTWAIT, why);
    if (deadline_ns == NL_TRY)
        return link->rx.spin_ns <= TRY_NS ? rx_spin(link, NL_FOREVER, rx_dear_ns(link), why) : -EAGAIN;
    if (!*slept) {
        *slept = true;
        if ((n = rx_spin(link, deadline_ns, 0, why)) != -EAGAIN)
            return n;
        if (rx_may_block(link, w, deadline_ns))
            return rx_read_asleep(link, 0, why);
    }
    n = rx_poll(link, w, deadline_ns);
    return n < 0 ? n : rx_read_asleep(link, MSG_DONTWAIT, why);
}

/* ---- decoding and routing --------------------------------------------------------------------------------------- */

/* Cuts packets out of the block, without the lock. Sets rx.more when it stopped for the batch's sake. */
static nl_err rx_decode(nl_link *link, nl_pkt **first, nl_fault *why) NL_READER
{
    nl_rx *rx = &link->rx;
    nl_pkt **last = first;
    int n = 0;

    *first = NULL;
    while (n < BATCH && rx->at < rx->end) {
        const uint8_t *p = rx->block->data + rx->at;
        nl_scan_result r = nl_wire_scan(link->wire, p, rx->end - rx->at, link->limits.packet_bytes, rx->offset,
                                        &rx->scan, why);
        if (r == NL_SCAN_BAD)
            return NL_EPROTO;
        if (r == NL_SCAN_MORE) {
            rx->more = false;
            return NL_OK;
        }
        *last = nl_pool_take(link->pool, rx->block, p + rx->scan.payload_at, rx->scan.payload_len, rx->scan.id,
                             rx->scan.code);
        if (!*last) {
            nl_fault_set(why, NL_ELINKDOWN, ENOMEM, "no memory for a received packet of %zu bytes",
                         rx->scan.payload_len);
            return NL_ENOMEM;
        }
        last = &(*last)->next;
        rx->large = rx->scan.total > NL_BLOCK_BYTES ? rx->scan.total : 0;
        rx->at += rx->scan.total;
        rx->offset += rx->scan.total;
        rx->scan = (nl_scan){ 0 };
        n++;
    }
    rx->more = rx->at < rx->end;
    return NL_OK;
}

/* What one turn brought: packets, and why there are no more, if for a fault. */
typedef struct rx_batch {
    nl_pkt  *first;
    nl_err   err;
    nl_fault why;
} rx_batch;

static void rx_cut(nl_link *link, rx_batch *batch) NL_READER
{
    batch->err = rx_decode(link, &batch->first, &batch->why);
}

/* Routes a batch, then decodes and routes the rest of the block, or until the link is over its budget or throttled. mu
 * held on entry and exit, dropped to decode. */
static void rx_route_locked(nl_link *link, rx_batch *batch) NL_LOCKED_READER
{
    nl_rx *rx = &link->rx;

    for (;;) {
        for (nl_pkt *p = batch->first, *next; p; p = next) {
            next = p->next;
            p->next = NULL;
            nl_route_locked(link, p);
        }
        nl_tx_relieve_locked(link);
        if (batch->err != NL_OK) {
            rx->more = false;
            nl_link_fail_locked(link, &batch->why);
        }
        if (rx->bytes > link->limits.link_rx_bytes)
            rx->paused = true;
        rx_throttle_locked(link);
        if (!rx->more || !rx_may_read(link))
            break;
        nl_link_unlock(link);
        rx_cut(link, batch);
        nl_link_lock(link);
    }
    if (link->tx.first || (link->tls && nl_tls_has_output(link->tls)))
        HAND_ON(rx_route_kick, nl_tx_kick_locked(link));
}

/* A read brought no more: it returned n, and `why` is what is known besides. */
static void rx_ended_locked(nl_link *link, ssize_t n, nl_fault *why) NL_LOCKED_READER
{
    nl_rx *rx = &link->rx;

    if (link->tx_fault.code && !(n < 0 && link->tx_fault.sys_errno == EPIPE))   /* which says only that it has ended */
        *why = link->tx_fault;
    else if (n < 0 && why->code == NL_OK)
        nl_fault_set(why, NL_ELINKDOWN, (int)-n, "reading from the peer failed: %s", strerror((int)-n));
    else if (n == 0 && rx->at < rx->end)
        nl_fault_set(why, NL_ELINKDOWN, 0, "the peer closed the link in the middle of a packet: %zu of at least %zu "
                     "bytes came, at byte %llu of the stream%s", rx->end - rx->at, rx->scan.need,
                     (unsigned long long)rx->offset, link->tls ? " (truncated TLS)" : "");
    else if (n == 0 && link->tls && nl_tls_is_cut(link->tls))
        nl_fault_set(why, NL_ELINKDOWN, 0, "the peer closed the link in the middle of a TLS record (truncated TLS), at "
                     "byte %llu of the stream", (unsigned long long)rx->offset);
    else if (n == 0) {
        nl_fault_set(why, NL_ELINKDOWN, 0, "the peer closed the link");
        why->clean = true;
    }
    nl_tx_last_words_locked(link);
    nl_link_fail_locked(link, why);
}

void nl_rx_tell_end_locked(nl_link *link)
{
    nl_fault why;

    if (!link->rx.ending || link->state != NL_LINK_OPEN)
        return;
    link->rx.ending = false;
    rx_is_ours_locked();
    nl_fault_init(&why);
    rx_ended_locked(link, 0, &why);
}

/* One turn of a token holder: what is left over first, else one read; then decode and route. mu held on entry and exit.
 * Returns 0, or the negated errno of a read that brought nothing: -EAGAIN, -EINTR. */
static ssize_t rx_turn_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns, bool *slept) NL_LOCKED_READER
{
    nl_rx *rx = &link->rx;
    rx_batch batch;
    ssize_t n = 0;
    bool left_over = rx->more;

    nl_link_unlock(link);
    batch.first = NULL;
    batch.err = NL_OK;
    nl_fault_init(&batch.why);
    if (!left_over)
        n = rx_fill(link, w, deadline_ns, slept, &batch.why);
    if (rx->more)
        rx_cut(link, &batch);
    nl_link_lock(link);
    link->stats.bytes_received += n > 0 ? (uint64_t)n : 0;
    link->stats.spins += rx->spun > 0;
    link->stats.spin_hits += rx->spun > 1;
    rx->spun = 0;
    if (n > 0 || left_over) {
        *slept = false;
        rx_route_locked(link, &batch);
        return 0;
    }
    if (n == -EAGAIN || n == -EINTR) {
        if (link->tls && nl_tls_has_output(link->tls))
            /* Records without data may ask for an answer, too. */
            HAND_ON(rx_turn_kick, nl_tx_kick_locked(link));
        return n;
    }
    if (n == 0 && nl_tx_is_writing_locked(link))
        rx->ending = true;
    else
        rx_ended_locked(link, n, &batch.why);
    return 0;
}

/* A leader whose socket is never empty makes no call that a signal could interrupt: so now and then it behaves as if
 * one had, and its caller looks. */
static bool leads_for_long(int *turns, int64_t *since_ns)
{
    int64_t now;

    if (++*turns % 64)
        return false;
    now = sys_now_ns();
    if (!*since_ns)
        *since_ns = now;
    return now - *since_ns > NL_RCVTIMEO_NS * 2;
}

nl_err nl_rx_wait_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns)
{
    nl_err e = NL_OK;
    int64_t told_ns = 0;
    bool slept = false;
    int late = 0, turns = 0;

    nl_list_push(&link->rx.waiters, &w->all);
    atomic_store_explicit(&link->rx.waited, true, memory_order_relaxed);
    if (link->tx.first && !link->tx.crowd)
        /* What is corked must not wait for us (else the timer writes it); drops mu, so only now that w can be woken. */
        nl_tx_kick_locked(link);
    link->stats.waiters++;
    while (!w->ready && e == NL_OK) {
        if (link->rx.holder == NL_RX_NONE && rx_may_read(link)) {
            rx_take_locked(link, NL_RX_THREAD);
            w->leader = true;
        }
        if (w->leader && !rx_may_read(link)) {      /* over the budget, say: sleep like the others until that is over */
            w->leader = false;
            rx_is_ours_locked();
            HAND_ON(rx_wait_give_paused, rx_give_locked(link));
            continue;
        }
        if (w->leader) {
            rx_is_ours_locked();
            ssize_t n = rx_turn_locked(link, w, deadline_ns, &slept);
            atomic_store_explicit(&w->word, 0, memory_order_relaxed);
            if (n == -EINTR || (n == 0 && leads_for_long(&turns, &told_ns)))
                e = NL_EINTR;
            else if (deadline_ns != NL_FOREVER && sys_now_ns() >= deadline_ns && (n == -EAGAIN || ++late == LATE_TURNS))
                e = NL_ETIMEOUT;
        } else {
            int r = nl_waiter_sleep_locked(link, w, deadline_ns);
            if (r == EINTR)
                e = NL_EINTR;
            else if (r && !w->leader)
                e = NL_ETIMEOUT;
        }
    }
    nl_list_del(&w->all);
    nl_list_del(&w->on);
    atomic_store_explicit(&link->rx.waited, !nl_list_empty(&link->rx.waiters), memory_order_relaxed);
    link->stats.waiters--;
    if (w->leader) {
        w->leader = false;
        rx_is_ours_locked();
        HAND_ON(rx_wait_give, rx_give_locked(link));
    }
    return w->ready && e != NL_EINTR ? NL_OK : e;
}

bool nl_link_is_waited_on(const nl_link *link)
{
    return atomic_load_explicit(&link->rx.waited, memory_order_relaxed);
}

/* ---- the poller's side ------------------------------------------------------------------------------------------ */

/* How much the poller does for one link before it looks after others: so many reads, and none after so many packets. A
 * read of the smallest packets brings thousands, and each costs as much as a large one. */
#define POLLER_READS   16
#define POLLER_PACKETS 1024

static void rx_poller_turn_locked(nl_link *link) NL_LOCKED
{
    uint64_t enough = link->stats.packets_received + POLLER_PACKETS;
    bool slept = true;
    ssize_t n = 0;

    rx_take_locked(link, NL_RX_POLLER);
    link->stats.poller_reads++;
    /* Once in any case: a waiter on the list may be ready and not have come to run yet, and then nobody else reads. */
    for (int i = 0; i < POLLER_READS && n == 0 && rx_may_read(link) && (!i || nl_list_empty(&link->rx.waiters)) &&
                    link->stats.packets_received < enough; i++)
        n = rx_turn_locked(link, NULL, NL_NOW, &slept);
    HAND_ON(rx_poller_give, rx_give_locked(link));
}

void nl_rx_event(nl_link *link)
{
    nl_link_lock(link);
    link->rx.watched = false;
    if (link->rx.holder == NL_RX_NONE && rx_may_read(link))
        HAND_ON(rx_event_turn, rx_poller_turn_locked(link));
    else
        link->stats.poller_idle_wakeups++;
    nl_link_unlock(link);
}

void nl_rx_timer(nl_link *link)
{
    nl_link_lock(link);
    if (link->rx.throttled && sys_now_ns() < link->rx.throttled_until_ns) {
        HAND_ON(rx_timer_again, nl_link_timer_locked(link, NL_FOREVER));    /* it was for what was corked */
    } else if (link->rx.throttled) {
        nl_rx_unthrottle_locked(link);
        if (link->rx.holder == NL_RX_NONE && rx_may_read(link))
            HAND_ON(rx_timer_turn, rx_poller_turn_locked(link));
    }
    nl_link_unlock(link);
}

/* An idle link keeps no block, no room for ciphertext, no packets and no Conns for reuse, no tombs that are due, and a
 * small table. */
static void rx_shrink_locked(nl_link *link) NL_LOCKED_READER
{
    nl_rx *rx = &link->rx;

    if (rx->block && rx->at == rx->end) {
        nl_block_rele(rx->block);
        rx->block = NULL;
        rx->at = rx->end = 0;
    }
    if (link->tls)
        nl_tls_trim(link->tls);
    nl_pool_trim(link->pool);
    nl_conn_trim_locked(link);
    nl_table_expire(&link->table, sys_now_ns());
    nl_table_trim(&link->table);
}

/* Is the link still unread since the last sweep? Then it is idle: shrink it and watch, if nobody does. A link in use stays
 * on the list; one whose reader sleeps leaves it, and comes back when that reader does. */
bool nl_rx_sweep(nl_link *link)
{
    nl_rx *rx = &link->rx;
    bool again;

    nl_link_lock(link);
    again = rx_may_read(link) && rx->turns != rx->swept_turns;
    rx->swept_turns = rx->turns;
    rx->sweeping = again;
    if (!again && rx_may_read(link) && rx->holder == NL_RX_NONE) {
        rx_is_ours_locked();
        if (rx_has_left(rx)) {
            HAND_ON(rx_sweep_turn, rx_poller_turn_locked(link));
        } else {
            rx_shrink_locked(link);
            if (!rx->watched)
                HAND_ON(rx_sweep_watch, rx_watch_locked(link));
        }
    }
    nl_link_unlock(link);
    return again;
}

void nl_rx_init(nl_link *link) NL_UNSHARED
{
    link->rx.near = nl_link_is_local(link);         /* until it was looked for */
}

void nl_rx_fini(nl_link *link) NL_UNSHARED
{
    nl_block_rele(link->rx.block);
    link->rx.block = NULL;
}
