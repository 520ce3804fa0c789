/* Whose packet is it? Routing by (initiator, id), and what a packet for nobody meets.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who opened the conversation is read off the packet by the link's rule:
 *   stream   by the parity of the id: server ends open even ones, client ends odd ones;
 *   neo      by the answer bit of the code: NEO/py counts 0, 1, 2 on both sides, so the same id is open in both
 *            directions at once. Two messages are pushed on the asker's id without that bit; they go to our Conn of
 *            that id.
 *
 * A packet for nobody (see also the table in docs/design.rst):
 *   answer or Error      never opens a Conn and is never answered; late if it belongs to an ask we gave up, else
 *                        ignored
 *   for a closed Conn    a request is answered "connection closed"; anything else is ignored
 *   from a new id        a Conn for accept; or, when nobody may accept or there is no room, a request is answered
 *                        "connection refused" and anything else is ignored
 * An Error is never answered with an Error: two ends that do so never stop.
 */
#include "link.h"

static bool is_ours_locked(const nl_link *link, const nl_pkt *p) NL_LOCKED
{
    nl_conn *conn;

    if (link->routing == NL_ROUTE_STREAM)
        return (p->pub.conn_id & 1) == (link->role == NL_CLIENT);
    if (p->pub.code & NL_ANSWER_BIT)
        return true;
    return nl_code_is_push(link->wire, link->version, p->pub.code) &&
           nl_table_find(&link->table, nl_key(true, p->pub.conn_id), &conn) == NL_ENTRY_CONN;
}

static bool is_request(const nl_link *link, const nl_pkt *p)
{
    return nl_code_is_request(link->wire, link->version, p->pub.code);
}

/* Nobody will have it: a request is told so, once; the rest is counted. */
static void turn_away_locked(nl_link *link, nl_pkt *p, const char *text) NL_LOCKED
{
    bool answer = is_request(link, p) && link->accept != NL_ACCEPT_IGNORE;

    if (answer)
        nl_tx_reply_locked(link, p->pub.conn_id, text);
    else
        link->stats.ignored_packets++;
    nl_rx_stray_locked(link, p->pub.len, answer);
    nl_packet_free(&p->pub);
}

static void refuse_locked(nl_link *link, nl_pkt *p) NL_LOCKED
{
    link->stats.refused_conns += is_request(link, p) && link->accept != NL_ACCEPT_IGNORE;
    turn_away_locked(link, p, "connection refused");
}

static void open_for_peer_locked(nl_link *link, nl_pkt *p) NL_LOCKED
{
    nl_conn *conn = NULL;

    if (link->accept == NL_ACCEPT_QUEUE && !link->accept_closed && link->backlog_len < link->limits.accept_backlog &&
        link->table.conns < link->limits.conns)
        conn = nl_conn_of_peer_locked(link, p->pub.conn_id);
    if (!conn) {
        refuse_locked(link, p);
        return;
    }
    nl_list_push(&link->backlog, &conn->item);
    link->backlog_len++;
    nl_conn_push_locked(conn, p);
    if (!nl_list_empty(&link->acceptors))
        HAND_ON(accept_wake, nl_waiter_wake_locked(link, NL_ITEM(link->acceptors.next, nl_waiter, on)));
}

static void late_locked(nl_link *link, nl_pkt *p, uint64_t key) NL_LOCKED
{
    link->stats.late_answers++;
    nl_table_drop(&link->table, key);
    nl_packet_free(&p->pub);
}

static void raw_locked(nl_link *link, nl_pkt *p) NL_LOCKED
{
    *link->raw_last = p;
    link->raw_last = &p->next;
    link->rx.bytes += p->charge;
    if (!nl_list_empty(&link->acceptors))
        HAND_ON(raw_wake, nl_waiter_wake_locked(link, NL_ITEM(link->acceptors.next, nl_waiter, on)));
}

void nl_route_locked(nl_link *link, nl_pkt *p)
{
    uint64_t key;
    nl_conn *conn;
    nl_entry entry;
    bool ours;

    if (link->state != NL_LINK_OPEN) {
        nl_packet_free(&p->pub);
        return;
    }
    link->stats.packets_received++;
    nl_trace(link, NL_TRACE_RECV, p->pub.conn_id, p->pub.code, p->pub.len);
    if (link->raw) {
        raw_locked(link, p);
        return;
    }
    ours = is_ours_locked(link, p);
    key = nl_key(ours, p->pub.conn_id);
    entry = nl_table_find(&link->table, key, &conn);
    if (entry == NL_ENTRY_CLOSED || entry == NL_ENTRY_LATE) {
        nl_table_expire(&link->table, sys_now_ns());
        entry = nl_table_find(&link->table, key, &conn);
    }
    if (entry == NL_ENTRY_CONN && (conn->ask || conn->batch))
        nl_ask_deliver_locked(conn, p);
    else if (entry == NL_ENTRY_CONN && conn->state == NL_CONN_OPEN)
        nl_conn_push_locked(conn, p);
    else if (entry == NL_ENTRY_LATE)
        late_locked(link, p, key);
    else if (entry != NL_ENTRY_NONE || ours || p->pub.code & NL_ANSWER_BIT ||
             nl_code_is_push(link->wire, link->version, p->pub.code))
        turn_away_locked(link, p, "connection closed");
    else
        open_for_peer_locked(link, p);
}
