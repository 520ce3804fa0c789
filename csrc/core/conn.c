/* Conn: one conversation. Its state table is in link.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A Conn's references are its users' (and the backlog's, until it is accepted); the table points to it without one, for
 * a Conn whose last reference goes leaves the table under the same lock. A Conn keeps its link in memory, not open.
 */
#include "link.h"

#define CLOSED "connection closed"

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static nl_conn *conn_alloc_locked(nl_link *link) NL_LOCKED
{
    nl_conn *conn = link->free_conns;

    if (conn) {
        link->free_conns = (nl_conn *)(void *)conn->in_last;
        link->free_count--;
    } else if (!(conn = sys_malloc(sizeof *conn))) {
        return NULL;
    }
    /* Each field, and no memset of the struct, which would take half of the time. */
    conn->link = link;
    conn->in_first = NULL;
    conn->in_last = &conn->in_first;
    conn->in_bytes = 0;
    nl_list_init(&conn->waiters);
    nl_list_init(&conn->item);
    conn->ask = NULL;
    conn->batch = NULL;
    conn->index = 0;
    atomic_init(&conn->refs, 1);
    conn->state = NL_CONN_OPEN;
    return conn;
}

/* The link's memory reference of its Conns goes back last; under the lock somebody else's keeps it. */
static void conn_free_locked(nl_conn *conn) NL_LOCKED
{
    nl_link *link = conn->link;

    if (link->free_count < NL_CONNS_KEPT && link->state == NL_LINK_OPEN) {
        conn->in_last = (nl_pkt **)(void *)link->free_conns;
        link->free_conns = conn;
        link->free_count++;
    } else {
        sys_free(conn);
    }
}

void nl_conn_trim_locked(nl_link *link)
{
    for (nl_conn *conn; (conn = link->free_conns);) {
        link->free_conns = (nl_conn *)(void *)conn->in_last;
        sys_free(conn);
    }
    link->free_count = 0;
}

/* NL_EINVAL: the id is in use. */
static nl_err enter_table_locked(nl_conn *conn, bool ours, uint32_t id) NL_LOCKED
{
    conn->id = id;
    conn->ours = ours;
    return nl_table_put(&conn->link->table, nl_key(ours, id), conn);
}

/* A Conn that a caller has, perhaps longer than the link. An ask is not counted: whoever has it has the link. */
static void count_locked(nl_link *link) NL_LOCKED
{
    if (link->conns_made++ == 0)
        nl_link_hold_memory(link);
}

nl_conn *nl_conn_of_peer_locked(nl_link *link, uint32_t id)
{
    nl_conn *conn = conn_alloc_locked(link);

    if (conn && enter_table_locked(conn, false, id) != NL_OK) {
        conn_free_locked(conn);
        return NULL;
    }
    if (conn)
        count_locked(link);
    return conn;
}

void nl_conn_unref_locked(nl_conn *conn)
{
    nl_link *link = conn->link;

    /* A reference is made from another one, so the only one cannot become two meanwhile. */
    if (atomic_load_explicit(&conn->refs, memory_order_acquire) != 1 &&
        atomic_fetch_sub_explicit(&conn->refs, 1, memory_order_acq_rel) != 1)
        return;
    bool counted = !conn->ask && !conn->batch;
    nl_conn_end_locked(conn, NL_CONN_CLOSED);
    conn_free_locked(conn);
    if (counted && --link->conns_made == 0)
        nl_link_rele_memory(link);      /* not the last one: the caller is in the link */
}

void nl_conn_hold(nl_conn *conn) { atomic_fetch_add_explicit(&conn->refs, 1, memory_order_relaxed); }


/* ---- ids -------------------------------------------------------------------------------------------------------- */

/* The next id of our parity; the counter wraps. limits.conns is far below the number of ids, so there is one that is not
 * in use. */
static uint32_t take_id_locked(nl_link *link) NL_LOCKED
{
    uint32_t id = link->next_id;

    link->next_id += 2;
    return id;
}

uint32_t nl_id_next_locked(nl_link *link)
{
    nl_conn *conn;
    uint32_t id;

    do
        id = take_id_locked(link);
    while (nl_table_find(&link->table, nl_key(true, id), &conn) == NL_ENTRY_CONN);
    return id;
}

nl_err nl_conn_open_locked(nl_link *link, nl_conn **out)
{
    nl_err e = nl_link_error_locked(link);
    nl_conn *conn;

    if (e != NL_OK)
        return e;
    if (link->raw)
        return NL_EINVAL;
    if (link->table.conns >= link->limits.conns)
        return NL_ETOOMANY;
    if (!(conn = conn_alloc_locked(link)))
        return NL_ENOMEM;
    while ((e = enter_table_locked(conn, true, take_id_locked(link))) == NL_EINVAL)
        ;                               /* the counter has wrapped, to a Conn that is still open */
    if (e != NL_OK)
        conn_free_locked(conn);
    else
        *out = conn;
    return e;
}

nl_err nl_conn_new(nl_link *link, nl_conn **out)
{
    nl_err e;

    if (!nl_link_enter(link))
        return NL_EFORKED;
    if ((e = nl_conn_open_locked(link, out)) == NL_OK)
        count_locked(link);
    nl_link_leave(link);
    return e;
}

/* ---- the inbox -------------------------------------------------------------------------------------------------- */

static void uncharge_locked(nl_conn *conn, const nl_pkt *p) NL_LOCKED
{
    conn->in_bytes -= p->charge;
    conn->link->rx.bytes -= p->charge;
}

static nl_pkt *inbox_pop_locked(nl_conn *conn) NL_LOCKED
{
    nl_pkt *p = conn->in_first;

    if (p) {
        if (!(conn->in_first = p->next))
            conn->in_last = &conn->in_first;
        p->next = NULL;
        uncharge_locked(conn, p);
        HAND_ON(pop_unpause, nl_rx_unpause_locked(conn->link));
    }
    return p;
}

/* Nobody will read what is there. With a text the requests among it are told so; the number of those. May drop mu
 * then. */
size_t nl_conn_drop_inbox_locked(nl_conn *conn, const char *text)
{
    nl_link *link = conn->link;
    nl_pkt *p = conn->in_first, *next;
    size_t told = 0;

    conn->in_first = NULL;
    conn->in_last = &conn->in_first;
    for (; p; p = next) {
        next = p->next;
        uncharge_locked(conn, p);
        if (text && link->accept != NL_ACCEPT_IGNORE && nl_code_is_request(link->wire, link->version, p->pub.code)) {
            nl_tx_reply_locked(link, conn->id, text);
            told++;
        } else if (text) {
            link->stats.ignored_packets++;
        }
        nl_packet_free(&p->pub);
        if (text)
            HAND_ON(drop_relieve, nl_tx_relieve_locked(link));
    }
    HAND_ON(drop_unpause, nl_rx_unpause_locked(link));
    if (text)
        HAND_ON(drop_kick, nl_tx_kick_locked(link));
    return told;
}

void nl_conn_push_locked(nl_conn *conn, nl_pkt *p)
{
    nl_link *link = conn->link;

    if (link->limits.rx_fail && conn->in_bytes + p->charge > link->limits.conn_rx_bytes) {
        nl_packet_free(&p->pub);
        nl_conn_end_locked(conn, NL_CONN_OVERFLOWN);
        return;
    }
    *conn->in_last = p;
    conn->in_last = &p->next;
    conn->in_bytes += p->charge;
    link->rx.bytes += p->charge;
    if (!nl_list_empty(&conn->waiters))
        HAND_ON(conn_push_wake, nl_waiter_wake_locked(link, NL_ITEM(conn->waiters.next, nl_waiter, on)));
}

/* ---- ends ------------------------------------------------------------------------------------------------------- */

/* Leaves the table. One that the peer opened leaves a tomb, or its next packet would open it anew; ids of ours come
 * back only after four thousand million others. */
void nl_conn_end_locked(nl_conn *conn, nl_conn_state state)
{
    nl_link *link = conn->link;
    uint64_t key = nl_key(conn->ours, conn->id);

    if (conn->state >= NL_CONN_OVERFLOWN)
        return;
    conn->state = (uint8_t)state;
    if (link->state < NL_LINK_CLOSING) {
        if (conn->ours || link->limits.closed_ns <= 0) {
            nl_table_drop(&link->table, key);
        } else {
            int64_t now = sys_now_ns();
            nl_table_expire(&link->table, now);
            nl_table_bury(&link->table, key, NL_ENTRY_CLOSED, now + link->limits.closed_ns);
        }
    }
    if (conn->in_first)
        nl_conn_drop_inbox_locked(conn, NULL);
    HAND_ON(conn_end_wake, nl_waiters_wake_locked(link, &conn->waiters));
    /* Its senders among them; the others go back to sleep. */
    HAND_ON(conn_end_wake_tx, nl_waiters_wake_locked(link, &link->tx.waiters));
}

/* Nobody receives any more. The peer's requests that wait unread are answered as those that come later will be: whether
 * it is told must not depend on which side of close its request arrived. Returns how many were told. May drop mu. */
static size_t end_recv_locked(nl_conn *conn, const char *text) NL_LOCKED
{
    if (conn->state != NL_CONN_OPEN)
        return 0;
    conn->state = NL_CONN_RECV_CLOSED;
    HAND_ON(end_recv_wake, nl_waiters_wake_locked(conn->link, &conn->waiters));
    return conn->in_first ? nl_conn_drop_inbox_locked(conn, text) : 0;
}

void nl_conn_rele(nl_conn *conn)
{
    nl_link *link;

    if (!conn || (link = conn->link)->fork_generation != nl_fork_generation())
        return;
    nl_link_hold_memory(link);
    nl_link_lock(link);
    if (atomic_load_explicit(&conn->refs, memory_order_acquire) == 1)
        end_recv_locked(conn, CLOSED);  /* the last reference: dropping a Conn tells the peer what closing it does */
    nl_conn_unref_locked(conn);
    nl_link_unlock(link);
    nl_link_rele_memory(link);
}

void nl_conn_close(nl_conn *conn)
{
    if (!nl_link_enter(conn->link))
        return;
    if (conn->link->state < NL_LINK_CLOSING) {          /* else the link's end stays what its ops report */
        end_recv_locked(conn, CLOSED);
        nl_conn_end_locked(conn, NL_CONN_CLOSED);
    }
    nl_link_leave(conn->link);
}

void nl_conn_close_recv(nl_conn *conn)
{
    if (!nl_link_enter(conn->link))
        return;
    end_recv_locked(conn, CLOSED);
    nl_link_leave(conn->link);
}

uint32_t nl_conn_id(const nl_conn *conn)        { return conn->id; }
bool nl_conn_is_ours(const nl_conn *conn)       { return conn->ours; }
nl_link *nl_conn_link(const nl_conn *conn)      { return conn->link; }

bool nl_conn_is_closed(nl_conn *conn)
{
    bool closed;

    if (!nl_link_enter(conn->link))
        return true;
    closed = conn->state >= NL_CONN_OVERFLOWN || conn->link->state != NL_LINK_OPEN;
    nl_link_leave(conn->link);
    return closed;
}

/* ---- send and recv ---------------------------------------------------------------------------------------------- */

nl_err nl_conn_send(nl_conn *conn, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent)
{
    nl_link *link = conn->link;
    nl_err e;

    if (maybe_sent)
        *maybe_sent = false;
    if ((e = nl_tx_check(link, conn->id, code, payload, len)) != NL_OK)
        return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    e = nl_tx_send_locked(link, conn, conn->id, code, payload, len, deadline_ns, maybe_sent);
    nl_link_leave(link);
    return e;
}

static nl_err recv_error_locked(const nl_conn *conn) NL_LOCKED
{
    if (conn->state != NL_CONN_OPEN)
        return conn->state == NL_CONN_OVERFLOWN ? NL_ETOOBIG : NL_ECONNCLOSED;
    return nl_link_error_locked(conn->link);
}

nl_err nl_conn_recv(nl_conn *conn, int64_t deadline_ns, nl_packet **out)
{
    nl_link *link = conn->link;
    nl_err e = NL_OK;
    nl_pkt *p = NULL;

    if (!nl_link_enter(link))
        return NL_EFORKED;
    while (!(p = inbox_pop_locked(conn)) && (e = recv_error_locked(conn)) == NL_OK) {
        nl_waiter w;
        nl_waiter_init(&w);
        nl_list_push(&conn->waiters, &w.on);
        if ((e = nl_rx_wait_locked(link, &w, deadline_ns)) != NL_OK) {
            p = inbox_pop_locked(conn);         /* what came at the last moment is not left behind */
            break;
        }
    }
    nl_link_leave(link);
    if (!p)
        return e;
    *out = &p->pub;
    return NL_OK;
}

/* ---- accept ----------------------------------------------------------------------------------------------------- */

static nl_err accept_error_locked(const nl_link *link) NL_LOCKED
{
    if (link->raw)
        return NL_EINVAL;
    if (link->accept_closed || link->accept != NL_ACCEPT_QUEUE)
        return link->state == NL_LINK_CLOSING || link->state == NL_LINK_CLOSED ? nl_link_error_locked(link)
                                                                               : NL_ENOTACCEPTING;
    return nl_link_error_locked(link);
}

/* Takes the oldest Conn of the backlog; its reference is the caller's. */
static nl_conn *backlog_pop_locked(nl_link *link) NL_LOCKED
{
    nl_conn *conn;

    if (nl_list_empty(&link->backlog))
        return NULL;
    conn = NL_ITEM(link->backlog.next, nl_conn, item);
    nl_list_del(&conn->item);
    link->backlog_len--;
    return conn;
}

/* Sleeps unless link.accept_wakes has moved on from `wakes` meanwhile. */
static nl_err accept_locked(nl_link *link, unsigned wakes, int64_t deadline_ns, nl_conn **out) NL_LOCKED
{
    nl_err e = NL_OK;

    while (!(*out = backlog_pop_locked(link)) && (e = accept_error_locked(link)) == NL_OK) {
        nl_waiter w;
        if (wakes != link->accept_wakes)
            return NL_EINTR;
        nl_waiter_init(&w);
        nl_list_push(&link->acceptors, &w.on);
        if ((e = nl_rx_wait_locked(link, &w, deadline_ns)) != NL_OK) {
            *out = backlog_pop_locked(link);
            break;
        }
    }
    return *out ? NL_OK : e;
}

static nl_err recv1_locked(nl_link *link, unsigned wakes, int64_t deadline_ns, nl_conn **conn,
                           nl_packet **packet) NL_LOCKED
{
    nl_err e = NL_OK;
    nl_pkt *p = NULL;

    while (!p && (e = accept_locked(link, wakes, deadline_ns, conn)) == NL_OK)
        if (!(p = inbox_pop_locked(*conn)))
            nl_conn_unref_locked(*conn);    /* it overflowed while it waited, and lost its opener: as if never there */
    if (p)
        *packet = &p->pub;
    return e;
}

/* With a packet: its first one too. wakes: what accept_wakes was when the caller looked; NULL: is now. */
static nl_err take(nl_link *link, const unsigned *wakes, int64_t deadline_ns, nl_conn **conn, nl_packet **packet)
{
    unsigned seen;
    nl_err e;

    if (!nl_link_enter(link))
        return NL_EFORKED;
    seen = wakes ? *wakes : link->accept_wakes;
    e = packet ? recv1_locked(link, seen, deadline_ns, conn, packet) : accept_locked(link, seen, deadline_ns, conn);
    nl_link_leave(link);
    return e;
}

nl_err nl_link_accept(nl_link *link, int64_t deadline_ns, nl_conn **out)
{
    return take(link, NULL, deadline_ns, out, NULL);
}

nl_err nl_link_recv1(nl_link *link, int64_t deadline_ns, nl_conn **conn, nl_packet **packet)
{
    return take(link, NULL, deadline_ns, conn, packet);
}

nl_err nl_link_take(nl_link *link, unsigned wakes, nl_conn **conn, nl_packet **packet)
{
    return take(link, &wakes, NL_FOREVER, conn, packet);
}

void nl_link_close_accept(nl_link *link)
{
    nl_conn *conn;

    if (!nl_link_enter(link))
        return;
    link->accept_closed = true;
    while ((conn = backlog_pop_locked(link))) {
        size_t told = link->state == NL_LINK_OPEN ? end_recv_locked(conn, "connection refused") : 0;
        link->stats.refused_conns += told;
        nl_conn_unref_locked(conn);
    }
    HAND_ON(close_accept_wake, nl_waiters_wake_locked(link, &link->acceptors));
    nl_link_leave(link);
}

unsigned nl_link_wakes(nl_link *link)
{
    unsigned wakes;

    if (!nl_link_enter(link))
        return 0;
    wakes = link->accept_wakes;
    nl_link_leave(link);
    return wakes;
}

void nl_link_wake_accept(nl_link *link)
{
    if (!nl_link_enter(link))
        return;
    link->accept_wakes++;
    HAND_ON(wake_accept_wake, nl_waiters_wake_locked(link, &link->acceptors));
    nl_link_leave(link);
}

/* ---- raw -------------------------------------------------------------------------------------------------------- */

nl_err nl_link_send_packet(nl_link *link, uint32_t conn_id, uint16_t code, const void *payload, size_t len,
                           int64_t deadline_ns, bool *maybe_sent)
{
    nl_err e;

    if (maybe_sent)
        *maybe_sent = false;
    if (!link->raw)
        return NL_EINVAL;
    if ((e = nl_tx_check(link, conn_id, code, payload, len)) != NL_OK)
        return e;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    e = nl_tx_send_locked(link, NULL, conn_id, code, payload, len, deadline_ns, maybe_sent);
    nl_link_leave(link);
    return e;
}

static nl_pkt *raw_pop_locked(nl_link *link) NL_LOCKED
{
    nl_pkt *p = link->raw_first;

    if (p) {
        if (!(link->raw_first = p->next))
            link->raw_last = &link->raw_first;
        p->next = NULL;
        link->rx.bytes -= p->charge;
        HAND_ON(raw_pop_unpause, nl_rx_unpause_locked(link));
    }
    return p;
}

nl_err nl_link_recv_packet(nl_link *link, int64_t deadline_ns, nl_packet **out)
{
    nl_err e;
    nl_pkt *p;

    if (!link->raw)
        return NL_EINVAL;
    if (!nl_link_enter(link))
        return NL_EFORKED;
    while (!(p = raw_pop_locked(link)) && (e = nl_link_error_locked(link)) == NL_OK) {
        nl_waiter w;
        nl_waiter_init(&w);
        nl_list_push(&link->acceptors, &w.on);
        if ((e = nl_rx_wait_locked(link, &w, deadline_ns)) != NL_OK) {
            p = raw_pop_locked(link);
            break;
        }
    }
    nl_link_leave(link);
    if (!p)
        return e;
    *out = &p->pub;
    return NL_OK;
}
