/* Tests of the trace: what is recorded, what is lost, and who is woken.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

static nl_trace_event next_event(void)
{
    nl_trace_event e;
    size_t n = 0;

    must_be(nl_trace_read(&e, 1, in_ms(PATIENCE_MS), &n), NL_OK);
    must(n == 1);
    return e;
}

static void test_events_of_a_conversation(void **state)
{
    pair p;
    nl_conn *ours, *theirs;
    nl_trace_event e;
    uint64_t client, server;
    int64_t before = nl_now_ns();

    (void)state;
    must_be(nl_trace_start(0), NL_EINVAL);
    must_be(nl_trace_start(100), NL_OK);
    must_be(nl_trace_start(100), NL_EINVAL);
    p = pair_new(KIND_2016);
    client = nl_link_serial(p.client);
    server = nl_link_serial(p.server);
    must(client != server);
    e = next_event();
    must(e.kind == NL_TRACE_CONNECT && e.link == client && e.time_ns >= before && e.time_ns <= nl_now_ns());
    e = next_event();
    must(e.kind == NL_TRACE_ACCEPT && e.link == server);
    ours = conn_new(p.client);
    send_ok(ours, ASK, "abc", 3);
    theirs = accept_ok(p.server);
    e = next_event();
    must(e.kind == NL_TRACE_SEND && e.link == client && e.conn_id == nl_conn_id(ours) && e.code == ASK && e.len == 3);
    e = next_event();
    must(e.kind == NL_TRACE_RECV && e.link == server && e.conn_id == nl_conn_id(ours) && e.code == ASK && e.len == 3);
    recv_is(theirs, ASK);
    nl_conn_rele(ours);
    nl_conn_rele(theirs);
    pair_free(&p);
    must(next_event().kind == NL_TRACE_CLOSE && next_event().kind == NL_TRACE_CLOSE);
    nl_trace_stop();
}

static void test_a_full_ring_drops_and_counts(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *conn = conn_new(p.client);
    nl_trace_event e[8];
    size_t n = 0;

    (void)state;
    nl_link_close_accept(p.server);
    must_be(nl_trace_start(2), NL_OK);
    for (int i = 0; i < 5; i++)
        send_ok(conn, ERROR, NULL, 0);              /* the other link's events come in between: all of them count */
    wait_until(stats_of(p.server).packets_received == 5);
    must_be(nl_trace_read(e, 8, NL_NOW, &n), NL_OK);
    must(n == 2 && e[0].lost == 0 && e[1].lost == 0);
    must_be(nl_trace_read(e, 8, NL_NOW, &n), NL_ETIMEOUT);
    send_ok(conn, ERROR, NULL, 0);
    e[0] = next_event();
    must(e[0].lost == 8);
    nl_trace_stop();
    nl_conn_rele(conn);
    pair_free(&p);
}

/* What was recorded before the stop is read after it; what was dropped behind that, the stop tells. */
static void test_stop_loses_nothing(void **state)
{
    pair p = pair_new(KIND_2016);
    nl_conn *conn = conn_new(p.client);
    nl_trace_event e[2];
    size_t n = 0;

    (void)state;
    nl_link_close_accept(p.server);
    must_be(nl_trace_start(3), NL_OK);
    for (int i = 0; i < 5; i++)
        send_ok(conn, ERROR, NULL, 0);
    wait_until(stats_of(p.server).packets_received == 5);
    must(nl_trace_stop() == 7);
    send_ok(conn, ERROR, NULL, 0);                  /* no more is recorded, nor counted */
    must_be(nl_trace_read(e, 2, NL_FOREVER, &n), NL_OK);
    must(n == 2 && e[0].lost == 0 && e[0].kind == NL_TRACE_SEND);
    must_be(nl_trace_read(e, 2, NL_FOREVER, &n), NL_OK);
    must(n == 1);
    must_be(nl_trace_read(e, 2, NL_FOREVER, &n), NL_ELINKCLOSED);
    must_be(nl_trace_start(3), NL_OK);
    send_ok(conn, ERROR, NULL, 0);
    must(nl_trace_stop() == 0);
    must_be(nl_trace_start(3), NL_OK);              /* a new trace knows nothing of what nobody read of the last */
    must_be(nl_trace_read(e, 2, NL_NOW, &n), NL_ETIMEOUT);
    must(nl_trace_stop() == 0 && nl_trace_stop() == 0);
    nl_conn_rele(conn);
    pair_free(&p);
}

static void read_until_end(job *j)
{
    nl_trace_event e;
    size_t n;

    while ((j->result = nl_trace_read(&e, 1, NL_FOREVER, &n)) == NL_OK)
        j->n++;
}

static void test_stop_wakes_the_reader(void **state)
{
    job j[2] = { 0 };
    pair p;

    (void)state;
    must_be(nl_trace_start(100), NL_OK);
    for (int i = 0; i < 2; i++)
        job_start(&j[i], read_until_end);
    p = pair_new(KIND_2016);
    pair_free(&p);
    nl_trace_stop();
    for (int i = 0; i < 2; i++) {
        job_join(&j[i]);
        must_be(j[i].result, NL_ELINKCLOSED);
    }
    must(j[0].n + j[1].n <= 4);
    nl_trace_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_events_of_a_conversation), TEST(test_a_full_ring_drops_and_counts), TEST(test_stop_loses_nothing),
        TEST(test_stop_wakes_the_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
