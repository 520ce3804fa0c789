/* The background thread: epoll, timers, the sweep, and letting go. See poller.h for the contract.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One round of the thread: sleep in epoll_wait until an event, the next timer or the next sweep; make the callbacks of
 * the events; then the sweep, if it is due; then the timers; then hand back the references of those deleted meanwhile.
 * Since references go back only at the end of a round, an event fetched before nl_poller_del() meets memory that is
 * still there, and the owner, who looks at its own state under its own lock, does nothing. Without a thread (after
 * nl_shutdown()) nl_poller_del() hands it back itself.
 *
 * Other threads change the lists under poller.mu and write to the eventfd only when the thread sleeps longer than they
 * need (`sleep_until`). The thread blocks all signals: they are for threads that can act on them.
 */
#include "poller.h"

#include "buf.h"
#include "hand_on.h"
#include "sys.h"

#include <signal.h>

#define EVENTS 64

static struct {
    pthread_mutex_t mu;             /* a leaf */
    bool      running NL_POLLER, stop NL_POLLER;
    int       ep, wake;             /* [const] while running */
    pthread_t thread NL_POLLER;
    nl_pollee *timers NL_POLLER;        /* unsorted: handshakes, retries, corked links */
    nl_pollee *sweeps NL_POLLER;
    nl_pollee *retired NL_POLLER;       /* deleted, reference not yet given back */
    int64_t   sleep_until NL_POLLER;    /* when the thread comes round by itself; 0 when it is awake */
    int64_t   next_sweep NL_POLLER;
    int64_t   sweep_ns NL_POLLER;       /* from one sweep to the next */
    atomic_uint_fast64_t wakeups;
    atomic_uint generation;
    bool      atfork NL_POLLER;
} poller = { .mu = PTHREAD_MUTEX_INITIALIZER, .ep = -1, .wake = -1 };

static _Thread_local bool on_poller_thread;

static void poller_lock(void) NL_ACQUIRE(nl_poller_mu) NL_UNCHECKED     { pthread_mutex_lock(&poller.mu); }
static void poller_unlock(void) NL_RELEASE(nl_poller_mu) NL_UNCHECKED   { pthread_mutex_unlock(&poller.mu); }

bool nl_poller_is_me(void)                  { return on_poller_thread; }
unsigned nl_fork_generation(void)           { return atomic_load_explicit(&poller.generation, memory_order_relaxed); }
uint64_t nl_poller_wakeups(void)            { return atomic_load_explicit(&poller.wakeups, memory_order_relaxed); }

/* ---- lists ------------------------------------------------------------------------------------------------------ */

static void timer_unlink_locked(nl_pollee *p) NL_REQUIRES(nl_poller_mu)
{
    if (p->timer_prevp) {
        if ((*p->timer_prevp = p->timer_next))
            p->timer_next->timer_prevp = p->timer_prevp;
        p->timer_prevp = NULL;
    }
    p->timer_ns = NL_FOREVER;
}

static void sweep_unlink_locked(nl_pollee *p) NL_REQUIRES(nl_poller_mu)
{
    if (p->sweep_prevp) {
        if ((*p->sweep_prevp = p->sweep_next))
            p->sweep_next->sweep_prevp = p->sweep_prevp;
        p->sweep_prevp = NULL;
    }
}

static void wake_locked(void) NL_REQUIRES(nl_poller_mu)
{
    if (poller.sleep_until && poller.wake >= 0) {
        poller.sleep_until = 0;
        HAND_ON(poller_wake, eventfd_write(poller.wake, 1));      /* a full counter wakes as well */
    }
}

static void wake_before_locked(int64_t at_ns) NL_REQUIRES(nl_poller_mu)
{
    if (poller.sleep_until > at_ns)
        wake_locked();
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

static int sleep_ms_locked(int64_t now) NL_REQUIRES(nl_poller_mu)
{
    int64_t until = poller.sweeps ? poller.next_sweep : NL_FOREVER;

    for (nl_pollee *p = poller.timers; p; p = p->timer_next)
        if (p->timer_ns < until)
            until = p->timer_ns;
    if (poller.retired || poller.stop)
        until = now;
    poller.sleep_until = until <= now ? 0 : until;
    if (until == NL_FOREVER)
        return -1;
    if (until <= now)
        return 0;
    until = (until - now + 999999) / 1000000;
    return until > 3600000 ? 3600000 : (int)until;
}

static void sweep_link_locked(nl_pollee *p) NL_REQUIRES(nl_poller_mu)
{
    p->sweep_prevp = &poller.sweeps;
    if ((p->sweep_next = poller.sweeps))
        p->sweep_next->sweep_prevp = &p->sweep_next;
    poller.sweeps = p;
}

static void sweep_again(nl_pollee *p)
{
    poller_lock();
    if (!p->sweep_prevp && !p->deleted)
        sweep_link_locked(p);
    poller_unlock();
}

static void run_sweep(int64_t now)
{
    nl_pollee *due = NULL, *p;
    bool swept = false, all_in_use = true;

    poller_lock();
    if (poller.sweeps && now >= poller.next_sweep) {
        swept = true;
        due = poller.sweeps;                    /* taken off whole: callbacks may sweep themselves in again */
        due->sweep_prevp = &due;
        poller.sweeps = NULL;
    }
    while ((p = due)) {
        sweep_unlink_locked(p);
        poller_unlock();
        if (p->ops->sweep(p))
            HAND_ON(sweep_again, sweep_again(p));
        else
            all_in_use = false;
        poller_lock();
    }
    if (swept) {
        poller.sweep_ns = !all_in_use                         ? NL_SWEEP_NS
                          : poller.sweep_ns < NL_SWEEP_MAX_NS ? poller.sweep_ns * 2
                                                              : NL_SWEEP_MAX_NS;
        poller.next_sweep = now + poller.sweep_ns;
    }
    poller_unlock();
}

static void run_timers(int64_t now)
{
    nl_pollee *p;

    poller_lock();
    for (p = poller.timers; p;) {
        if (p->timer_ns > now) {
            p = p->timer_next;
            continue;
        }
        timer_unlink_locked(p);
        poller_unlock();
        p->ops->timer(p);
        poller_lock();
        p = poller.timers;                      /* the list may have changed: from the start */
    }
    poller_unlock();
}

static nl_pollee *take_retired_locked(void) NL_REQUIRES(nl_poller_mu)
{
    nl_pollee *list = poller.retired;

    poller.retired = NULL;
    return list;
}

static void release(nl_pollee *list)
{
    while (list) {
        nl_pollee *p = list;
        list = p->retire_next;
        p->ops->released(p);
    }
}

static void release_retired(void)
{
    nl_pollee *list;

    poller_lock();
    list = take_retired_locked();
    poller_unlock();
    release(list);
}

static void run_events(int n, struct epoll_event *ev)
{
    for (int i = 0; i < n; i++) {
        nl_pollee *p = ev[i].data.ptr;
        bool gone;

        if (!p) {
            eventfd_t ignored;
            eventfd_read(poller.wake, &ignored);
            continue;
        }
        poller_lock();
        gone = p->deleted;
        poller_unlock();
        if (!gone)
            p->ops->event(p, ev[i].events);
    }
}

static void *run(void *arg)
{
    struct epoll_event ev[EVENTS];

    (void)arg;
    on_poller_thread = true;
    pthread_setname_np(pthread_self(), NL_POLLER_NAME);
    for (;;) {
        int ms, n;

        poller_lock();
        if (poller.stop && !poller.retired) {
            poller_unlock();
            return NULL;
        }
        ms = sleep_ms_locked(sys_now_ns());
        poller_unlock();
        n = sys_epoll_wait(poller.ep, ev, EVENTS, ms);
        atomic_fetch_add_explicit(&poller.wakeups, 1, memory_order_relaxed);
        poller_lock();
        poller.sleep_until = 0;
        poller_unlock();
        run_events(n, ev);
        run_sweep(sys_now_ns());
        run_timers(sys_now_ns());
        release_retired();
    }
}

/* ---- start, stop, fork ------------------------------------------------------------------------------------------ */

/* In a forked child there is no thread, and the descriptors are shared with the parent: forget all of it. What the
 * parent's objects held is leaked on purpose; the child must not touch it. */
static void fork_child(void) NL_RELEASE(nl_poller_mu, nl_block_cache_mu, nl_trace_mu)
{
    if (poller.ep >= 0)
        close(poller.ep);
    if (poller.wake >= 0)
        close(poller.wake);
    poller.ep = poller.wake = -1;
    poller.running = poller.stop = false;
    poller.timers = poller.sweeps = poller.retired = NULL;
    poller.sleep_until = 0;
    atomic_fetch_add(&poller.generation, 1);
    nl_trace_unlock();
    nl_block_cache_unlock();
    poller_unlock();
}

/* The process-wide locks are held over the fork, so that the child finds them free and what they guard whole. */
static void fork_prepare(void) NL_ACQUIRE(nl_poller_mu, nl_block_cache_mu, nl_trace_mu)
{
    poller_lock();
    nl_block_cache_lock();
    nl_trace_lock();
}

static void fork_parent(void) NL_RELEASE(nl_poller_mu, nl_block_cache_mu, nl_trace_mu)
{
    nl_trace_unlock();
    nl_block_cache_unlock();
    poller_unlock();
}

static bool count_forks_locked(void) NL_REQUIRES(nl_poller_mu)
{
    if (!poller.atfork)
        poller.atfork = pthread_atfork(fork_prepare, fork_parent, fork_child) == 0;
    return poller.atfork;
}

/* From the start: a dialer, or a socket that is being taken over, may be older than the first link and its thread. */
__attribute__((constructor)) static void count_forks(void)
{
    poller_lock();
    count_forks_locked();               /* if not, start_locked tries again */
    poller_unlock();
}

static nl_err open_locked(void) NL_REQUIRES(nl_poller_mu)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };

    poller.ep = sys_epoll_create();
    poller.wake = poller.ep < 0 ? -1 : sys_eventfd();
    if (poller.wake >= 0 && sys_epoll_ctl(poller.ep, EPOLL_CTL_ADD, poller.wake, &ev) == 0)
        return NL_OK;
    return NL_ESYS;
}

static void close_locked(void) NL_REQUIRES(nl_poller_mu)
{
    int saved = errno;

    if (poller.ep >= 0)
        close(poller.ep);
    if (poller.wake >= 0)
        close(poller.wake);
    poller.ep = poller.wake = -1;
    errno = saved;
}

static nl_err start_locked(void) NL_REQUIRES(nl_poller_mu)
{
    sigset_t all, before;
    int e;

    if (poller.running)
        return NL_OK;
    if (!count_forks_locked())
        return NL_ENOMEM;
    if (open_locked() != NL_OK) {
        close_locked();
        return NL_ESYS;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e = sys_thread(&poller.thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) {
        close_locked();
        errno = e;
        return NL_ESYS;
    }
    poller.running = true;
    return NL_OK;
}

void nl_shutdown(void)
{
    nl_pollee *late;
    pthread_t thread;
    bool running;

    poller_lock();
    running = poller.running && !poller.stop && !on_poller_thread;
    poller.stop = poller.running;
    thread = poller.thread;
    poller.sleep_until = NL_FOREVER;
    wake_locked();
    poller_unlock();
    if (!running)
        return;
    pthread_join(thread, NULL);
    poller_lock();
    close_locked();
    poller.running = poller.stop = false;
    late = take_retired_locked();       /* deleted since the thread looked last */
    poller_unlock();
    release(late);
    nl_poller_settle();
}

/* ---- the contract ----------------------------------------------------------------------------------------------- */

nl_err nl_poller_add(nl_pollee *p)
{
    nl_err e;

    poller_lock();
    if ((e = start_locked()) == NL_OK) {
        p->added = true;
        p->in_epoll = p->deleted = false;
        p->timer_ns = NL_FOREVER;
        p->timer_prevp = p->sweep_prevp = NULL;
    }
    poller_unlock();
    return e;
}

nl_err nl_poller_watch(nl_pollee *p, uint32_t events)
{
    struct epoll_event ev = { .events = events | EPOLLONESHOT, .data.ptr = p };
    nl_err e = NL_ESYS;

    poller_lock();
    if (poller.running && !p->deleted &&
        sys_epoll_ctl(poller.ep, p->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, p->fd, &ev) == 0) {
        p->in_epoll = true;
        e = NL_OK;
    }
    poller_unlock();
    return e;
}

void nl_poller_timer(nl_pollee *p, int64_t at_ns)
{
    poller_lock();
    timer_unlink_locked(p);
    if (at_ns != NL_FOREVER && !p->deleted) {
        p->timer_ns = at_ns;
        p->timer_prevp = &poller.timers;
        if ((p->timer_next = poller.timers))
            p->timer_next->timer_prevp = &p->timer_next;
        poller.timers = p;
        HAND_ON(poller_timer_wake, wake_before_locked(at_ns));
    }
    poller_unlock();
}

void nl_poller_settle(void)
{
    bool running;

    poller_lock();
    running = poller.running;
    poller_unlock();
    if (!running)
        run_timers(NL_NOW);
}

void nl_poller_sweep(nl_pollee *p)
{
    poller_lock();
    if (!p->sweep_prevp && !p->deleted) {
        if (!poller.sweeps) {
            poller.sweep_ns = NL_SWEEP_NS;
            poller.next_sweep = sys_now_ns() + NL_SWEEP_NS;
        }
        sweep_link_locked(p);
        HAND_ON(poller_sweep_wake, wake_before_locked(poller.next_sweep));
    }
    poller_unlock();
}

void nl_poller_del(nl_pollee *p)
{
    struct epoll_event none = { 0 };
    nl_pollee *now = NULL;

    poller_lock();
    if (p->added && !p->deleted) {
        p->deleted = true;
        timer_unlink_locked(p);
        sweep_unlink_locked(p);
        if (p->in_epoll)
            epoll_ctl(poller.ep, EPOLL_CTL_DEL, p->fd, &none);      /* past the seam: nothing could be done about it */
        p->retire_next = poller.retired;
        poller.retired = p;
        HAND_ON(poller_del_wake, wake_locked());
        if (!poller.running)
            now = take_retired_locked();        /* after nl_shutdown(): there is no round whose end to wait for */
    }
    poller_unlock();
    release(now);
}
