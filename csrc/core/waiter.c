/* Waiters: how a thread that waits for something on a link sleeps, and how it is woken.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * How a sleeper is woken
 *   Its futex word is set under the lock, but FUTEX_WAKE waits until the lock is let go of: a thread that is woken
 *   while the lock is held runs into it and sleeps again, which costs more than the wake-up did. So a post puts the
 *   waiter on link.posted, and nl_link_unlock() and nl_link_unlock_and_leave(), the only ways to let go of the lock, take
 *   the addresses of the words with them. None is lost: the word is 1 before the lock is free, and the kernel compares
 *   it before it puts anybody to sleep. By the time of the call the waiter may have seen the word, returned, and its
 *   stack may be something else's or gone. That is harmless: only the kernel looks at the address, and it takes that of
 *   a private futex for a key, not for memory. The worst is a wake-up for another futex that has come to live there, and
 *   whoever sleeps on a futex, here and in the C library, looks again at what he waits for.
 *
 * In turn
 *   Threads that all need a lock of their caller's next, Python's GIL, gain nothing by coming together: one gets it, and
 *   the others sleep again, each for the price of a switch. On a link that was told so (in_turn) they come one after the
 *   other. Who leaves the link calls the next, when nobody is on the way: before it wants the lock of its caller. It
 *   needs a processor to come that far, and nothing else, so whoever is left on link.posted has somebody on the way who
 *   will call it. A thread that gets the read token is called at once.
 *
 * Ahead of their turn
 *   To wake a processor takes longer than all that a thread does in its turn, and one that finds nothing to do falls
 *   asleep again. So who is about to sleep calls a few ahead (link.ahead): they are there when their turn comes, and
 *   the processors stay awake. Not who leaves: the kernel often runs who is woken at once, in the place of the one whose
 *   turn it is.
 *     Who comes takes the turn, and keeps it while he is away with his caller's lock, until somebody lets go of the link's
 *   lock without leaving: he is back, then, with his next ask, say. Who comes meanwhile spins for it, but one at a time
 *   only, and not for long; another one lets others run, once, and goes on. It is a courtesy, not a lock: all that
 *   depends on it is time.
 *     How many may be ahead is learnt: one more for each NL_AHEAD_ONE who went to sleep when nobody waited for the turn,
 *   and one less for each who found somebody waiting. Who wants no tries (limits.spin_ns) has nobody ahead.
 */
#include "link.h"

#include <sched.h>

#define WAKES_MAX 128   /* of one hold of the lock */
#define TURN_NS   INT64_C(5000)         /* longest wait for it: twice what an ask takes from its answer to the next one */
#define LOOKS     16    /* between two looks at the clock */
#define AHEAD_MAX (6 * NL_AHEAD_ONE)

void nl_waiter_init(nl_waiter *w) NL_UNSHARED
{
    nl_list_init(&w->all);
    nl_list_init(&w->on);
    nl_list_init(&w->posted);
    w->ready = w->leader = w->asleep = w->coming = w->called = w->stays = false;
    w->wake_fd = -1;
    atomic_init(&w->word, 0);
}

/* A waiter takes the lock before its stack frame ends: so w is there. */
void nl_waiter_post_locked(nl_link *link, nl_waiter *w)
{
    atomic_store_explicit(&w->word, 1, memory_order_release);
    if (w->wake_fd >= 0) {
        HAND_ON(post_eventfd, eventfd_write(w->wake_fd, 1));
    } else if (w->asleep) {
        nl_list_del(&w->posted);
        HAND_ON(post_futex, nl_list_push(link->in_turn && w->leader ? link->posted.next : &link->posted, &w->posted));
        link->coming += !w->coming;
        w->coming = true;
    }
}

/* Lets go of the lock, and wakes those of link.posted who may be on their way now. */
static void unlock_and_call(nl_link *link, unsigned ahead, bool leaves) NL_RELEASE(nl_link_mu) NL_UNCHECKED
{
    atomic_uint *words[WAKES_MAX];
    size_t n = 0;

    while (n < WAKES_MAX && !nl_list_empty(&link->posted)) {        /* one of those called wakes who is beyond */
        nl_waiter *w = NL_ITEM(link->posted.next, nl_waiter, posted);
        if (link->in_turn && link->called >= ahead && !w->leader) {
            link->stats.wakes_left++;
            break;
        }
        nl_list_del(&w->posted);
        link->called += !w->called;
        w->called = true;
        words[n++] = &w->word;
    }
    if (!leaves && atomic_load_explicit(&link->turn, memory_order_relaxed))
        atomic_store_explicit(&link->turn, false, memory_order_relaxed);
    pthread_mutex_unlock(&link->mu);            /* from here on the link may be gone */
    for (size_t i = 0; i < n; i++)
        HAND_ON(unlock_wake, sys_futex_wake(words[i], 1));
}

void nl_waiters_unlock(nl_link *link, bool leaves)
{
    unlock_and_call(link, 1, leaves);
}

/* As above, of a thread that goes to sleep. */
static void unlock_to_sleep(nl_link *link) NL_RELEASE(nl_link_mu) NL_UNCHECKED
{
    if (link->in_turn && link->rx.spin_ns > 0 && link->ahead < AHEAD_MAX && !nl_list_empty(&link->posted) &&
                    !atomic_load_explicit(&link->turn_awaited, memory_order_relaxed))
        link->ahead++;
    unlock_and_call(link, link->ahead / NL_AHEAD_ONE, false);
}

typedef enum turn { TURN_WAS_FREE, TURN_WAS_TAKEN, TURN_IS_AWAITED } turn;

/* Takes the turn when it is free, or after TURN_NS in any case; unless somebody waits for it already. */
static turn take_turn(nl_link *link)
{
    int64_t end;

    if (!atomic_exchange_explicit(&link->turn, true, memory_order_relaxed))
        return TURN_WAS_FREE;
    if (atomic_exchange_explicit(&link->turn_awaited, true, memory_order_relaxed)) {
        sched_yield();
        return TURN_IS_AWAITED;
    }
    end = sys_now_ns() + (link->rx.spin_ns < TURN_NS ? link->rx.spin_ns : TURN_NS);
    do
        for (int i = 0; i < LOOKS && atomic_load_explicit(&link->turn, memory_order_relaxed); i++)
            sys_relax();
    while (atomic_exchange_explicit(&link->turn, true, memory_order_relaxed) && sys_now_ns() < end);
    atomic_store_explicit(&link->turn_awaited, false, memory_order_relaxed);
    return TURN_WAS_TAKEN;
}

int nl_waiter_sleep_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns)
{
    turn was = TURN_WAS_FREE;
    bool turns;
    int r;

    if (deadline_ns <= NL_NOW)
        return ETIMEDOUT;
    w->asleep = true;
    turns = link->ahead >= 2 * NL_AHEAD_ONE;
    unlock_to_sleep(link);
    r = sys_futex_wait(&w->word, 0, deadline_ns);
    if (turns && atomic_load_explicit(&w->word, memory_order_relaxed))
        was = take_turn(link);
    nl_link_lock(link);
    nl_list_del(&w->posted);
    w->asleep = false;
    atomic_store_explicit(&w->word, 0, memory_order_relaxed);
    link->stats.turn_waits += was == TURN_WAS_TAKEN;
    if (was == TURN_IS_AWAITED && link->ahead >= 2 * NL_AHEAD_ONE)
        link->ahead -= NL_AHEAD_ONE;
    if (w->called) {
        w->called = false;
        HAND_ON(waiter_came, link->called--);       /* the next is called when the lock is let go of */
    }
    if (w->coming) {
        w->coming = false;
        link->coming--;
        nl_tx_came_locked(link);
    }
    return r;
}

void nl_waiter_wake_locked(nl_link *link, nl_waiter *w)
{
    nl_list_del(&w->on);
    if (!w->ready) {
        w->ready = true;
        HAND_ON(waiter_wake, nl_waiter_post_locked(link, w));
    }
}

void nl_waiters_wake_locked(nl_link *link, nl_list *on)
{
    while (!nl_list_empty(on))
        nl_waiter_wake_locked(link, NL_ITEM(on->next, nl_waiter, on));
}
