/* Tests of the background thread: watching, timers, the sweep, letting go, and doing nothing when there is nothing to
 * do.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "list.h"
#include "poller.h"

#include <sys/epoll.h>
#include <sys/wait.h>

/* A pollee that counts its callbacks. */
typedef struct counter {
    nl_pollee    pollee;
    int          fd[2];
    atomic_uint  events, timers, sweeps, released, last;
    atomic_uint  sweeps_wanted;
    atomic_bool  elsewhere;         /* a callback came from another thread than the poller's */
} counter;

static counter *of(nl_pollee *p)
{
    counter *c = NL_ITEM(p, counter, pollee);

    if (!nl_poller_is_me())
        atomic_store(&c->elsewhere, true);
    return c;
}

static void event(nl_pollee *p, uint32_t events)
{
    atomic_store(&of(p)->last, events);
    atomic_fetch_add(&of(p)->events, 1);
}

static void timer(nl_pollee *p)     { atomic_fetch_add(&of(p)->timers, 1); }
static bool sweep(nl_pollee *p)
{
    return atomic_fetch_add(&of(p)->sweeps, 1) + 1 < atomic_load(&of(p)->sweeps_wanted);
}
static void released(nl_pollee *p)  { atomic_fetch_add(&of(p)->released, 1); }

static const nl_pollee_ops ops = { event, timer, sweep, released };

static void counter_init(counter *c)
{
    memset(c, 0, sizeof *c);
    c->pollee.ops = &ops;
    sockets_unix(c->fd);
    c->pollee.fd = c->fd[0];
    must_be(nl_poller_add(&c->pollee), NL_OK);
}

static void counter_fini(counter *c)
{
    nl_poller_del(&c->pollee);
    close(c->fd[0]);
    close(c->fd[1]);
    wait_until(atomic_load(&c->released) == 1);
    must(!atomic_load(&c->elsewhere) && !nl_poller_is_me());
}

static void test_watching_is_one_shot(void **state)
{
    counter c;

    (void)state;
    counter_init(&c);
    must_be(nl_poller_watch(&c.pollee, EPOLLIN), NL_OK);
    peer_write(c.fd[1], "x", 1);
    wait_until(atomic_load(&c.events) == 1);
    must(atomic_load(&c.last) & EPOLLIN);
    nl_poller_timer(&c.pollee, in_ms(5));       /* a round of the poller later ... */
    wait_until(atomic_load(&c.timers) == 1);
    must(atomic_load(&c.events) == 1);          /* ... there was no second event, although the byte is still there */
    must_be(nl_poller_watch(&c.pollee, EPOLLIN | EPOLLOUT), NL_OK);
    wait_until(atomic_load(&c.events) == 2);
    must((atomic_load(&c.last) & (EPOLLIN | EPOLLOUT)) == (EPOLLIN | EPOLLOUT));
    counter_fini(&c);
}

static void test_timers_in_order_and_cancelled(void **state)
{
    counter c[3];
    int64_t start = nl_now_ns();

    (void)state;
    for (int i = 0; i < 3; i++)
        counter_init(&c[i]);
    nl_poller_timer(&c[0].pollee, start + 40000000);
    nl_poller_timer(&c[1].pollee, start + 20000000);
    nl_poller_timer(&c[2].pollee, start + 30000000);
    nl_poller_timer(&c[2].pollee, NL_FOREVER);
    wait_until(atomic_load(&c[1].timers) == 1);
    must(nl_now_ns() - start >= 20000000);
    wait_until(atomic_load(&c[0].timers) == 1);
    must(nl_now_ns() - start >= 40000000);
    must(atomic_load(&c[2].timers) == 0 && atomic_load(&c[1].timers) == 1);
    nl_poller_timer(&c[2].pollee, in_ms(600000));       /* replaced by an earlier one */
    nl_poller_timer(&c[2].pollee, in_ms(1));
    wait_until(atomic_load(&c[2].timers) == 1);
    for (int i = 0; i < 3; i++)
        counter_fini(&c[i]);
}

static void test_sweep_until_it_says_no(void **state)
{
    counter c;

    (void)state;
    counter_init(&c);
    atomic_store(&c.sweeps_wanted, 5);
    nl_poller_sweep(&c.pollee);
    nl_poller_sweep(&c.pollee);                 /* twice is once */
    wait_until(atomic_load(&c.sweeps) >= 5);
    nl_poller_timer(&c.pollee, in_ms(3 * (int64_t)(NL_SWEEP_NS / 1000000)));
    wait_until(atomic_load(&c.timers) == 1);
    must(atomic_load(&c.sweeps) == 5);
    counter_fini(&c);
}

/* Nothing but `released` comes after del, whatever was due. */
static void test_nothing_after_del(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        counter c;
        unsigned events, timers, sweeps;

        counter_init(&c);
        atomic_store(&c.sweeps_wanted, UINT32_MAX);
        must_be(nl_poller_watch(&c.pollee, EPOLLIN), NL_OK);
        nl_poller_sweep(&c.pollee);
        nl_poller_timer(&c.pollee, nl_now_ns() + i * 1000);
        peer_write(c.fd[1], "x", 1);
        nl_poller_del(&c.pollee);
        nl_poller_del(&c.pollee);               /* twice is harmless */
        nl_poller_sweep(&c.pollee);
        nl_poller_timer(&c.pollee, nl_now_ns());
        must_be(nl_poller_watch(&c.pollee, EPOLLIN), NL_ESYS);
        wait_until(atomic_load(&c.released) == 1);
        events = atomic_load(&c.events);
        timers = atomic_load(&c.timers);
        sweeps = atomic_load(&c.sweeps);
        nl_shutdown();                          /* joined: nothing can be under way */
        must(events == atomic_load(&c.events) && timers == atomic_load(&c.timers) && sweeps == atomic_load(&c.sweeps));
        must(atomic_load(&c.released) == 1);
        close(c.fd[0]);
        close(c.fd[1]);
    }
}

/* A process with nothing under way sleeps: the thread makes no rounds. */
static void test_idle_is_idle(void **state)
{
    counter c;
    uint64_t before;

    (void)state;
    counter_init(&c);
    atomic_store(&c.sweeps_wanted, 1);
    nl_poller_sweep(&c.pollee);
    wait_until(atomic_load(&c.sweeps) == 1);
    nl_poller_timer(&c.pollee, in_ms(60));
    before = nl_poller_wakeups();
    wait_until(atomic_load(&c.timers) == 1);
    /* Told of the timer, the timer, one spare: not one per sweep interval. */
    must(nl_poller_wakeups() - before <= 3);
    counter_fini(&c);
}

static void test_starts_again_after_shutdown(void **state)
{
    size_t threads = kit_threads(), descriptors = kit_descriptors();
    counter c;

    (void)state;
    for (int i = 0; i < 3; i++) {
        counter_init(&c);
        must(kit_threads() == threads + 1);
        counter_fini(&c);
        nl_shutdown();
        nl_shutdown();
        wait_until(kit_threads() == threads);
        must(kit_descriptors() == descriptors);
    }
}

/* A link that outlives the thread keeps no memory behind: whoever lets go of it gets the poller's reference back. */
static void test_del_after_shutdown(void **state)
{
    counter c;

    (void)state;
    counter_init(&c);
    nl_shutdown();
    must_be(nl_poller_watch(&c.pollee, EPOLLIN), NL_ESYS);
    nl_poller_timer(&c.pollee, nl_now_ns());
    nl_poller_sweep(&c.pollee);
    nl_poller_del(&c.pollee);
    must(atomic_load(&c.released) == 1);
    nl_poller_del(&c.pollee);
    must(atomic_load(&c.released) == 1 && !atomic_load(&c.timers) && !atomic_load(&c.sweeps));
    close(c.fd[0]);
    close(c.fd[1]);
}

/* S58: a child has no thread, no descriptors of it, and another generation; it may start one of its own. */
static void child(void *arg)
{
    counter *c = arg, mine;

    must(nl_fork_generation() == 1);
    must_be(nl_poller_watch(&c->pollee, EPOLLIN), NL_ESYS);
    counter_init(&mine);
    must_be(nl_poller_watch(&mine.pollee, EPOLLIN), NL_OK);
    peer_write(mine.fd[1], "x", 1);
    wait_until(atomic_load(&mine.events) == 1);
    counter_fini(&mine);
    nl_shutdown();
}

/* S58 */
static void test_fork(void **state)
{
    counter c;

    (void)state;
    counter_init(&c);
    must_be(nl_poller_watch(&c.pollee, EPOLLIN), NL_OK);
    must(!fails(child, &c));
    must(nl_fork_generation() == 0 && atomic_load(&c.events) == 0);
    peer_write(c.fd[1], "x", 1);
    wait_until(atomic_load(&c.events) == 1);    /* the parent's watch is as it was */
    counter_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_watching_is_one_shot), TEST(test_timers_in_order_and_cancelled), TEST(test_sweep_until_it_says_no),
        TEST(test_nothing_after_del), TEST(test_idle_is_idle), TEST(test_starts_again_after_shutdown),
        TEST(test_del_after_shutdown), TEST(test_fork),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
