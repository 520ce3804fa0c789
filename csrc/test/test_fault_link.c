/* Fault injection on a link over a socket that is there: in every step of its life the n-th call into the system fails.
 * faults.h tells how; test_fault_dial.c has dialing and listening.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "faults.h"

#include <fcntl.h>

static bool ok(nl_err e)        { return fault_ok(e, NL_OK); }
static nl_err again(nl_err e)   { return fault_again(e); }

/* ---- the scenarios ----------------------------------------------------------------------------------------------- */

/* A link that fails to be made leaves the descriptor as it was. */
static nl_link *try_link(int fd, const nl_link_config *c)
{
    nl_link *link = NULL;
    nl_fault why = { 0 };
    int flags = O_RDWR | O_NONBLOCK;

    must(fcntl(fd, F_SETFL, flags) == 0 && fcntl(fd, F_SETFD, 0) == 0);
    if (ok(nl_link_new(fd, c, in_ms(PATIENCE_MS), &link, &why)))
        return link;
    must(why.code != NL_OK && why.text[0]);
    must((fcntl(fd, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD) == 0);
    close(fd);
    return NULL;
}

static bool try_pair(pair *p)
{
    pair_config c = pair_default(KIND_2016);
    int fd[2];

    /* Else a read that finds nothing is made again, often. */
    c.client.limits.spin_ns = c.server.limits.spin_ns = 0;
    sockets_unix(fd);
    p->client = try_link(fd[0], &c.client);
    p->server = try_link(fd[1], &c.server);
    return p->client && p->server;
}

static void make(pair *p) { try_pair(p); }

static void open_conns(pair *p)
{
    nl_conn *conn[20] = { NULL };

    if (!try_pair(p))
        return;
    for (int i = 0; i < 20 && ok(nl_conn_new(p->client, &conn[i])); i++) ;
    for (int i = 0; i < 20; i++)
        nl_conn_rele(conn[i]);
}

static void send_and_accept(pair *p)
{
    nl_conn *c = NULL, *s = NULL;
    nl_packet *got = NULL;
    static char bytes[100000];

    if (!try_pair(p))
        return;
    if (ok(nl_conn_new(p->client, &c)) && ok(nl_conn_send(c, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL)) &&
        ok(again(nl_link_accept(p->server, fault_patience(), &s))) && s) {
        if (ok(nl_conn_send(c, ASK, bytes, sizeof bytes, in_ms(PATIENCE_MS), NULL)))
            for (int i = 0; i < 2; i++) {
                nl_err e;
                do
                    e = nl_conn_recv(s, fault_patience(), &got);
                while (e == NL_EINTR);
                if (!ok(again(e)) || !got)
                    break;
                must(got->len == (i ? sizeof bytes : 3));
                nl_packet_free(got);
                got = NULL;
            }
    }
    nl_conn_rele(c);
    nl_conn_rele(s);
}

static void ask_and_answer(pair *p)
{
    job echo = { 0 };
    nl_ask ask;
    nl_packet *answer = NULL;
    nl_err e = NL_OK;

    if (!try_pair(p))
        return;
    echo.link = p->server;
    job_start(&echo, job_echo);
    for (int i = 0; i < 3 && e == NL_OK; i++) {
        if (!ok(e = nl_ask_begin(p->client, &ask, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL)))
            break;
        /* The server may be unable to answer and live on: that is for the asker's own patience. */
        do
            e = nl_ask_wait(&ask, fault_patience(), &answer);
        while (e == NL_EINTR);
        if (again(e) == NL_OK)
            must((e == NL_OK) == (answer != NULL));
        else
            must(!ok(e));
        nl_ask_end(&ask);
        nl_packet_free(answer);
        answer = NULL;
    }
    nl_link_abort(p->client);
    nl_link_abort(p->server);
    job_join(&echo);
}

static void give_up_and_bury(pair *p)
{
    nl_conn *s = NULL;
    nl_ask ask;

    if (!try_pair(p))
        return;
    for (int i = 0; i < 40; i++) {
        if (!ok(nl_ask_begin(p->client, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL)))
            break;
        nl_ask_end(&ask);
        if (!ok(again(nl_link_accept(p->server, fault_patience(), &s))) || !s)
            break;
        nl_conn_rele(s);
        s = NULL;
    }
}

static void refuse(pair *p)
{
    nl_conn *c = NULL;
    nl_packet *got = NULL;
    nl_err e;

    if (!try_pair(p))
        return;
    nl_link_close_accept(p->server);
    if (ok(nl_conn_new(p->client, &c)) && ok(nl_conn_send(c, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL))) {
        do
            e = nl_conn_recv(c, fault_patience(), &got);      /* a reply is a courtesy: without memory there is none */
        while (e == NL_EINTR);
        if (again(e) != NL_OK)
            must(!ok(e));
        nl_packet_free(got);
    }
    nl_conn_rele(c);
}

static void many(pair *p)
{
    nl_out requests[30];
    nl_packet *answers[30] = { NULL };
    nl_ask_many *batch;
    job echo = { 0 };
    nl_err e;

    if (!try_pair(p))
        return;
    echo.link = p->server;
    job_start(&echo, job_echo);
    for (int i = 0; i < 30; i++)
        requests[i] = (nl_out){ "abc", 3, ASK };
    if (ok(nl_ask_many_begin(p->client, requests, answers, 30, &batch))) {
        do
            e = nl_ask_many_wait(batch, fault_patience(), NULL);
        while (e == NL_EINTR);
        if (again(e) != NL_OK)
            must(!ok(e));
        nl_ask_many_end(batch);
    }
    for (int i = 0; i < 30; i++)
        nl_packet_free(answers[i]);
    nl_link_abort(p->client);
    nl_link_abort(p->server);
    job_join(&echo);
}

/* close with bytes that wait for a slow peer. */
static void deliver_and_close(pair *p)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static char bytes[1000000];
    nl_conn *conn = NULL;
    nl_err e;
    int fd[2];

    sockets_unix(fd);
    if ((p->client = try_link(fd[0], &c))) {
        if (ok(nl_conn_new(p->client, &conn)) &&
            ok(nl_conn_send(conn, ASK, bytes, sizeof bytes, in_ms(20), NULL))) {
            while ((e = nl_link_close(p->client, in_ms(2))) == NL_EINTR) ;
            /* Nothing undelivered is called delivered. */
            must(e == NL_ETIMEOUT || (e == NL_OK && fault_breaks_link()));
        }
        nl_conn_rele(conn);
    }
    close(fd[1]);
}

/* An answer that takes longer than any try: the asker sleeps, in the end in poll. */
static void job_answer_late(job *j)
{
    job_recv1(j);
    if (j->result != NL_OK)
        return;
    poll(NULL, 0, 30);
    while ((j->result = nl_conn_send(j->conn, ANSWER, "abc", 3, j->deadline, NULL)) == NL_EINTR) ;
    if (j->result != NL_OK)
        nl_link_abort(j->link);
    nl_packet_free(j->packet);
    nl_conn_rele(j->conn);
}

static void wait_long(pair *p)
{
    job answer = { 0 };
    nl_packet *got = NULL;
    nl_ask ask;
    nl_err e;

    if (!try_pair(p))
        return;
    answer.link = p->server;
    job_start(&answer, job_answer_late);
    if (ok(nl_ask_begin(p->client, &ask, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL))) {
        while ((e = nl_ask_wait(&ask, in_ms(PATIENCE_MS), &got)) == NL_EINTR) ;
        ok(e);
        nl_ask_end(&ask);
        nl_packet_free(got);
    }
    nl_link_abort(p->client);
    nl_link_abort(p->server);
    job_join(&answer);
}

/* Bursts of notifications are gathered, and written by the poller. */
static void notify(pair *p)
{
    nl_out packets[40];
    size_t done = 0;
    nl_err e;

    if (!try_pair(p))
        return;
    for (int i = 0; i < 40; i++)
        packets[i] = (nl_out){ "abc", 3, notification(NL_WIRE_2016) };
    for (int i = 0; i < 5; i++)
        if (!ok(nl_link_notify(p->client, packets[i].code, "abc", 3, in_ms(PATIENCE_MS), NULL)))
            return;
    while ((e = nl_link_notify_many(p->client, packets, 40, in_ms(PATIENCE_MS), &done)) == NL_EINTR) ;
    if (ok(e))
        wait_until(stats_of(p->server).packets_received == 45 || nl_link_is_closed(p->server) ||
                   nl_link_is_closed(p->client));
}

static void raw(pair *p)
{
    pair_config c = pair_default(KIND_2016);
    nl_packet *got = NULL;
    int fd[2];
    nl_err e;

    c.client.raw = c.server.raw = true;
    sockets_unix(fd);
    p->client = try_link(fd[0], &c.client);
    p->server = try_link(fd[1], &c.server);
    if (!p->client || !p->server || !ok(nl_link_send_packet(p->client, 7, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL)))
        return;
    while ((e = nl_link_recv_packet(p->server, in_ms(PATIENCE_MS), &got)) == NL_EINTR) ;
    if (ok(e))
        must(got->conn_id == 7 && got->len == 3);
    nl_packet_free(got);
}

/* A send that has to wait for room, and a peer that begins to read. */
static void wait_for_room(pair *p)
{
    pair_config c = pair_default(KIND_2016);
    static char bytes[16000];
    nl_conn *conn = NULL;
    nl_err e = NL_OK;
    int fd[2];

    c.client.limits.link_tx_bytes = 10000;
    c.server.accept = NL_ACCEPT_IGNORE;
    sockets_small(fd);
    p->client = try_link(fd[0], &c.client);
    p->server = try_link(fd[1], &c.server);
    if (!p->client || !p->server || !ok(nl_conn_new(p->client, &conn)))
        return;
    for (int i = 0; i < 4 && e == NL_OK; i++) {
        while ((e = nl_conn_send(conn, ASK, bytes, sizeof bytes, in_ms(PATIENCE_MS), NULL)) == NL_EINTR) ;
        ok(e);
    }
    nl_conn_rele(conn);
}

/* ---- running them ------------------------------------------------------------------------------------------------ */

/* Links whose poller ends are gone before what they left is counted. */
#define OVER_A_PAIR(f) static void run_##f(void) { pair p = { NULL, NULL }; f(&p); fault_none(); pair_free(&p); }
OVER_A_PAIR(make)
OVER_A_PAIR(open_conns)
OVER_A_PAIR(send_and_accept)
OVER_A_PAIR(ask_and_answer)
OVER_A_PAIR(give_up_and_bury)
OVER_A_PAIR(refuse)
OVER_A_PAIR(many)
OVER_A_PAIR(deliver_and_close)
OVER_A_PAIR(wait_long)
OVER_A_PAIR(notify)
OVER_A_PAIR(raw)
OVER_A_PAIR(wait_for_room)

/* S60 */
int main(void)
{
    static const fault_scenario scenarios[] = {
        { "make", run_make, false, 0 },
        { "open_conns", run_open_conns, false, 0 },
        { "send_and_accept", run_send_and_accept, false, 0 },
        { "ask", run_ask_and_answer, false, 0 },
        { "give_up_and_bury", run_give_up_and_bury, false, 0 },
        { "refuse", run_refuse, false, 0 },
        { "many", run_many, false, 0 },
        { "deliver_and_close", run_deliver_and_close, false, 0 },
        { "notify", run_notify, false, 0 },
        { "wait_long", run_wait_long, false, 0 },
        { "raw", run_raw, false, 0 },
        { "wait_for_room", run_wait_for_room, false, 0 },
    };

    return fault_main(scenarios, sizeof scenarios / sizeof *scenarios, NULL, NULL);
}
