/* def _trace_start(events: int) -> None: ...
 * def _trace_stop() -> int: ...
 * def _trace_read(wait: bool) -> list[tuple[str, int, int, int, int, int, int]]: ...
 *     The process-wide ring of events, for neolink.Trace: (kind, time_ns, link, conn_id, code, len, lost).
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "py_wait.h"

#define READ_MAX 256

static PyObject *trace_start(PyObject *Py_UNUSED(module), PyObject *arg)
{
    size_t events = PyLong_AsSize_t(arg);

    if (PyErr_Occurred())
        return NULL;
    switch (nl_trace_start(events)) {
    case NL_OK:
        Py_RETURN_NONE;
    case NL_ENOMEM:
        return PyErr_NoMemory();
    default:
        PyErr_SetString(PyExc_RuntimeError, "a trace is running already: there is one at a time in a process");
        return NULL;
    }
}

static PyObject *trace_stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromUnsignedLongLong(nl_trace_stop());
}

static PyObject *event_tuple(const nl_trace_event *event)
{
    static const char *const kinds[] = {"connect", "accept", "send", "recv", "close"};

    return Py_BuildValue("sLKIHnK", kinds[event->kind], (long long)event->time_ns, (unsigned long long)event->link,
                         (unsigned)event->conn_id, event->code, (Py_ssize_t)event->len,
                         (unsigned long long)event->lost);
}

/* With `wait` blocks for at least one event: the empty list says that the trace was stopped, and all of it read. */
static PyObject *trace_read(PyObject *Py_UNUSED(module), PyObject *arg)
{
    nl_trace_event events[READ_MAX];
    int wait = PyObject_IsTrue(arg);
    size_t n = 0;
    nl_err err;

    if (wait < 0)
        return NULL;
    NLPY_WAIT(err, nl_trace_read(events, READ_MAX, wait ? NL_FOREVER : NL_NOW, &n));
    if (err == NL_EINTR)
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && err == NL_OK && i < n; i++) {
        PyObject *tuple = event_tuple(&events[i]);
        if (!tuple || PyList_Append(list, tuple) < 0)
            Py_CLEAR(list);
        Py_XDECREF(tuple);
    }
    return list;
}

PyMethodDef nlpy_trace_methods[] = {
    {"_trace_start", trace_start, METH_O, "_trace_start($module, events, /)\n--\n\n"},
    {"_trace_stop", trace_stop, METH_NOARGS, "_trace_stop($module, /)\n--\n\n"},
    {"_trace_read", trace_read, METH_O, "_trace_read($module, wait, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};
