/* Arguments by hand: methods on the hot path take theirs as a C array, without a tuple and a dict in between.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "module.h"

static int place_of(const nlpy_signature *sig, PyObject *keyword)
{
    for (int i = 0; i < NLPY_ARGS_MAX && sig->names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(keyword, sig->names[i]) == 0)
            return i;
    if (sig->alias && PyUnicode_CompareWithASCIIString(keyword, sig->alias) == 0)
        return 0;
    return -1;
}

int nlpy_args(const nlpy_signature *sig, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out)
{
    if (nargs > sig->n_positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional arguments, not %zd", sig->function,
                     sig->n_positional, nargs);
        return -1;
    }
    for (int i = 0; i < NLPY_ARGS_MAX; i++)
        out[i] = i < nargs ? args[i] : NULL;
    Py_ssize_t n_keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t k = 0; k < n_keywords; k++) {
        PyObject *keyword = PyTuple_GET_ITEM(kwnames, k);
        int place = place_of(sig, keyword);
        if (place < 0) {
            PyErr_Format(PyExc_TypeError, "%s() has no argument %R", sig->function, keyword);
            return -1;
        }
        if (out[place]) {
            PyErr_Format(PyExc_TypeError, "%s() got its argument %R twice", sig->function, keyword);
            return -1;
        }
        out[place] = args[nargs + k];
    }
    for (int i = 0; i < sig->n_required; i++) {
        if (!out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() needs its argument '%s'", sig->function, sig->names[i]);
            return -1;
        }
    }
    return 0;
}

int nlpy_code(PyObject *value, uint16_t *code)
{
    int overflow;

    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "code must be an int, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    if (number == -1 && !overflow && PyErr_Occurred())
        return -1;
    if (overflow || number < 0 || number > 0xffff) {
        PyErr_Format(PyExc_ValueError, "code must be in 0..0xffff, not %S", value);
        return -1;
    }
    *code = (uint16_t)number;
    return 0;
}

int nlpy_out_get(nlpy_out *out, PyObject *code, PyObject *payload)
{
    out->view.obj = NULL;
    out->payload = "";
    out->len = 0;
    if (nlpy_code(code, &out->code) < 0)
        return -1;
    if (!payload)
        return 0;
    if (PyBytes_CheckExact(payload)) {          /* cannot move and cannot change: no view needed */
        out->payload = PyBytes_AS_STRING(payload);
        out->len = (size_t)PyBytes_GET_SIZE(payload);
        return 0;
    }
    if (!PyObject_CheckBuffer(payload)) {
        PyErr_Format(PyExc_TypeError, "payload must be bytes or another contiguous buffer, not %.100s",
                     Py_TYPE(payload)->tp_name);
        return -1;
    }
    if (PyObject_GetBuffer(payload, &out->view, PyBUF_SIMPLE) < 0) {
        out->view.obj = NULL;
        return -1;
    }
    out->payload = out->view.buf;
    out->len = (size_t)out->view.len;
    return 0;
}

void nlpy_out_of_packet(nlpy_out *out, nlpy_packet *packet)
{
    out->view.obj = NULL;
    out->code = packet->code;
    out->payload = packet->payload;
    out->len = packet->len;
}

void nlpy_out_release(nlpy_out *out)
{
    if (out->view.obj)
        PyBuffer_Release(&out->view);
}

int nlpy_out_parse(nlpy_state *state, nlpy_out *out, PyObject *first, PyObject *payload)
{
    if (PyLong_Check(first))
        return nlpy_out_get(out, first, payload) < 0 ? -1 : 1;
    if (payload) {
        PyErr_Format(PyExc_TypeError, "code must be an int when a payload is given, not %.100s",
                     Py_TYPE(first)->tp_name);
        return -1;
    }
    if (!Py_IS_TYPE(first, state->packet_type))
        return 0;
    nlpy_out_of_packet(out, (nlpy_packet *)first);
    return 1;
}

PyObject *nlpy_typed_call(nlpy_state *state, nlpy_typed function, PyObject *self, PyObject *message, PyObject *timeout)
{
    PyObject *args[] = {self, message, timeout ? timeout : Py_None};
    PyObject *typed = state->typed[function];

    if (!typed) {
        PyErr_SetString(PyExc_RuntimeError, "typed messages need the whole package: import neolink");
        return NULL;
    }
    return PyObject_Vectorcall(typed, args, message ? 3 : 1, NULL);
}

PyObject *nlpy_no_pickle(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyErr_Format(PyExc_TypeError, "cannot pickle '%.100s': it lives in this process only",
                        Py_TYPE(self)->tp_name);
}
