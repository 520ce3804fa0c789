/* What an ask costs in the steady state: no allocation, one write, and one read that brings something. Counted at the
 * seam of the system calls.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "sys.h"

#define ASKS 10000

static atomic_ulong calls[SC_CALLS];

int sys_fault(sys_call call, size_t *len)
{
    (void)len;
    atomic_fetch_add(&calls[call], 1);
    return 0;
}

/* A plain peer, which has no part in the counts: it answers until the end. */
static void job_answer(job *j)
{
    int fd = (int)(intptr_t)j->arg;
    char packet[10 + 64];

    while (recv(fd, packet, sizeof packet, MSG_WAITALL) == sizeof packet) {
        packet[4] = (char)0x80;                 /* the answer bit of the code */
        must(send(fd, packet, sizeof packet, MSG_NOSIGNAL) == sizeof packet);
    }
}

static void ask_often(nl_link *link, int n)
{
    static const uint8_t payload[64];

    for (int i = 0; i < n; i++) {
        nl_packet *answer;
        nl_ask ask;

        must_be(nl_ask_begin(link, &ask, ASK, payload, sizeof payload, in_ms(PATIENCE_MS), NULL), NL_OK);
        must_be(nl_ask_wait(&ask, in_ms(PATIENCE_MS), &answer), NL_OK);
        nl_ask_end(&ask);
        must(answer->len == sizeof payload);
        nl_packet_free(answer);
    }
}

/* A link that is idle for some milliseconds gives back what it keeps for reuse, and then has to allocate once more. On
 * a slow machine that may happen between any two asks; the link counts it, as it begins to be watched then, and such a
 * run says nothing. */
static void test_an_ask_allocates_nothing(void **state)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    unsigned long allocations, writes, reads;
    job peer = { 0 };
    uint64_t arms;
    nl_link *link;
    int fd;

    (void)state;
    link = link_and_peer(&c, true, &fd);
    peer.arg = (void *)(intptr_t)fd;
    job_start(&peer, job_answer);
    for (int64_t end = in_ms(PATIENCE_MS * 4);;) {
        ask_often(link, 100);
        arms = stats_of(link).rx_arms;
        allocations = calls[SC_MALLOC];
        writes = calls[SC_SENDMSG];
        reads = calls[SC_RECV];
        ask_often(link, ASKS);
        if (stats_of(link).rx_arms == arms)
            break;
        must(nl_now_ns() < end);
    }
    must(calls[SC_MALLOC] == allocations);
    must(calls[SC_SENDMSG] - writes == ASKS);
    must(calls[SC_RECV] - reads >= ASKS);
    link_free(link);
    job_join(&peer);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_an_ask_allocates_nothing) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
