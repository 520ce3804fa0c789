/* Leaving Python around a wait: deadlines, signals, and the try that saves a switch of the GIL.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every blocking method has the same shape:
 *
 *     int64_t deadline_ns;
 *     if (nlpy_deadline(timeout, &deadline_ns) < 0) return NULL;
 *     NLPY_TRY_THEN_WAIT(err, true, deadline_ns, false, nl_conn_recv(self->conn, at, &packet));
 *     if (err != NL_OK) return nlpy_raise(&where, err);
 *
 * The deadline is absolute and computed once, so a storm of signals neither shortens nor stretches it.
 */
#ifndef NLPY_WAIT_H
#define NLPY_WAIT_H

#include "module.h"

/* Seconds as Python gives them: NULL and None are for ever, 0 polls, negative and NaN are ValueError, inf and what the
 * clock cannot hold are for ever, what is neither int nor float is TypeError. */
int nlpy_deadline(PyObject *timeout, int64_t *deadline_ns);
/* The same for a method that takes nothing but `timeout`, by place or by name. */
int nlpy_timeout(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                 int64_t *deadline_ns);
/* A length of time by the same rules, without a clock. */
int nlpy_duration(PyObject *seconds, const char *name, int64_t *ns);

/* Payloads up to this size are copied or written with the GIL held: giving it up and taking it back costs more than the
 * copy, and may cost a whole switch interval when other threads compute. Above it, others should run meanwhile. A
 * link with a smaller transmit budget has a smaller bound (nlpy_link.small), since a packet beyond the budget is
 * begun at once and only then waited for. */
#define NLPY_SMALL ((size_t)65536)

/* Evaluates `call` without the GIL. A signal is NL_EINTR: its Python handler runs here, and when it returns without
 * raising the same call is made again. Afterwards err == NL_EINTR says that a Python exception is set. */
#define NLPY_WAIT(err, call)                                                                                           \
    do {                                                                                                               \
        Py_BEGIN_ALLOW_THREADS                                                                                         \
        (err) = (call);                                                                                                \
        NLPY_END_ALLOW_THREADS                                                                                         \
    } while ((err) == NL_EINTR && PyErr_CheckSignals() == 0)

/* Evaluates `call`, which mentions its deadline as `at`: first, when try_first says so, with NL_NOW and the GIL held
 * (the core does not wait then), and when that was too early, with the real deadline and without the GIL. `begun` is
 * looked at in between: a packet that may have left is not sent twice. */
#define NLPY_TRY_THEN_WAIT(err, try_first, deadline, begun, call)                                                      \
    do {                                                                                                               \
        bool tried_ = (try_first);                                                                                     \
        int64_t at = NL_NOW;                                                                                           \
        (err) = tried_ ? (call) : NL_ETIMEOUT;                                                                         \
        if ((err) == NL_EINTR || ((err) == NL_ETIMEOUT && !(begun) && !(tried_ && (deadline) == NL_NOW))) {            \
            at = (deadline);                                                                                           \
            NLPY_WAIT(err, call);                                                                                      \
        }                                                                                                              \
    } while (0)

#endif
