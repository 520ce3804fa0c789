/* The C core's contenders: the same operations as peer.c's, through a link, without Python.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   core ask PORT SIZE             one ask after the other
 *   core robin PORT SIZE LINKS     as ask, on so many links in turn
 *   core many PORT SIZE COUNT      COUNT asks in one nl_ask_many
 *   core notes PORT SIZE           notifications one by one, and one ask at the end of a round
 *   core notes_many PORT SIZE COUNT   in batches
 *   core bulk PORT                 notifications of 1 MiB, and one ask at the end of a round
 *   core take PORT                 packets of 1 MiB from one Conn
 *   core crowd PORT SIZE CONNS     as ask, with so many idle Conns open on the link
 *
 * With BENCH_TLS set to a folder that has ca.pem, node.pem and node.key, the link is one with TLS. BENCH_SPIN_NS is
 * limits.spin_ns. With BENCH_STATS set the link's counters go to the standard error at the end.
 */
#include "bench.h"
#include "neolink.h"

static nl_link *link_, **links;
static size_t size, batch;
static uint8_t *space;
static nl_out *outs;
static nl_packet **answers;

static nl_fault why;

static void must(nl_err e, const char *what)
{
    if (e == NL_OK)
        return;
    if (link_)
        nl_link_fault(link_, &why);
    fprintf(stderr, "%s: %s: %s\n", what, nl_err_name(e), why.text);
    exit(1);
}

static void ask(long n)
{
    for (long i = 0; i < n; i++) {
        nl_ask k = { 0 };
        nl_packet *answer;
        must(nl_ask_whole(link_, &k, ASK, space, size, NL_FOREVER, NULL, &answer), "nl_ask_whole");
        nl_packet_free(answer);
        nl_ask_end(&k);
    }
}

static void robin(long n)
{
    static size_t turn;

    while (n--) {
        link_ = links[turn++ % batch];
        ask(1);
    }
}

static void fill_outs(unsigned code)
{
    for (size_t i = 0; i < batch; i++)
        outs[i] = (nl_out){ space, size, (uint16_t)code };
}

static void ask_many(long n)
{
    fill_outs(ASK);
    for (long i = 0; i < n; i += (long)batch) {
        nl_ask_many *m;
        memset(answers, 0, batch * sizeof *answers);
        must(nl_ask_many_begin(link_, outs, answers, batch, &m), "nl_ask_many_begin");
        must(nl_ask_many_wait(m, NL_FOREVER, NULL), "nl_ask_many_wait");
        nl_ask_many_end(m);
        for (size_t k = 0; k < batch; k++)
            nl_packet_free(answers[k]);
    }
}

static void notes(long n)
{
    for (long i = 0; i < n; i++)
        must(nl_link_notify(link_, NOTE, space, size, NL_FOREVER, NULL), "nl_link_notify");
    ask(1);
}

static void notes_many(long n)
{
    fill_outs(NOTE);
    for (long i = 0; i < n; i += (long)batch) {
        size_t done = 0;
        must(nl_link_notify_many(link_, outs, batch, NL_FOREVER, &done), "nl_link_notify_many");
    }
    ask(1);
}

static void bulk(long n)
{
    for (long i = 0; i < n; i++)
        must(nl_link_notify(link_, NOTE, space, BULK, NL_FOREVER, NULL), "nl_link_notify");
    ask(1);
}

static void take(long n)
{
    uint8_t request[8];
    nl_conn *conn;

    store32(request, (uint32_t)n);
    store32(request + 4, BULK);
    must(nl_conn_new(link_, &conn), "nl_conn_new");
    must(nl_conn_send(conn, TAKE, request, sizeof request, NL_FOREVER, NULL), "nl_conn_send");
    for (long i = 0; i < n; i++) {
        nl_packet *p;
        must(nl_conn_recv(conn, NL_FOREVER, &p), "nl_conn_recv");
        if (p->len != BULK)
            die("a packet of another size");
        nl_packet_free(p);
    }
    nl_conn_rele(conn);
}

static void open_crowd(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        nl_conn *conn;
        must(nl_conn_new(link_, &conn), "nl_conn_new");     /* kept to the end of the process */
    }
}

static nl_tls_ctx *tls_files(const char *folder)
{
    char ca[256], cert[256], key[256];
    nl_tls_ctx *tls;

    snprintf(ca, sizeof ca, "%s/ca.pem", folder);
    snprintf(cert, sizeof cert, "%s/node.pem", folder);
    snprintf(key, sizeof key, "%s/node.key", folder);
    must(nl_tls_ctx_new(ca, cert, key, NULL, NULL, &tls, &why), "nl_tls_ctx_new");
    return tls;
}

static void print_stats(void)
{
    nl_stats s;

    nl_link_stats(link_, &s);
    fprintf(stderr, "sent %lu received %lu takes %lu handovers %lu arms %lu poller reads %lu idle wake-ups %lu "
            "tx turns %lu handoffs %lu for others %lu spins %lu hits %lu\n", s.packets_sent, s.packets_received,
            s.rx_takes, s.rx_handovers, s.rx_arms, s.poller_reads, s.poller_idle_wakeups, s.tx_turns, s.tx_handoffs,
            s.tx_for_others, s.spins, s.spin_hits);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*operations)(long n); } kinds[] = {
        { "ask", ask }, { "many", ask_many }, { "notes", notes }, { "notes_many", notes_many }, { "bulk", bulk },
        { "take", take }, { "crowd", ask }, { "robin", robin },
    };
    nl_link_config config;
    size_t kind = 0;

    while (argc > 2 && kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind].name, argv[1]))
        kind++;
    if (argc < 3 || kind == sizeof kinds / sizeof *kinds)
        die("usage: see the top of core.c");
    size = argc > 3 ? (size_t)atoi(argv[3]) : 0;
    batch = argc > 4 ? (size_t)atoi(argv[4]) : 1;
    space = calloc(1, size > BULK ? size : BULK);
    outs = calloc(batch, sizeof *outs);
    answers = calloc(batch, sizeof *answers);
    nl_link_config_default(&config);
    config.limits.conns = NL_UNLIMITED;
    if (getenv("BENCH_TLS"))
        config.tls = tls_files(getenv("BENCH_TLS"));
    if (getenv("BENCH_SPIN_NS"))
        config.limits.spin_ns = atol(getenv("BENCH_SPIN_NS"));
    links = calloc(batch, sizeof *links);
    for (size_t i = strcmp(argv[1], "robin") ? batch - 1 : 0; i < batch; i++)
        must(nl_link_new(connect_to(argv[2]), &config, NL_FOREVER, &links[i], &why), "nl_link_new");
    link_ = links[batch - 1];
    if (!strcmp(argv[1], "crowd"))
        open_crowd(batch);
    do_rounds(kinds[kind].operations);
    if (getenv("BENCH_STATS"))
        print_stats();
    for (size_t i = 0; i < batch; i++) {
        if (!links[i])
            continue;
        nl_link_abort(links[i]);
        nl_link_rele(links[i]);
    }
    nl_tls_ctx_rele(config.tls);
    nl_shutdown();
    return 0;
}
