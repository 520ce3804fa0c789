/* Timeouts as Python gives them, made into the core's deadlines.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "py_wait.h"

#include <math.h>
#include <stdatomic.h>

/* Longer than this is for ever: about 146 years, and far from the end of int64_t whatever the clock reads. */
#define FOREVER_SECONDS 4611686018.0

int nlpy_duration(PyObject *seconds, const char *name, int64_t *ns)
{
    double value;

    if (!seconds || seconds == Py_None) {
        *ns = NL_FOREVER;
        return 0;
    }
    if (PyFloat_Check(seconds)) {
        value = PyFloat_AS_DOUBLE(seconds);
    } else if (PyLong_Check(seconds)) {
        int overflow;
        long long whole = PyLong_AsLongLongAndOverflow(seconds, &overflow);
        if (whole == -1 && !overflow && PyErr_Occurred())
            return -1;
        value = overflow > 0 ? INFINITY : overflow < 0 ? -INFINITY : (double)whole;
    } else {
        PyErr_Format(PyExc_TypeError, "%s must be seconds as int or float, or None for ever, not %.100s", name,
                     Py_TYPE(seconds)->tp_name);
        return -1;
    }
    if (isnan(value) || value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be 0 (poll) or more seconds, or None for ever, not %R", name, seconds);
        return -1;
    }
    *ns = value >= FOREVER_SECONDS ? NL_FOREVER : (int64_t)ceil(value * 1e9);
    return 0;
}

int nlpy_deadline(PyObject *timeout, int64_t *deadline_ns)
{
    int64_t ns;

    if (nlpy_duration(timeout, "timeout", &ns) < 0)
        return -1;
    if (ns == NL_FOREVER)
        *deadline_ns = NL_FOREVER;
    else
        *deadline_ns = ns == 0 ? NL_NOW : nl_now_ns() + ns;
    return 0;
}

int nlpy_timeout(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int64_t *deadline_ns)
{
    const nlpy_signature sig = {function, {"timeout", NULL}, 0, 1, NULL};
    PyObject *arg[NLPY_ARGS_MAX];

    return nlpy_args(&sig, args, nargs, kwnames, arg) < 0 ? -1 : nlpy_deadline(arg[0], deadline_ns);
}

/* ---- trying for the GIL ----------------------------------------------------------------------------------------- */

#ifndef Py_GIL_DISABLED

#define GIL_BACKOFF_MAX 7u          /* a try in vain costs what two switches do */
#define GIL_LOOKS       16          /* between two looks at the clock */

/* Of the whole process, and guesses: a value that is lost in a race costs a try. */
static atomic_bool gil_is_ours;     /* a thread came out of a wait, took the GIL, and is not known to have left it */
static atomic_uint gil_skip, gil_backoff;

void nlpy_gil_left(void)
{
    atomic_store_explicit(&gil_is_ours, false, memory_order_release);
}

/* Leaves the processor's other half to others for a moment. */
static inline void relax(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static bool gil_claim(void)
{
    return !atomic_load_explicit(&gil_is_ours, memory_order_relaxed) &&
           !atomic_exchange_explicit(&gil_is_ours, true, memory_order_acquire);
}

void nlpy_gil_turn(int64_t try_ns)
{
    unsigned backoff = atomic_load_explicit(&gil_backoff, memory_order_relaxed);
    unsigned skip = atomic_load_explicit(&gil_skip, memory_order_relaxed);
    int64_t end;

    if (gil_claim() || try_ns <= 0)
        return;
    if (skip) {
        atomic_store_explicit(&gil_skip, skip - 1, memory_order_relaxed);
        return;
    }
    end = nl_now_ns() + try_ns;
    do {
        for (int i = 0; i < GIL_LOOKS; i++) {
            relax();
            if (gil_claim()) {
                atomic_store_explicit(&gil_backoff, backoff / 2, memory_order_relaxed);
                return;
            }
        }
    } while (nl_now_ns() < end);
    backoff = backoff * 2 + 1 < GIL_BACKOFF_MAX ? backoff * 2 + 1 : GIL_BACKOFF_MAX;
    atomic_store_explicit(&gil_backoff, backoff, memory_order_relaxed);
    atomic_store_explicit(&gil_skip, backoff, memory_order_relaxed);
    nlpy_gil_left();                /* for all we know: the next one need not try for the same thread */
}

#endif
