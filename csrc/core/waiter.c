/* Waiters: how a thread that waits for something on a link sleeps, and how it is woken.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * How a sleeper is woken
 *   Its futex word is set under the lock, but FUTEX_WAKE waits until the lock is let go of: a thread that is woken
 *   while the lock is held runs into it and sleeps again, which costs more than the wake-up did. So a post puts the
 *   waiter on link.posted, and nl_link_unlock(), the only way to let go of the lock, takes the addresses of the words
 *   with it. None is lost: the word is 1 before the lock is free, and the kernel compares it before it puts anybody to
 *   sleep. By the time of the call the waiter may have seen the word, returned, and its stack may be something else's
 *   or gone. That is harmless: only the kernel looks at the address, and it takes that of a private futex for a key,
 *   not for memory. The worst is a wake-up for another futex that has come to live there, and whoever sleeps on a
 *   futex, here and in the C library, looks again at what he waits for.
 *
 * One after the other
 *   Threads that all need a lock of their caller's next, Python's GIL, gain nothing by waking together on several
 *   processors: one gets it, and the others sleep again, each for the price of a switch. On a link that was told so
 *   (in_turn) only one that was called is on its way at a time, and calls the next when it lets go of the link's lock:
 *   before it wants that of its caller. It needs a processor to come that far, and nothing else, so whoever is left on
 *   link.posted has somebody on the way who will call it. A thread that gets the read token is called at once.
 */
#include "link.h"

#define WAKES_MAX 128   /* of one hold of the lock */

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

void nl_waiters_unlock(nl_link *link) NL_RELEASE(nl_link_mu) NL_UNCHECKED
{
    atomic_uint *words[WAKES_MAX];
    size_t n = 0;

    while (n < WAKES_MAX && !nl_list_empty(&link->posted)) {        /* one of those called wakes who is beyond */
        nl_waiter *w = NL_ITEM(link->posted.next, nl_waiter, posted);
        if (link->in_turn && link->called && !w->leader) {
            link->stats.wakes_left++;
            break;
        }
        nl_list_del(&w->posted);
        link->called += !w->called;
        w->called = true;
        words[n++] = &w->word;
    }
    pthread_mutex_unlock(&link->mu);
    for (size_t i = 0; i < n; i++)
        HAND_ON(unlock_wake, sys_futex_wake(words[i], 1));
}

int nl_waiter_sleep_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns)
{
    int r;

    if (deadline_ns <= NL_NOW)
        return ETIMEDOUT;
    w->asleep = true;
    nl_link_unlock(link);
    r = sys_futex_wait(&w->word, 0, deadline_ns);
    nl_link_lock(link);
    nl_list_del(&w->posted);
    w->asleep = false;
    atomic_store_explicit(&w->word, 0, memory_order_relaxed);
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
