/* Tests of throttling: packets that nobody wants take their share of the time and no more, and all else goes on.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The link is a client's, by parity, and a plain socket is its peer; a stray is an answer to an id that never was. The
 * first strays of a link are free, whatever its share, since they are set against all the time that passed before.
 */
#include "link.h"

#include "kit.h"

#define STRAY_ID 9u
#define QUANTUM  2000u          /* strays after which the core looks at the clock */
#define BATCH    128u           /* and it looks after so many at a time */

static nl_link_config sharing(double share)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);

    c.limits.stray_share = share;
    return c;
}

static void send_strays(int peer, size_t n)
{
    uint8_t *bytes = calloc(n, NL_HEAD_MAX);

    must(bytes);
    for (size_t i = 0; i < n; i++)
        must(nl_wire_head(NL_WIRE_2016, STRAY_ID, ANSWER, 0, bytes + 10 * i) == 10);
    peer_write(peer, bytes, 10 * n);
    free(bytes);
}

static bool is_throttled(nl_link *link)
{
    bool is;

    nl_link_lock(link);
    is = link->rx.throttled;
    nl_link_unlock(link);
    return is;
}

/* For how long nobody will read; 0 when somebody may. */
static int64_t wait_of(nl_link *link)
{
    int64_t until;

    nl_link_lock(link);
    until = link->rx.throttled ? link->rx.throttled_until_ns : 0;
    nl_link_unlock(link);
    return until ? until - nl_now_ns() : 0;
}

/* Sends strays, a quantum at a time, until the link is throttled: for a second with a share that is next to nothing. On
 * a machine so slow that a quantum takes its share of the time anyway that comes late. How many were sent. */
static uint64_t throttle(nl_link *link, int peer)
{
    uint64_t sent = 0;

    while (!is_throttled(link)) {
        uint64_t due = stats_of(link).packets_received + QUANTUM;
        send_strays(peer, QUANTUM);
        sent += QUANTUM;
        wait_until(is_throttled(link) || stats_of(link).packets_received >= due);
    }
    return sent;
}

/* rx_throttle_timer, timer_rx, rx_timer_turn: it reads on by itself, to the last packet. */
static void test_reads_on(void **state)
{
    nl_link_config c = sharing(0.01);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    uint64_t sent;

    (void)state;
    sent = throttle(link, peer);
    send_strays(peer, 5 * QUANTUM);
    sent += 5 * QUANTUM;
    wait_until(stats_of(link).packets_received == sent);
    must(stats_of(link).throttles && stats_of(link).ignored_packets == sent);
    link_free(link);
    close(peer);
}

/* Who waits when the link is throttled, or comes then, has what came behind the strays. */
static void test_waiters_get_what_is_behind(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        nl_link_config c = sharing(0.01);
        int peer;
        nl_link *link = link_and_peer(&c, false, &peer);
        job asker = { .link = link, .deadline = NL_FOREVER };
        peer_packet asked;

        if (late)
            throttle(link, peer);
        job_start(&asker, job_ask);
        asked = peer_recv(peer, c.wire);
        if (!late)
            throttle(link, peer);
        peer_send(peer, c.wire, asked.id, ANSWER, NULL, 0);
        job_join(&asker);
        must_be(asker.result, NL_OK);
        nl_packet_free(asker.packet);
        link_free(link);
        close(peer);
    }
}

/* rx_timer_again: the timer is the cork's as well. What was corked leaves, and the link is read on afterwards. */
static void test_corked_beside(void **state)
{
    nl_link_config c = sharing(1e-9);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);
    uint64_t received;

    (void)state;
    throttle(link, peer);
    for (int corked = 0; !corked && is_throttled(link);) {
        for (int i = 0; i < 5; i++)
            must_be(nl_link_notify(link, notification(c.wire), NULL, 0, NL_FOREVER, NULL), NL_OK);
        corked = stats_of(link).tx_bytes_queued > 0;
        for (int i = 0; i < 5; i++)
            must(peer_recv(peer, c.wire).code == notification(c.wire));
    }
    received = stats_of(link).packets_received;
    send_strays(peer, 1);
    wait_until(stats_of(link).packets_received > received && !is_throttled(link));
    link_free(link);
    close(peer);
}

/* An end is an end. Closing takes the throttled link out of the count, by which others are throttled. */
static void test_ends(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        nl_link_config c = sharing(1e-9);
        int peer;
        nl_link *link = link_and_peer(&c, false, &peer);

        throttle(link, peer);
        if (how == 0)
            must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
        else if (how == 1)
            nl_link_abort(link);
        close(peer);
        if (how == 2)           /* the peer's end is seen when reading goes on */
            wait_until(fault_of(link).code == NL_ELINKDOWN);
        must(!is_throttled(link));
        link_free(link);
    }
}

/* The longest that a link with a thousandth may be throttled when it is the only one: its quantum's share, from now. */
#define ALONE_NS    ((int64_t)(QUANTUM + BATCH) * 100 * 1000)

/* Throttles it again and again. Was it longer than it may be alone? */
static bool is_longer_than_alone(nl_link *link, int peer, int times)
{
    for (; times; times--) {
        wait_until(!is_throttled(link));
        throttle(link, peer);
        if (wait_of(link) > ALONE_NS)
            return true;
    }
    return false;
}

static void child_is_alone(void *unused)
{
    nl_link_config c = sharing(0.001);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)unused;
    must(!is_longer_than_alone(link, peer, 2));
    link_free(link);
    close(peer);
    nl_shutdown();
}

/* S26: links that are throttled at the same time have one share together; a forked child does not count its parent's. */
static void test_share_together(void **state)
{
    nl_link_config c = sharing(0.001), c_other = sharing(1e-9);
    int peer, peer_other;
    nl_link *link = link_and_peer(&c, false, &peer), *other = link_and_peer(&c_other, false, &peer_other);
    int64_t end = in_ms(PATIENCE_MS);

    (void)state;
    must(!is_longer_than_alone(link, peer, 2));
    do {
        throttle(other, peer_other);
        must(nl_now_ns() < end);
    } while (!is_longer_than_alone(link, peer, 1));
    throttle(other, peer_other);
    must(!fails(child_is_alone, NULL));
    link_free(other);
    close(peer_other);
    must(!is_longer_than_alone(link, peer, 3));
    link_free(link);
    close(peer);
}

/* Without a bound nothing is throttled. */
static void test_no_bound(void **state)
{
    nl_link_config c = sharing(1);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)state;
    send_strays(peer, 10 * QUANTUM);
    wait_until(stats_of(link).packets_received == 10 * QUANTUM);
    must(stats_of(link).throttles == 0);
    link_free(link);
    close(peer);
}

/* Nor for answers that come late: their asks were ours. */
static void test_late_answers_are_no_strays(void **state)
{
    nl_link_config c = sharing(1e-9);
    int peer;
    nl_link *link = link_and_peer(&c, false, &peer);

    (void)state;
    for (uint64_t n = 1; n <= 4 * QUANTUM; n++) {
        nl_ask ask;

        must_be(nl_ask_begin(link, &ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
        nl_ask_end(&ask);
        peer_send(peer, c.wire, peer_recv(peer, c.wire).id, ANSWER, NULL, 0);
        if (n % 500 == 0)           /* fewer than the tombs a link keeps */
            wait_until(stats_of(link).late_answers == n);
    }
    must(stats_of(link).throttles == 0 && stats_of(link).ignored_packets == 0);
    link_free(link);
    close(peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reads_on), TEST(test_waiters_get_what_is_behind), TEST(test_corked_beside), TEST(test_ends),
        TEST(test_share_together), TEST(test_no_bound), TEST(test_late_answers_are_no_strays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
