/* The write token: who writes a link's socket, and what waits for it.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A sender that finds the token free takes it and writes its packet straight from the caller's buffer: one system call
 * for header and payload, no copy (but of payloads so short that the kernel's second buffer costs more: iov_join). One
 * that finds it taken appends a copy to the queue and is done: whoever holds the token writes it with the next gather.
 * A holder works for others only within a budget; then, or when the socket is full, its turn is ARMED: the poller
 * writes on when there is room.
 *
 * Whoever is alone in the link takes no token for a small packet, and writes under the lock: there is nobody to be kept
 * from it but the poller, the write does not wait, and to let go of the lock, and to take and give the token, would be an
 * eighth of what an ask costs beside its system calls.
 *
 * A packet that was begun is finished, whatever becomes of its Conn or of the caller's patience: what the socket did
 * not take of a caller's buffer is copied to the head of the queue before the call returns. Before it gives up so, the
 * sender of a large packet stays as long as the socket keeps taking, since waiting is cheaper than copying megabytes.
 *
 * tx.bytes counts from before the first byte is offered to the kernel until it has taken the last; senders over the
 * budget sleep in tx.waiters. Replies that the reader makes are queued, never written by it if that could wait, and
 * bounded by NL_CTL_BYTES.
 *
 * Notifications in a burst are not worth a system call each. One that comes within BURST_NS of another is only queued:
 * it leaves with CORK_BYTES of its kind, with the next packet that is no notification, when anybody waits for anything
 * on the link, before the link is shut, or after NL_CORK_NS by the poller's timer. A notification by itself leaves at
 * once.
 *
 * A crowd. A batch of answers wakes many threads at once, and each may send its next request within microseconds; a
 * write for each would cost more than all else they do. So a small packet that is sent while CROWD or more woken
 * threads are on their way to the link's lock (link.coming) is only queued. It leaves when as many have had the lock as
 * were on their way when the first one was queued: the last of them writes for all. To come that far they need the
 * processor and nothing else, no lock of a caller's and no GIL, so this waits for the scheduler only; and where that
 * keeps one of them waiting, no longer than NL_CORK_NS, by the same timer.
 *
 * Failure: the fault is kept in tx_fault and the socket is shut down both ways; but what the peer sent before it went
 * is still in the socket, so the link goes down only when a reader has come to the end of it.
 */
#include "link.h"

#define GATHER        64                        /* blocks in one write */
#define TURN_BYTES    ((size_t)512 << 10)       /* what a holder writes for others before the poller takes over */
#define QUEUE_BLOCK   ((size_t)16 << 10)        /* least size of a queue block */
#define STAY_BYTES    ((size_t)64 << 10)        /* the rest of a packet of this size is waited for, not copied ... */
#define SLICE_BYTES   ((size_t)256 << 10)       /* ... slice by slice, looking up in between whether to leave ... */
#define STAY_NS       NL_SNDTIMEO_NS            /* ... as long as the socket takes something every so often */
#define BURST_NS      INT64_C(20000)            /* notifications closer than this are a burst */
#define CORK_BYTES    ((size_t)16 << 10)        /* a burst is written whenever so much waits ... */
#define CORK_PACKET   ((size_t)1 << 10)         /* ... and larger packets are worth a write of their own */
#define JOIN_BYTES    ((size_t)1 << 10)         /* payloads up to this are copied behind their header: it is cheaper */
#define CROWD         2u                        /* so many woken threads on their way are worth waiting for */
#define TLS_RECORD    ((size_t)16 << 10)        /* what one record holds */
#define TLS_STEP      (3 * TLS_RECORD)          /* plaintext encrypted before the socket is tried again: whole records, and
                                                 * as many as fit the memory that a session keeps (tls.c) */

/* The write token, to the analysis of guarded.h. It guards no fields, but the calls that write to the stream. */
extern nl_lock_class tx_token;
#define NL_WRITER           NL_REQUIRES(tx_token)
#define NL_LOCKED_WRITER    NL_REQUIRES(nl_link_mu, tx_token)

/* Told to the analysis only: nobody writes and, under mu, nobody can begin to; or a closer took both tokens. */
static void tx_is_ours(void) NL_ASSUME(tx_token) { }

static void tx_take_locked(nl_link *link, nl_tx_holder holder) NL_LOCKED NL_ACQUIRE(tx_token) NL_UNCHECKED
{
    link->tx.holder = holder;
}

static void tx_drop_locked(nl_link *link, nl_tx_holder next) NL_LOCKED NL_RELEASE(tx_token) NL_UNCHECKED
{
    link->tx.holder = next;
}

/* ---- the socket ------------------------------------------------------------------------------------------------- */

static int io_errno(void) { return errno == EWOULDBLOCK ? EAGAIN : errno; }

static ssize_t plain_write(nl_link *link, struct iovec *iov, size_t n) NL_WRITER
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
    ssize_t done;

    do
        done = n == 1 ? sys_send(link->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : sys_sendmsg(link->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);         /* it does not wait, so this does not keep a signal waiting */
    return done;
}

/* Writes a slice of a large rest, sleeping in the kernel until it has room: one system call where a poll and a write
 * would be two, and a wake-up for each. The socket's send timeout bounds each sleep. Returns as io_write does; EINTR
 * for a signal. */
static size_t slice_write(nl_link *link, const struct iovec rest[2], int *e) NL_WRITER
{
    struct iovec iov[2] = { rest[0], rest[1] };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    size_t room = SLICE_BYTES - iov[0].iov_len;
    int64_t begun = sys_now_ns();
    ssize_t done;

    if (iov[1].iov_len > room)
        iov[1].iov_len = room;
    done = sys_sendmsg(link->fd, &msg, MSG_NOSIGNAL);
    *e = done < 0 ? io_errno() : (size_t)done < iov[0].iov_len + iov[1].iov_len ? EAGAIN : 0;
    if (done >= 0 && *e && sys_now_ns() - begun < NL_SNDTIMEO_NS / 2)
        *e = EINTR;                 /* short, and not for time: after some bytes a signal is told in no other way */
    return done < 0 ? 0 : (size_t)done;
}

/* Sends ciphertext that is ready. 0: all gone; else an errno. */
static int tls_flush(nl_link *link) NL_WRITER
{
    const uint8_t *cipher;
    size_t n;

    while ((n = nl_tls_output(link->tls, &cipher))) {
        struct iovec iov = { (void *)(uintptr_t)cipher, n };
        ssize_t done = plain_write(link, &iov, 1);
        if (done < 0)
            return io_errno();
        nl_tls_sent(link->tls, (size_t)done);
    }
    return 0;
}

/* Encrypts n bytes. 0, or why not; then the alert that says so to the peer, if there is one, is sent. */
static int tls_encrypt(nl_link *link, const void *p, size_t n, nl_fault *why) NL_WRITER
{
    if (nl_tls_write(link->tls, p, n, why) == NL_OK)
        return 0;
    tls_flush(link);
    return why->sys_errno ? why->sys_errno : EPROTO;
}

/* io_write for TLS. What is encrypted counts as taken, so the socket must take it before more is: else a peer that does
 * not read would have us encrypt, and keep, without bound. A header and a short payload share a record. */
static size_t tls_io_write(nl_link *link, const struct iovec *iov, size_t n, int *e, nl_fault *why) NL_WRITER
{
    uint8_t joined[TLS_RECORD];
    size_t taken = 0, unsent = 0;

    if ((*e = tls_flush(link)))
        return 0;
    if (n == 2 && iov[0].iov_len && iov[1].iov_len && iov[0].iov_len + iov[1].iov_len <= TLS_RECORD) {
        memcpy(joined, iov[0].iov_base, iov[0].iov_len);
        memcpy(joined + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
        if ((*e = tls_encrypt(link, joined, iov[0].iov_len + iov[1].iov_len, why)))
            return 0;
        *e = tls_flush(link);
        return iov[0].iov_len + iov[1].iov_len;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t at = 0; at < iov[i].iov_len;) {
            size_t step = iov[i].iov_len - at < TLS_STEP ? iov[i].iov_len - at : TLS_STEP;
            if (unsent + step > TLS_STEP && (*e = tls_flush(link)))
                return taken;
            unsent = unsent + step > TLS_STEP ? step : unsent + step;
            if ((*e = tls_encrypt(link, (uint8_t *)iov[i].iov_base + at, step, why)))
                return taken;
            at += step;
            taken += step;
        }
    *e = tls_flush(link);
    return taken;
}

/* Offers bytes to the stream. Returns how many it took, *e is 0 or why it took no more. Holder of the token. */
static size_t io_write(nl_link *link, struct iovec *iov, size_t n, int *e, nl_fault *why) NL_WRITER
{
    size_t offered = 0;
    ssize_t done;

    if (link->tls)
        return tls_io_write(link, iov, n, e, why);
    for (size_t i = 0; i < n; i++)
        offered += iov[i].iov_len;
    done = plain_write(link, iov, n);
    /* A short write says that the socket is full. */
    *e = done < 0 ? io_errno() : (size_t)done < offered ? EAGAIN : 0;
    return done < 0 ? 0 : (size_t)done;
}

/* ---- the queue -------------------------------------------------------------------------------------------------- */

static void block_append(nl_block *b, const void *p, size_t n)
{
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
}

static void queue_push_front(nl_tx *tx, nl_block *b) NL_LOCKED
{
    b->next = tx->first;
    if (!tx->first)
        tx->last = &b->next;
    tx->first = b;
}

/* n bytes have left: from the budget they go, and the replies among them. Where in the queue these stand is not kept,
 * but the queue keeps its order: what was in it at a mark has left when as many bytes have. */
static void uncharge(nl_tx *tx, size_t n) NL_LOCKED
{
    tx->bytes -= n;
    if (n < tx->ctl_mark) {
        tx->ctl_mark -= n;
    } else if (tx->ctl_mark) {
        tx->ctl_bytes = tx->ctl_behind;
        tx->ctl_behind = 0;
        tx->ctl_mark = tx->ctl_bytes ? tx->bytes : 0;
    }
}

static void charge_reply(nl_tx *tx, size_t n) NL_LOCKED
{
    tx->ctl_bytes += n;
    if (tx->ctl_mark)
        tx->ctl_behind += n;
    else
        tx->ctl_mark = tx->bytes;
}

static void forget_replies(nl_tx *tx) NL_LOCKED
{
    tx->ctl_bytes = tx->ctl_mark = tx->ctl_behind = 0;
}

/* Takes n sent bytes off the queue. */
static void queue_consume(nl_tx *tx, size_t n) NL_LOCKED
{
    nl_block *b;

    uncharge(tx, n);
    while ((b = tx->first) && n >= b->len - b->off) {
        n -= b->len - b->off;
        if (!(tx->first = b->next))
            tx->last = &tx->first;
        nl_block_rele(b);
    }
    if (n)
        tx->first->off += n;    /* n is at most what the queue holds. NOLINT(clang-analyzer-core.NullDereference) */
}

void nl_tx_drop_locked(nl_link *link)
{
    nl_tx *tx = &link->tx;

    for (nl_block *b; (b = tx->first);) {
        tx->first = b->next;
        nl_block_rele(b);
    }
    tx->last = &tx->first;
    tx->bytes = 0;
    tx->crowd = 0;
    forget_replies(tx);
}

/* ---- the token -------------------------------------------------------------------------------------------------- */

static void tx_failed_locked(nl_link *link, int e, const nl_fault *why) NL_LOCKED
{
    if (link->state == NL_LINK_CLOSING)
        link->aborted = true;               /* nothing more can be delivered */
    if (link->tx_fault.code || link->state != NL_LINK_OPEN)
        return;
    if (why->code)
        link->tx_fault = *why;
    else
        nl_fault_set(&link->tx_fault, NL_ELINKDOWN, e, "writing to the peer failed: %s", strerror(e));
    /* Frees a reader that sleeps; what came before is still readable. */
    HAND_ON(tx_failed_shutdown, shutdown(link->fd, SHUT_RDWR));
    HAND_ON(tx_failed_wake, nl_waiters_wake_locked(link, &link->tx.waiters));
    if (link->rx.paused)                /* nobody reads it; else somebody does, or will */
        HAND_ON(tx_failed_fail, nl_link_fail_locked(link, &link->tx_fault));
}

static bool tx_pending(const nl_link *link) NL_LOCKED
{
    return link->tx.first || (link->tls && nl_tls_has_output(link->tls));
}

/* Gives the token up with nothing left to write, or leaves the rest to the poller. */
static void tx_give_locked(nl_link *link) NL_LOCKED NL_RELEASE(tx_token)
{
    nl_tx *tx = &link->tx;

    HAND_ON(tx_give_end, nl_rx_tell_end_locked(link));
    if (tx_pending(link) && link->state <= NL_LINK_CLOSING && !link->aborted && !link->tx_fault.code &&
        !link->fault.code) {
        tx_drop_locked(link, NL_TX_ARMED);
        link->stats.tx_handoffs++;
        HAND_ON(tx_give_watch, nl_link_watch_locked(link));
    } else {
        tx_drop_locked(link, NL_TX_NONE);
        if (tx->first)
            HAND_ON(tx_give_drop, nl_tx_drop_locked(link));
        forget_replies(tx);
    }
    HAND_ON(tx_give_quiet, nl_link_quiet_locked(link));
}

void nl_tx_last_words_locked(nl_link *link)
{
    if (!link->tls || nl_tx_is_writing_locked(link))
        return;                             /* who writes now finds the end by itself */
    tx_is_ours();
    if (nl_tls_has_ended(link->tls))
        nl_tls_close_notify(link->tls);     /* the answer; some peers wait for it */
    tls_flush(link);                        /* that, or the alert of a session that was lost */
}

static void tx_wake_for_room_locked(nl_link *link) NL_LOCKED
{
    if (!nl_list_empty(&link->tx.waiters) && link->tx.bytes <= link->limits.link_tx_bytes / 2)
        HAND_ON(tx_wake_for_room, nl_waiters_wake_locked(link, &link->tx.waiters));
}

/* Writes from the queue, as the holder. mu held on entry and exit. */
static void tx_run_locked(nl_link *link) NL_LOCKED NL_RELEASE(tx_token)
{
    nl_tx *tx = &link->tx;
    size_t spent = 0;
    int e = 0;

    while (e == 0 && tx_pending(link) && spent < TURN_BYTES && !link->fault.code && !link->aborted) {
        struct iovec iov[GATHER];
        nl_fault why = { 0 };
        size_t n = 0, done;

        for (nl_block *b = tx->first; b && n < GATHER; b = b->next)
            iov[n++] = (struct iovec){ b->data + b->off, b->len - b->off };
        link->stats.tx_turns++;
        nl_link_unlock(link);
        done = io_write(link, iov, n, &e, &why);
        nl_link_lock(link);
        link->stats.bytes_sent += done;
        queue_consume(tx, done);
        spent += done;
        if (e && e != EAGAIN)
            tx_failed_locked(link, e, &why);
        tx_wake_for_room_locked(link);
    }
    HAND_ON(tx_run_give, tx_give_locked(link));
}

void nl_tx_kick_locked(nl_link *link)
{
    if (link->tx.holder != NL_TX_NONE || !tx_pending(link) || link->state != NL_LINK_OPEN)
        return;
    link->tx.crowd = 0;
    tx_take_locked(link, NL_TX_THREAD);
    tx_run_locked(link);
}

void nl_tx_came_locked(nl_link *link)
{
    if (link->tx.crowd && --link->tx.crowd == 0)
        nl_tx_kick_locked(link);        /* else the timer does */
}

/* Many replies are no flood as long as the peer reads them: whoever makes them in a loop writes in between. */
void nl_tx_relieve_locked(nl_link *link)
{
    if (link->tx.ctl_bytes > NL_CTL_BYTES / 2)
        HAND_ON(tx_relieve_kick, nl_tx_kick_locked(link));
}

void nl_tx_event(nl_link *link)
{
    nl_link_lock(link);
    if (link->tx.holder == NL_TX_ARMED) {
        tx_take_locked(link, NL_TX_POLLER);
        HAND_ON(tx_event_run, tx_run_locked(link));
    }
    nl_link_unlock(link);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

nl_err nl_tx_check(const nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len)
{
    if (!nl_wire_fits(link->wire, id, code, len, link->limits.packet_bytes))
        return NL_ETOOBIG;
    return link->raw ? NL_OK : nl_wire_check(link->wire, payload, len);
}

nl_err nl_tx_error_locked(const nl_link *link, const nl_conn *conn)
{
    if (conn && (conn->state == NL_CONN_CLOSED || conn->state == NL_CONN_OVERFLOWN))
        return conn->state == NL_CONN_CLOSED ? NL_ECONNCLOSED : NL_ETOOBIG;
    if (link->state == NL_LINK_OPEN && link->tx_fault.code)
        return link->tx_fault.code;
    return nl_link_error_locked(link);
}

static nl_err wait_for_room_locked(nl_link *link, nl_conn *conn, size_t total, int64_t deadline_ns) NL_LOCKED
{
    nl_err e = NL_OK;

    while (e == NL_OK && !nl_tx_has_room_locked(link, total)) {
        nl_waiter w;
        int r;

        if (deadline_ns == NL_NOW)
            return NL_ETIMEOUT;
        nl_waiter_init(&w);
        nl_list_push(&link->tx.waiters, &w.on);
        link->stats.waiters++;
        r = nl_waiter_sleep_locked(link, &w, deadline_ns);
        link->stats.waiters--;
        nl_list_del(&w.on);
        e = nl_tx_error_locked(link, conn);
        if (e == NL_OK && r == EINTR)
            return NL_EINTR;            /* woken or not: the wake said "look again", not "there is room" */
        if (e == NL_OK && r && !w.ready)
            return NL_ETIMEOUT;
    }
    return e;
}

/* Waits until `total` more bytes fit the budget, or the queue is empty: a packet larger than the budget leaves
 * alone. */
nl_err nl_tx_room_locked(nl_link *link, nl_conn *conn, size_t total, int64_t deadline_ns)
{
    nl_err e = nl_tx_error_locked(link, conn);

    return e != NL_OK || nl_tx_has_room_locked(link, total) ? e : wait_for_room_locked(link, conn, total, deadline_ns);
}

static void count_sent_locked(nl_link *link, uint32_t id, uint16_t code, size_t len) NL_LOCKED
{
    link->stats.packets_sent++;
    nl_trace(link, NL_TRACE_SEND, id, code, len);
}

nl_err nl_tx_queue_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len)
{
    nl_tx *tx = &link->tx;
    nl_block *tail = tx->first ? NL_ITEM(tx->last, nl_block, next) : NULL;
    size_t most = NL_HEAD_MAX + len, hlen;

    if (!(tail && tail->cap - tail->len >= most)) {     /* one block for the whole packet, or none of it */
        if (!(tail = nl_block_new(most > QUEUE_BLOCK ? most : QUEUE_BLOCK)))
            return NL_ENOMEM;
        *tx->last = tail;       /* never NULL. NOLINT(clang-analyzer-core.NullDereference) */
        tx->last = &tail->next;
    }
    hlen = nl_wire_head(link->wire, id, code, len, tail->data + tail->len);
    tail->len += hlen;
    block_append(tail, payload, len);
    tx->bytes += hlen + len;
    count_sent_locked(link, id, code, len);
    return NL_OK;
}

/* Copies a short payload behind its header, which has room there. */
static void iov_join(struct iovec iov[2])
{
    if (!iov[1].iov_len || iov[1].iov_len > JOIN_BYTES)
        return;
    memcpy((uint8_t *)iov[0].iov_base + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
    iov[0].iov_len += iov[1].iov_len;
    iov[1].iov_len = 0;
}

/* Drops the first n bytes of an iov of two. */
static void iov_skip(struct iovec iov[2], size_t n)
{
    for (int i = 0; i < 2; i++) {
        size_t k = n < iov[i].iov_len ? n : iov[i].iov_len;
        if (k)                  /* an empty payload may be NULL, to which nothing can be added */
            iov[i].iov_base = (uint8_t *)iov[i].iov_base + k;
        iov[i].iov_len -= k;
        n -= k;
    }
}

static bool is_late(int64_t deadline_ns)
{
    return deadline_ns == NL_NOW || (deadline_ns != NL_FOREVER && sys_now_ns() >= deadline_ns);
}

/* May the sender of a large packet stay with a rest that the socket refuses? Not when it was told to leave; with a rest
 * within the budget only while the socket keeps taking. */
static bool may_stay_locked(nl_link *link, nl_conn *conn, size_t rest, bool progress, int64_t deadline_ns) NL_LOCKED
{
    return (progress || rest > link->limits.link_tx_bytes) && nl_tx_error_locked(link, conn) == NL_OK &&
           !is_late(deadline_ns);
}

/* Offers what is left, once: at once, or, when the sender stays with a large rest, as soon as there is room. Returns as
 * io_write does; EINTR when a signal came while it stayed. mu not held. */
static size_t offer(nl_link *link, struct iovec iov[2], bool staying, int *e, nl_fault *why) NL_WRITER
{
    struct pollfd p = { .fd = link->fd, .events = POLLOUT };
    bool interrupted;
    size_t done;

    if (!staying)
        return io_write(link, iov, iov[1].iov_len ? 2 : 1, e, why);
    if (!link->tls)
        return slice_write(link, iov, e);
    interrupted = sys_poll(&p, 1, STAY_NS) < 0;
    done = io_write(link, iov, 2, e, why);
    if (interrupted && (*e == 0 || *e == EAGAIN))
        *e = EINTR;
    return done;
}

/* Writes header and payload from the caller's memory, as the holder, and leaves in iov what the socket did not take. mu
 * held on entry and exit. Returns what the last write said. */
static int write_direct_locked(nl_link *link, nl_conn *conn, struct iovec iov[2], int64_t deadline_ns,
                               nl_fault *why) NL_LOCKED_WRITER
{
    size_t rest = iov[0].iov_len + iov[1].iov_len, done;
    bool large = rest >= STAY_BYTES, staying = false;
    int e;

    for (;;) {
        nl_link_unlock(link);
        done = offer(link, iov, staying, &e, why);
        iov_skip(iov, done);
        rest -= done;
        nl_link_lock(link);
        link->stats.bytes_sent += done;
        uncharge(&link->tx, done);
        tx_wake_for_room_locked(link);
        if (e == EINTR)
            return EAGAIN;
        if (rest == 0 || (e && e != EAGAIN))
            return e;
        HAND_ON(write_direct_end, nl_rx_tell_end_locked(link));
        if (!large || !may_stay_locked(link, conn, rest, done > 0, deadline_ns))
            return EAGAIN;
        staying = true;
    }
}

/* Puts what was not written at the head of the queue: others may have queued behind it meanwhile. */
static bool keep_rest_locked(nl_link *link, const struct iovec iov[2]) NL_LOCKED_WRITER
{
    size_t rest = iov[0].iov_len + iov[1].iov_len;
    nl_block *b;

    if (!rest)
        return true;
    if (!(b = nl_block_new(rest)))
        return false;
    memcpy(b->data, iov[0].iov_base, iov[0].iov_len);
    if (iov[1].iov_len)
        memcpy(b->data + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
    b->len = rest;
    queue_push_front(&link->tx, b);
    return true;
}

/* The token is free: take it, write, see that the rest and what others queued goes on. */
static nl_err send_now_locked(nl_link *link, nl_conn *conn, struct iovec iov[2], int64_t deadline_ns) NL_LOCKED
{
    nl_err err = NL_OK;
    nl_fault why;
    bool whole;
    int e;

    nl_fault_init(&why);
    tx_take_locked(link, NL_TX_THREAD);
    link->tx.bytes += iov[0].iov_len + iov[1].iov_len;
    e = write_direct_locked(link, conn, iov, deadline_ns, &why);
    if (e && e != EAGAIN) {
        link->tx.bytes -= iov[0].iov_len + iov[1].iov_len;
        tx_failed_locked(link, e, &why);
    } else if (!keep_rest_locked(link, iov)) {
        link->tx.bytes -= iov[0].iov_len + iov[1].iov_len;
        tx_failed_locked(link, e = ENOMEM, &why);       /* half a packet is on the wire: there is no way back */
    } else if (iov[0].iov_len + iov[1].iov_len > link->limits.link_tx_bytes && is_late(deadline_ns)) {
        err = NL_ETIMEOUT;                              /* unless an end says more, below */
    }
    whole = !e;                                         /* no error, and no rest */
    if (e || !tx_pending(link))
        HAND_ON(send_now_give, tx_give_locked(link));
    else
        HAND_ON(send_now_run, tx_run_locked(link));
    if (whole)
        return NL_OK;               /* it has left, whatever became of the link while its lock was let go of */
    return nl_tx_error_locked(link, conn) != NL_OK ? nl_tx_error_locked(link, conn) : err;
}

/* Writes a whole small packet under the lock. 0; EAGAIN when a part of it is left, in *iov; or why writing failed. */
static int write_alone_locked(nl_link *link, struct iovec iov[2]) NL_LOCKED
{
    ssize_t done;

    tx_is_ours();
    if ((done = plain_write(link, iov, 1)) < 0)
        return io_errno();
    link->stats.bytes_sent += (size_t)done;
    iov_skip(iov, (size_t)done);
    return iov->iov_len ? EAGAIN : 0;
}

/* The token is free and the queue is empty. */
static nl_err send_first_locked(nl_link *link, nl_conn *conn, struct iovec iov[2], int64_t deadline_ns) NL_LOCKED
{
    if (link->inside == 1 && !iov[1].iov_len && !link->tls) {
        int e = write_alone_locked(link, iov);

        if (e == 0)
            return NL_OK;
        if (e != EAGAIN) {
            nl_fault why = { 0 };
            tx_failed_locked(link, e, &why);
            return nl_tx_error_locked(link, conn);
        }
    }
    return send_now_locked(link, conn, iov, deadline_ns);
}

/* What is queued now leaves within NL_CORK_NS, if nobody writes it before. */
static void cork_locked(nl_link *link) NL_LOCKED
{
    if (!link->tx.corked) {
        link->tx.corked = true;
        HAND_ON(tx_cork_timer, nl_link_timer_locked(link, sys_now_ns() + NL_CORK_NS));
    }
}

/* Shall a packet wait for others of a crowd, with the token free? */
static bool joins_crowd_locked(nl_link *link, size_t len) NL_LOCKED
{
    nl_tx *tx = &link->tx;

    if (!tx->crowd && link->coming >= CROWD)
        tx->crowd = link->coming;
    return tx->crowd && len <= CORK_PACKET && tx->bytes < CORK_BYTES;
}

nl_err nl_tx_put_locked(nl_link *link, nl_conn *conn, uint32_t id, uint16_t code, const void *payload, size_t len,
                        int64_t deadline_ns, bool *maybe_sent)
{
    nl_tx *tx = &link->tx;
    bool joins = tx->holder == NL_TX_NONE && joins_crowd_locked(link, len);
    nl_err e;

    if (tx->holder == NL_TX_NONE && !tx->first && !joins) {
        uint8_t packet[NL_HEAD_MAX + JOIN_BYTES];
        struct iovec iov[2] = { { packet, nl_wire_head(link->wire, id, code, len, packet) },
                                { (void *)(uintptr_t)payload, len } };
        if (maybe_sent)
            *maybe_sent = true;
        count_sent_locked(link, id, code, len);
        iov_join(iov);
        return send_first_locked(link, conn, iov, deadline_ns);
    }
    if ((e = nl_tx_queue_locked(link, id, code, payload, len)) != NL_OK)
        return e;
    if (maybe_sent)
        *maybe_sent = true;
    link->stats.tx_for_others += joins || tx->holder != NL_TX_NONE;
    if (joins)
        cork_locked(link);
    else
        nl_tx_kick_locked(link);        /* else the timer does, or the holder */
    return NL_OK;
}

nl_err nl_tx_send_locked(nl_link *link, nl_conn *conn, uint32_t id, uint16_t code, const void *payload, size_t len,
                         int64_t deadline_ns, bool *maybe_sent)
{
    nl_err e = nl_tx_room_locked(link, conn, NL_HEAD_MAX + len, deadline_ns);

    return e == NL_OK ? nl_tx_put_locked(link, conn, id, code, payload, len, deadline_ns, maybe_sent) : e;
}

nl_err nl_tx_notify_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len,
                           int64_t deadline_ns, bool *maybe_sent)
{
    nl_tx *tx = &link->tx;
    int64_t now = sys_now_ns();
    bool burst = now - tx->notified_ns < BURST_NS;
    nl_err e;

    tx->notified_ns = now;
    if (!burst || len > CORK_PACKET || tx->holder != NL_TX_NONE)
        return nl_tx_put_locked(link, NULL, id, code, payload, len, deadline_ns, maybe_sent);
    if ((e = nl_tx_queue_locked(link, id, code, payload, len)) != NL_OK)
        return e;
    if (maybe_sent)
        *maybe_sent = true;
    if (tx->bytes >= CORK_BYTES)
        nl_tx_kick_locked(link);        /* else the timer does */
    else
        cork_locked(link);
    return NL_OK;
}

void nl_tx_uncork(nl_link *link)
{
    nl_link_lock(link);
    link->tx.corked = false;
    HAND_ON(tx_uncork_kick, nl_tx_kick_locked(link));
    nl_link_unlock(link);
}

void nl_tx_reply_locked(nl_link *link, uint32_t id, const char *text)
{
    uint8_t payload[128];
    size_t n = nl_wire_error(link->wire, link->version, text, payload, sizeof payload), before = link->tx.bytes;
    nl_fault why = { 0 };

    if (link->tx_fault.code || link->state != NL_LINK_OPEN)
        return;
    if (link->tx.ctl_bytes > NL_CTL_BYTES) {
        nl_fault_set(&why, NL_EPROTO, 0, "flood: the peer sends to ids that nobody serves, and does not read the "
                     "replies (%zu bytes of \"%s\" wait)", link->tx.ctl_bytes, text);
        nl_link_fail_locked(link, &why);
    } else if (nl_tx_queue_locked(link, id, NL_CODE_ERROR, payload, n) == NL_OK) {
        charge_reply(&link->tx, link->tx.bytes - before);   /* written by rx_route_locked when the batch is routed */
    }
}

/* For close, which holds both tokens: writes what the socket takes. */
int nl_tx_flush(nl_link *link)
{
    nl_tx *tx = &link->tx;
    int e = 0;

    tx_is_ours();
    nl_link_lock(link);
    while (e == 0 && tx_pending(link)) {
        struct iovec iov = { NULL, 0 };
        nl_fault why = { 0 };
        size_t done;

        if (tx->first)
            iov = (struct iovec){ tx->first->data + tx->first->off, tx->first->len - tx->first->off };
        nl_link_unlock(link);
        done = io_write(link, &iov, 1, &e, &why);
        nl_link_lock(link);
        link->stats.bytes_sent += done;
        queue_consume(tx, done);
    }
    nl_link_unlock(link);
    return e;
}

/* A close that was interrupted may be made again, or never: what was sent with success leaves in either case. */
void nl_tx_flushed_locked(nl_link *link, bool interrupted)
{
    tx_is_ours();
    if (interrupted)
        HAND_ON(tx_flushed_give, tx_give_locked(link));
    else
        tx_drop_locked(link, NL_TX_NONE);
}
