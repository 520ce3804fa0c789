/* The lines that hand on or wake which matter only when the system fails: each test here is the one that notices
 * (test_hand_on.c has the others).
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "sys.h"

#include <sys/socket.h>

static _Thread_local int allocations = -1;      /* of this thread that succeed; -1: all */
static atomic_bool deaf;                        /* no read brings anything, not even the end */

int sys_fault(sys_call call, size_t *len)
{
    (void)len;
    if (call == SC_MALLOC && allocations >= 0)
        return allocations ? allocations--, 0 : ENOMEM;
    return call == SC_RECV && atomic_load(&deaf) ? EAGAIN : 0;
}

/* many_kick_failed: of a batch for which memory does not suffice, those that were queued leave, and nobody has to
 * push. */
static void test_part_of_a_batch_leaves(void **state)
{
    uint64_t left = 0;

    (void)state;
    for (int n = 0; n < 8; n++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        const nl_out asks[3] = { { .code = ASK }, { .code = ASK }, { .code = ASK } };
        nl_packet *answers[3] = { NULL };
        nl_ask_many *batch;
        size_t failed_at;
        int peer;
        nl_link *link = link_and_peer(&c, false, &peer);

        must_be(nl_ask_many_begin(link, asks, answers, 3, &batch), NL_OK);
        allocations = n;
        must(nl_ask_many_wait(batch, in_ms(20), &failed_at) != NL_OK);
        allocations = -1;
        for (uint64_t i = stats_of(link).packets_sent; i; i--, left++)
            must(peer_recv(peer, c.wire).code == ASK);
        nl_ask_many_end(batch);
        link_free(link);
        close(peer);
    }
    must(left);
}

static void job_send_large(job *j)
{
    static uint8_t bytes[4 << 20];

    do
        j->result = nl_conn_send(j->conn, ASK, bytes, sizeof bytes, j->deadline, NULL);
    while (j->result == NL_EINTR);
}

/* tx_failed_wake: a sender waits for room behind a large packet that is written from its owner's memory, so the queue
 * is empty; when that write fails, and nobody has yet read that the peer is gone, it must wake all the same. */
static void test_failed_write_wakes_senders(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job second = { .deadline = NL_FOREVER };
    job first = { .deadline = NL_FOREVER };
    nl_link *link;
    int peer;

    (void)state;
    c.limits.link_tx_bytes = 1000;
    link = link_and_peer(&c, false, &peer);
    first.conn = second.conn = conn_new(link);
    job_start(&first, job_send_large);
    wait_until(stats_of(link).tx_bytes_queued > 1000);
    job_start(&second, job_fill);
    wait_until(stats_of(link).waiters == 1);
    atomic_store(&deaf, true);
    must(shutdown(peer, SHUT_RD) == 0);
    job_join(&first);
    job_join(&second);
    atomic_store(&deaf, false);
    must_be(first.result, NL_ELINKDOWN);
    must_be(second.result, NL_ELINKDOWN);
    nl_conn_rele(first.conn);
    link_free(link);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_part_of_a_batch_leaves), TEST(test_failed_write_wakes_senders) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
