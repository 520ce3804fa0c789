/* Asking: one request and its answer, many at once, and notifications, which are requests that want none.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An ask is a Conn of its own that nobody sees: it is in the table before its request can leave, and its answer goes
 * straight to the asker without passing an inbox. An ask that is given up leaves a tomb, by which its answer, if it
 * still comes, is known as late.
 */
#include "link.h"

#define WINDOW      512u                    /* asks of one batch under way at once: enough to fill a write, and little
                                             * enough that their answers fit any receive buffer */
#define WRITE_BYTES ((size_t)64 << 10)      /* notify_many writes whenever so much is queued */

struct nl_ask_many {
    nl_link      *link;
    const nl_out *requests;         /* n of them, the caller's */
    nl_packet   **answers;
    size_t        n, next;          /* requests[.. next) were sent */
    nl_list       out NL_MU;        /* their Conns that have no answer yet, through nl_conn.item */
    size_t        outstanding NL_MU;        /* length of it */
    size_t        low NL_MU;        /* wake the waiter when so few are left */
    nl_waiter    *waiter NL_MU;
};

void nl_ask_deliver_locked(nl_conn *conn, nl_pkt *p)
{
    nl_link *link = conn->link;
    nl_ask *ask = conn->ask;
    nl_ask_many *batch = conn->batch;
    nl_waiter *w = ask ? ask->waiter : NULL;

    if (ask) {
        ask->answer = &p->pub;
        ask->conn = NULL;
    } else {
        batch->answers[conn->index] = &p->pub;
        nl_list_del(&conn->item);
        if (--batch->outstanding <= batch->low)
            w = batch->waiter;
    }
    nl_conn_unref_locked(conn);
    if (w)
        HAND_ON(ask_deliver_wake, nl_waiter_wake_locked(link, w));
}

/* Ends the Conn of an ask that has no answer. */
static void give_up_locked(nl_conn *conn) NL_LOCKED
{
    nl_link *link = conn->link;
    uint64_t key = nl_key(true, conn->id);
    int64_t now = sys_now_ns();

    nl_list_del(&conn->item);
    nl_conn_unref_locked(conn);
    if (link->state == NL_LINK_OPEN && link->limits.closed_ns > 0) {
        nl_table_expire(&link->table, now);
        nl_table_bury(&link->table, key, NL_ENTRY_LATE, now + link->limits.closed_ns);
    }
}

/* ---- one -------------------------------------------------------------------------------------------------------- */

static nl_err send_locked(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len,
                          int64_t deadline_ns, bool *maybe_sent) NL_LOCKED
{
    nl_err e = link->raw ? NL_EINVAL : nl_tx_room_locked(link, NULL, NL_HEAD_MAX + len, deadline_ns);

    if (e != NL_OK || (e = nl_conn_open_locked(link, &ask->conn)) != NL_OK)
        return e;
    ask->conn->ask = ask;
    ask->conn_id = ask->conn->id;
    e = nl_tx_put_locked(link, NULL, ask->conn_id, code, payload, len, deadline_ns, maybe_sent);
    ask->begun = e == NL_OK;
    if (e == NL_OK)
        return NL_OK;
    if (ask->answer) {                  /* it came while a failing link told us that nothing could be sent: it counts */
        nl_packet_free(ask->answer);
        ask->answer = NULL;
    }
    if (ask->conn)
        give_up_locked(ask->conn);
    ask->conn = NULL;
    return e;
}

/* There is no more that anybody could bring. */
static void done_with(nl_ask *ask)
{
    *ask = (nl_ask){ .conn_id = ask->conn_id, .begun = ask->begun };
}

static nl_err wait_locked(nl_ask *ask, int64_t deadline_ns, nl_packet **answer) NL_LOCKED
{
    nl_link *link = ask->link;
    nl_err e = NL_OK;

    if (!ask->answer && (e = nl_link_error_locked(link)) == NL_OK) {
        nl_waiter w;
        nl_waiter_init(&w);
        w.stays = nl_link_end_frees_reader(link);
        ask->waiter = &w;
        e = nl_rx_wait_locked(link, &w, deadline_ns);
        ask->waiter = NULL;
        if (e == NL_OK && !ask->answer)
            e = nl_link_error_locked(link);
    }
    if (ask->answer) {
        e = NL_OK;
        *answer = ask->answer;
        done_with(ask);
    }
    return e;
}

static nl_err begin(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len, bool *maybe_sent)
{
    *ask = (nl_ask){ .link = link };
    if (maybe_sent)
        *maybe_sent = false;
    return nl_tx_check(link, 0, code, payload, len);
}

nl_err nl_ask_begin(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent)
{
    nl_err e = begin(link, ask, code, payload, len, maybe_sent);

    if (e != NL_OK)
        return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    e = send_locked(link, ask, code, payload, len, deadline_ns, maybe_sent);
    nl_link_leave(link);
    return e;
}

nl_err nl_ask_wait(nl_ask *ask, int64_t deadline_ns, nl_packet **answer)
{
    nl_link *link = ask->link;
    nl_err e;

    if (!nl_link_enter(link))
        return NL_EFORKED;
    e = wait_locked(ask, deadline_ns, answer);
    nl_link_leave(link);
    return e;
}

nl_err nl_ask_whole(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent, nl_packet **answer)
{
    nl_err e = ask->begun ? NL_OK : begin(link, ask, code, payload, len, maybe_sent);

    if (e != NL_OK)
        return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    if (!ask->begun)
        e = send_locked(link, ask, code, payload, len, deadline_ns, maybe_sent);
    if (e == NL_OK)
        e = wait_locked(ask, deadline_ns, answer);
    nl_link_leave(link);
    return e;
}

void nl_ask_end(nl_ask *ask)
{
    nl_link *link = ask->link;

    /* The usual case: answered and taken. What else is in *ask may be written. */
    if (!link || !nl_link_enter(link))
        return;                             /* by a reader until we have the lock */
    if (ask->conn)
        give_up_locked(ask->conn);
    link->stats.late_answers += ask->answer != NULL;    /* it came after the last wait had given up */
    nl_packet_free(ask->answer);
    done_with(ask);
    nl_link_leave(link);
}

/* ---- many ------------------------------------------------------------------------------------------------------- */

nl_err nl_ask_many_begin(nl_link *link, const nl_out *requests, nl_packet **answers, size_t n, nl_ask_many **out)
{
    nl_ask_many *batch;

    for (size_t i = 0; i < n; i++) {        /* all of them before any leaves */
        nl_err e = nl_tx_check(link, UINT32_MAX, requests[i].code, requests[i].payload, requests[i].len);
        if (e != NL_OK)
            return e;
    }
    if (link->raw)
        return NL_EINVAL;
    if (!(batch = sys_malloc(sizeof *batch)))
        return NL_ENOMEM;
    *batch = (nl_ask_many){ .link = link, .requests = requests, .answers = answers, .n = n };
    nl_list_init(&batch->out);
    *out = batch;
    return NL_OK;
}

/* Queues requests while the window and the budget have room. */
static nl_err fill_window_locked(nl_ask_many *batch) NL_LOCKED
{
    nl_link *link = batch->link;
    nl_err e = NL_OK;

    if (batch->next < batch->n && batch->outstanding < WINDOW)
        e = nl_tx_error_locked(link, NULL);         /* nothing below lets go of the lock */
    while (e == NL_OK && batch->next < batch->n && batch->outstanding < WINDOW) {
        const nl_out *r = &batch->requests[batch->next];
        nl_conn *conn;

        if (!nl_tx_has_room_locked(link, NL_HEAD_MAX + r->len))
            return NL_OK;                           /* later, when answers have made room */
        if ((e = nl_conn_open_locked(link, &conn)) != NL_OK)
            return e == NL_ETOOMANY && batch->outstanding ? NL_OK : e;      /* the same */
        conn->batch = batch;
        if ((e = nl_tx_queue_locked(link, conn->id, r->code, r->payload, r->len)) != NL_OK) {
            nl_conn_unref_locked(conn);
            return e;
        }
        conn->index = batch->next++;
        nl_list_push(&batch->out, &conn->item);
        batch->outstanding++;
    }
    return e;
}

static nl_err many_locked(nl_ask_many *batch, int64_t deadline_ns) NL_LOCKED
{
    nl_link *link = batch->link;
    nl_err e;

    for (;;) {
        nl_waiter w;

        if ((e = nl_link_error_locked(link)) != NL_OK || (e = fill_window_locked(batch)) != NL_OK) {
            /* Those that were queued are on their way. */
            HAND_ON(many_kick_failed, nl_tx_kick_locked(link));
            return batch->next == batch->n && !batch->outstanding ? NL_OK : e;
        }
        nl_tx_kick_locked(link);
        if (!batch->outstanding && batch->next == batch->n)
            return NL_OK;
        if (!batch->outstanding) {                  /* others have filled the budget */
            const nl_out *r = &batch->requests[batch->next];
            if ((e = nl_tx_room_locked(link, NULL, NL_HEAD_MAX + r->len, deadline_ns)) != NL_OK)
                return e;
            continue;
        }
        batch->low = batch->next < batch->n ? batch->outstanding / 2 : 0;
        nl_waiter_init(&w);
        w.stays = nl_link_end_frees_reader(link);
        batch->waiter = &w;
        if (link->state == NL_LINK_OPEN)
            e = nl_rx_wait_locked(link, &w, deadline_ns);
        batch->waiter = NULL;
        if (e != NL_OK)
            return e;
    }
}

nl_err nl_ask_many_wait(nl_ask_many *batch, int64_t deadline_ns, size_t *failed_at)
{
    nl_err e = NL_EFORKED;
    size_t first = 0;

    if (nl_link_enter(batch->link)) {
        e = many_locked(batch, deadline_ns);
        while (e != NL_OK && first < batch->n && batch->answers[first])     /* under the lock: more may be coming in */
            first++;
        nl_link_leave(batch->link);
    }
    if (e != NL_OK && failed_at)
        *failed_at = first;
    return e;
}

size_t nl_ask_many_sent(const nl_ask_many *batch) { return batch->next; }

void nl_ask_many_end(nl_ask_many *batch)
{
    if (!batch)
        return;
    if (nl_link_enter(batch->link)) {
        while (!nl_list_empty(&batch->out))
            give_up_locked(NL_ITEM(batch->out.next, nl_conn, item));
        nl_link_leave(batch->link);
    }
    sys_free(batch);
}

/* ---- notifications ---------------------------------------------------------------------------------------------- */

nl_err nl_link_notify(nl_link *link, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                      bool *maybe_sent)
{
    nl_err e;

    if (maybe_sent)
        *maybe_sent = false;
    if (link->raw)
        return NL_EINVAL;
    if ((e = nl_tx_check(link, UINT32_MAX, code, payload, len)) != NL_OK)
        return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    if ((e = nl_tx_room_locked(link, NULL, NL_HEAD_MAX + len, deadline_ns)) == NL_OK)
        e = nl_tx_notify_locked(link, nl_id_next_locked(link), code, payload, len, deadline_ns, maybe_sent);
    nl_link_leave(link);
    return e;
}

static nl_err notify_many_locked(nl_link *link, const nl_out *packets, size_t n, int64_t deadline_ns,
                                 size_t *done) NL_LOCKED
{
    size_t unwritten = 0;

    while (*done < n) {
        const nl_out *p = &packets[*done];
        nl_err e = nl_tx_room_locked(link, NULL, NL_HEAD_MAX + p->len, unwritten ? NL_NOW : deadline_ns);

        if (e == NL_OK)
            e = nl_tx_queue_locked(link, nl_id_next_locked(link), p->code, p->payload, p->len);
        if (e == NL_OK) {
            unwritten += NL_HEAD_MAX + p->len;
            ++*done;
        }
        if (unwritten >= WRITE_BYTES || (e == NL_ETIMEOUT && unwritten)) {
            nl_tx_kick_locked(link);
            unwritten = 0;
        } else if (e != NL_OK) {
            return e;
        }
    }
    return NL_OK;
}

nl_err nl_link_notify_many(nl_link *link, const nl_out *packets, size_t n, int64_t deadline_ns, size_t *done)
{
    nl_err e;

    if (link->raw)
        return NL_EINVAL;
    for (size_t i = *done; i < n; i++)
        if ((e = nl_tx_check(link, UINT32_MAX, packets[i].code, packets[i].payload, packets[i].len)) != NL_OK)
            return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    e = notify_many_locked(link, packets, n, deadline_ns, done);
    HAND_ON(notify_many_kick, nl_tx_kick_locked(link));
    nl_link_leave(link);
    return e;
}
