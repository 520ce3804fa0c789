/* Asking by messages: the usual case of neolink._typed.link_ask, without its Python.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * _typed.askings has, by wire and class of message, what it takes to ask by one when the declared answer comes: two codes
 * and two functions, which encode and decode. They are learned by the first ask of a class. What is not learned, cannot
 * be encoded, is not the declared answer or cannot be decoded is left to _typed, which knows what to say about it.
 */
#include "module.h"

/* proto.coding.Asking, a named tuple */
enum { ASKING_CODE, ASKING_ENCODE, ASKING_ANSWER, ASKING_DECODE, ASKING_SIZE };

/* Answers up to this size are decoded from a copy, which costs less than a memoryview and the packet behind it. */
#define COPIED_BYTES ((size_t)4096)

/* Whether what went wrong is left to _typed, which does it again and says what. */
static bool is_for_typed(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))       /* Ctrl-C */
        return false;
    PyErr_Clear();
    return true;
}

int nlpy_asking_begin(const nlpy_link *link, PyObject *message, nlpy_asking *asking, nlpy_out *out)
{
    PyObject *by_class = link->state->askings[nl_link_wire(link->link)];
    PyObject *known = by_class ? PyDict_GetItemWithError(by_class, (PyObject *)Py_TYPE(message)) : NULL;

    if (!known)
        return PyErr_Occurred() ? -1 : 0;
    if (!PyTuple_Check(known) || PyTuple_GET_SIZE(known) != ASKING_SIZE)
        return 0;
    asking->known = Py_NewRef(known);   /* from here on Python runs, and may forget what it had learned */
    asking->message = message;
    asking->payload = PyObject_CallOneArg(PyTuple_GET_ITEM(known, ASKING_ENCODE), message);
    if (asking->payload && nlpy_out_get(out, PyTuple_GET_ITEM(known, ASKING_CODE), asking->payload) == 0)
        return 1;
    int status = !asking->payload && is_for_typed() ? 0 : -1;
    nlpy_asking_end(asking);
    return status;
}

void nlpy_asking_end(nlpy_asking *asking)
{
    Py_CLEAR(asking->payload);
    Py_CLEAR(asking->known);
}

static PyObject *decode(const nlpy_asking *asking, const nl_packet *answer)
{
    PyObject *payload = PyBytes_FromStringAndSize((const char *)answer->payload, (Py_ssize_t)answer->len), *message;

    if (!payload)
        return NULL;
    message = PyObject_CallOneArg(PyTuple_GET_ITEM(asking->known, ASKING_DECODE), payload);
    Py_DECREF(payload);
    return message;
}

PyObject *nlpy_asking_answer(nlpy_link *link, const nlpy_asking *asking, nl_packet *answer)
{
    long declared = PyLong_AsLong(PyTuple_GET_ITEM(asking->known, ASKING_ANSWER));
    PyObject *packet, *message;

    if (answer->code == declared && answer->len <= COPIED_BYTES) {
        if ((message = decode(asking, answer)) || !is_for_typed()) {
            nl_packet_free(answer);
            return message;
        }
    }
    if (!(packet = nlpy_packet_wrap(link->state, answer, nl_link_wire(link->link))))
        return NULL;
    message = nlpy_typed_call(link->state, TYPED_LINK_ANSWER, (PyObject *)link, asking->message, packet);
    Py_DECREF(packet);
    return message;
}
