/* Trace: a process-wide ring of what happened on links.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Off, an event costs one load and one branch (nl_trace in link.h). On, it is copied into the ring under a mutex that
 * is a leaf: the core never waits for the reader and never calls it. A full ring drops the newest events and counts
 * them; the next event tells how many, or nl_trace_stop() does of those that no event followed. What was recorded
 * before the stop is still read after it: the ring goes when it is empty, or for the next trace.
 */
#include "link.h"

atomic_bool nl_trace_on;

#define BY_MU NL_GUARDED_BY(nl_trace_mu)

static struct {
    pthread_mutex_t mu;
    nl_trace_event *ring BY_MU;     /* after the stop until it is read */
    size_t   cap BY_MU;
    uint64_t first BY_MU, next BY_MU;   /* event n is ring[n % cap] */
    uint64_t lost BY_MU;
    atomic_uint news;               /* futex: changes with every event and at the end */
} trace = { .mu = PTHREAD_MUTEX_INITIALIZER };

void nl_trace_lock(void) NL_UNCHECKED       { pthread_mutex_lock(&trace.mu); }
void nl_trace_unlock(void) NL_UNCHECKED     { pthread_mutex_unlock(&trace.mu); }

/* It changes under the lock only. */
static bool is_on_locked(void) NL_REQUIRES(nl_trace_mu)
{
    return atomic_load_explicit(&nl_trace_on, memory_order_relaxed);
}

nl_err nl_trace_start(size_t events)
{
    nl_trace_event *ring;
    nl_err e = NL_OK;

    nl_trace_lock();
    if (is_on_locked() || !events) {
        e = NL_EINVAL;
    } else if (!(ring = sys_calloc(events, sizeof *ring))) {
        e = NL_ENOMEM;
    } else {
        sys_free(trace.ring);           /* of a trace before, which nobody read to its end */
        trace.ring = ring;
        trace.cap = events;
        trace.first = trace.next = trace.lost = 0;
        atomic_store(&nl_trace_on, true);
    }
    nl_trace_unlock();
    return e;
}

static void free_if_read_locked(void) NL_REQUIRES(nl_trace_mu)
{
    if (!is_on_locked() && trace.first == trace.next) {
        sys_free(trace.ring);
        trace.ring = NULL;
    }
}

uint64_t nl_trace_stop(void)
{
    uint64_t lost;

    nl_trace_lock();
    atomic_store(&nl_trace_on, false);
    lost = trace.lost;
    trace.lost = 0;
    free_if_read_locked();
    atomic_fetch_add(&trace.news, 1);
    nl_trace_unlock();
    sys_futex_wake(&trace.news, INT32_MAX);
    return lost;
}

void nl_trace_add(const nl_link *link, nl_trace_kind kind, uint32_t id, uint16_t code, size_t len)
{
    nl_trace_lock();
    if (is_on_locked() && trace.next - trace.first < trace.cap) {
        trace.ring[trace.next++ % trace.cap] = (nl_trace_event){
            .time_ns = sys_now_ns(), .link = link->serial, .lost = trace.lost, .len = len, .conn_id = id, .code = code,
            .kind = kind,
        };
        trace.lost = 0;
        atomic_fetch_add(&trace.news, 1);
        sys_futex_wake(&trace.news, INT32_MAX);
    } else if (is_on_locked()) {
        trace.lost++;
    }
    nl_trace_unlock();
}

nl_err nl_trace_read(nl_trace_event *out, size_t max, int64_t deadline_ns, size_t *n)
{
    int r = 0;

    for (*n = 0; *n == 0;) {
        unsigned seen = atomic_load(&trace.news);
        bool on;

        nl_trace_lock();
        on = is_on_locked();
        while (*n < max && trace.first < trace.next)
            out[(*n)++] = trace.ring[trace.first++ % trace.cap];
        free_if_read_locked();
        nl_trace_unlock();
        if (*n)
            return NL_OK;
        if (!on)
            return NL_ELINKCLOSED;
        if (r || deadline_ns == NL_NOW)
            return r == EINTR ? NL_EINTR : NL_ETIMEOUT;
        r = sys_futex_wait(&trace.news, seen, deadline_ns);
    }
    return NL_OK;
}
