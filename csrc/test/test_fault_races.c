/* Races that need the system's help: here it hands out what was received byte by byte, so a reader never catches up.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "sys.h"

static atomic_bool slow;            /* recv gives one byte */
static atomic_bool interrupted;     /* a signal comes to whoever polls */

int sys_fault(sys_call call, size_t *len)
{
    if (call == SC_RECV && atomic_load(&slow))
        *len = 1;
    return call == SC_POLL && atomic_load(&interrupted) ? EINTR : 0;
}

/* Packets for nobody, until the socket breaks. */
static void job_hose(job *j)
{
    static uint8_t bytes[4000 * 10];

    for (uint32_t i = 0; i < 4000; i++)
        nl_wire_head(NL_WIRE_2016, 2 * i + 1, notification(NL_WIRE_2016), 0, bytes + 10 * i);
    while (send((int)(intptr_t)j->arg, bytes, sizeof bytes, MSG_NOSIGNAL) == sizeof bytes)
        ;
}

/* S10: close has bytes to deliver; the peer does not read, but writes faster than close throws away. Close
 * looked at its clock only when nothing was left to throw away. */
static void test_close_under_a_hose(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    job pump = { 0 }, filler = { .deadline = 1 }, closer = { 0 };
    nl_link *link;
    int fd[2];

    (void)state;
    c.accept = NL_ACCEPT_IGNORE;
    sockets_tcp(fd);
    pump.arg = (void *)(intptr_t)fd[1];
    closer.link = link = link_over(fd[0], &c);
    filler.conn = conn_new(link);
    job_start(&filler, job_fill);                       /* a deadline long gone: until there is no room */
    job_join(&filler);
    job_start(&pump, job_hose);
    wait_until(stats_of(link).packets_received > 1000);
    atomic_store(&slow, true);
    closer.deadline = in_ms(50);
    job_start(&closer, job_close);
    job_join(&closer);
    atomic_store(&slow, false);
    must_be(closer.result, NL_ETIMEOUT);
    nl_conn_rele(filler.conn);
    link_free(link);
    job_join(&pump);
    close(fd[1]);
}

/* Reads what is there now; how many bytes that were. */
static size_t peer_take(int fd)
{
    static char bytes[65536];
    size_t all = 0;

    for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0; all += (size_t)n)
        ;
    return all;
}

/* S10: a signal cuts a close short while it delivers, and it is not made again: what was sent leaves all the same. */
static void test_interrupted_close_delivers(void **state)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    static uint8_t bytes[4 << 20];
    size_t came = 0, all = sizeof bytes + 10;
    nl_conn *conn;
    nl_link *link;
    int fd[2];

    (void)state;
    sockets_small(fd);
    conn = conn_new(link = link_over(fd[0], &c));
    send_ok(conn, ASK, bytes, sizeof bytes);
    atomic_store(&interrupted, true);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_EINTR);
    atomic_store(&interrupted, false);
    must(stats_of(link).tx_bytes_queued > 0);
    wait_until((came += peer_take(fd[1])) == all);
    wait_until(stats_of(link).tx_bytes_queued == 0);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
    nl_conn_rele(conn);
    link_free(link);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_close_under_a_hose), TEST(test_interrupted_close_delivers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
