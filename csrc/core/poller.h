/* The one background thread of the process: epoll, and what nobody else is doing.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pollee is anything with a descriptor that the poller may be asked to watch: a link, a listener, a handshake. It is
 * embedded in its owner, which gives it a table of functions. The poller holds one reference to the owner from
 * nl_poller_add() to the `released` call that follows nl_poller_del(), so a late event never meets freed memory.
 *
 * All functions may be called under the owner's lock (poller.mu is a leaf); the callbacks are made by the poller thread
 * with no lock held, one at a time; only `released` may come from nl_poller_del() itself, see there. An idle process
 * makes no wake-up: without a timer and without a sweep the thread sleeps in epoll_wait for ever. Watching is one-shot:
 * after an event nothing is watched until nl_poller_watch().
 */
#ifndef NL_POLLER_H
#define NL_POLLER_H

#include "guarded.h"
#include "neolink.h"

extern nl_lock_class nl_poller_mu;
#define NL_POLLER   NL_GUARDED_BY(nl_poller_mu)

typedef struct nl_pollee nl_pollee;

typedef struct nl_pollee_ops {
    void (*event)(nl_pollee *, uint32_t events);        /* EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP */
    void (*timer)(nl_pollee *);                         /* the deadline of nl_poller_timer() passed */
    bool (*sweep)(nl_pollee *);                         /* false: take me off the sweep list */
    void (*released)(nl_pollee *);                      /* after del: the poller's reference goes back; may free */
} nl_pollee_ops;

struct nl_pollee {
    const nl_pollee_ops *ops;       /* [const] */
    int       fd;                   /* [const] between add and del */
    /* below: private to the poller */
    bool      added NL_POLLER, in_epoll NL_POLLER, deleted NL_POLLER;
    int64_t   timer_ns NL_POLLER;   /* NL_FOREVER: none */
    nl_pollee *timer_next NL_POLLER, **timer_prevp NL_POLLER;
    nl_pollee *sweep_next NL_POLLER, **sweep_prevp NL_POLLER;
    nl_pollee *retire_next;         /* [poller's thread] once retired */
};

#define NL_POLLER_NAME  "neolink"           /* of the thread, in top -H and gdb */
#define NL_SWEEP_NS     INT64_C(2000000)    /* how long a link just read by a thread may stay unwatched ... */
#define NL_SWEEP_MAX_NS INT64_C(16000000)   /* ... and when the swept were all in use, again and again */

/* Starts the thread when it does not run. NL_ENOMEM, NL_ESYS. The caller gives the poller one reference. */
nl_err nl_poller_add(nl_pollee *p);
/* Watch for these events, once. NL_ESYS: epoll refused; then the owner must fail. */
nl_err nl_poller_watch(nl_pollee *p, uint32_t events);
/* Call `timer` at that time of the monotonic clock; replaces an earlier one; NL_FOREVER cancels. */
void   nl_poller_timer(nl_pollee *p, int64_t at_ns);
/* Where there is no thread, after nl_shutdown(): makes the calls of timers that were set to NL_NOW, which are how an owner
 * asks the thread to end something. The caller holds no lock. */
void   nl_poller_settle(void);
/* Call `sweep` after NL_SWEEP_NS, and again until it returns false; ever more seldom, up to NL_SWEEP_MAX_NS, as long as
 * all that are swept return true: a wake-up costs tens of microseconds, which would be felt by the traffic that it
 * looks after. */
void   nl_poller_sweep(nl_pollee *p);
/* Nothing is called any more but `released`, once: soon, by the thread, or before this returns, when there is none; so
 * the caller has a reference of its own. The owner closes the descriptor after this call. */
void   nl_poller_del(nl_pollee *p);
/* True on the poller's own thread. */
bool   nl_poller_is_me(void);
/* Bumped in each forked child: an object that remembers another number is a parent's. */
unsigned nl_fork_generation(void);
/* trace.c: its lock, held over a fork like the poller's own and the block cache's. */
extern nl_lock_class nl_trace_mu;
void nl_trace_lock(void) NL_ACQUIRE(nl_trace_mu);
void nl_trace_unlock(void) NL_RELEASE(nl_trace_mu);
/* Counters for tests: how often the thread woke up. */
uint64_t nl_poller_wakeups(void);

#endif
