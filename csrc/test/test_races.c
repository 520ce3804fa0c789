/* Interleavings that once went wrong, each as its own test: who did what, in order, is in its comment.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

/* ---- deadlines under traffic ------------------------------------------------------------------------------------ */

typedef struct hose { int fd; atomic_bool stop; } hose;

/* Writes notifications for nobody, as fast as the other side takes them. */
static void job_hose(job *j)
{
    enum { N = 4000 };
    static uint8_t bytes[N * 10];
    hose *h = j->arg;

    for (uint32_t i = 0; i < N; i++)
        nl_wire_head(NL_WIRE_2016, 2 * i + 1, notification(NL_WIRE_2016), 0, bytes + 10 * i);
    while (!atomic_load(&h->stop) && send(h->fd, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes)
        ;
}

/* A leader that reads for others kept its own deadline only when the socket was empty. A hose keeps it full. */
static void test_deadline_of_a_busy_leader(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    hose h = { .stop = false };
    job pump = { .arg = &h };
    nl_link *link;
    nl_conn *conn;
    nl_packet *p;
    int64_t start;

    (void)state;
    c.accept = NL_ACCEPT_IGNORE;
    link = link_and_peer(&c, true, &h.fd);
    conn = conn_new(link);
    job_start(&pump, job_hose);
    wait_until(stats_of(link).packets_received > 10000);
    start = nl_now_ns();
    for (int i = 0; i < 50; i++)
        must_be(nl_conn_recv(conn, in_ms(5), &p), NL_ETIMEOUT);
    must(nl_now_ns() < start + INT64_C(10000000000));   /* each had 5 ms */
    atomic_store(&h.stop, true);
    nl_conn_rele(conn);
    link_free(link);
    job_join(&pump);
    close(h.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_deadline_of_a_busy_leader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
