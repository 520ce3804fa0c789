/* Timeouts as Python gives them, made into the core's deadlines.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "py_wait.h"

#include <math.h>

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

    if (!timeout) {                         /* most calls */
        *deadline_ns = NL_FOREVER;
        return 0;
    }
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

    if (nargs == 0 && !kwnames)
        return nlpy_deadline(NULL, deadline_ns);
    return nlpy_args(&sig, args, nargs, kwnames, arg) < 0 ? -1 : nlpy_deadline(arg[0], deadline_ns);
}
