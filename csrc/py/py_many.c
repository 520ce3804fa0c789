/* NodeLink._ask_many(requests, timeout, return_exceptions) -> list[Packet | Error] | None
 * NodeLink._notify_many(messages, timeout) -> bool
 *     The Packets of a tuple, sent together. If there is anything else in it nothing is done, which None and False say:
 *     neolink._typed makes messages into Packets and comes again. So Packets alone never meet a loop in Python.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The core reads payloads while it sends; they are the Packets' own bytes, which do not change and stay in memory as
 * long as the tuple does.
 */
#include "py_link.h"

/* The packets as the core wants them, to be given back by PyMem_Free. 1; 0: there is something else among them; -1: an
 * exception. */
static int gather(nlpy_link *self, PyObject *packets, nl_out **outs)
{
    if (!PyTuple_Check(packets)) {
        PyErr_Format(PyExc_TypeError, "a tuple is wanted, not %.100s", Py_TYPE(packets)->tp_name);
        return -1;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(packets);
    for (Py_ssize_t i = 0; i < n; i++)
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(packets, i), self->state->packet_type))
            return 0;
    if (!(*outs = PyMem_New(nl_out, (size_t)n + 1))) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        const nlpy_packet *packet = (const nlpy_packet *)PyTuple_GET_ITEM(packets, i);
        (*outs)[i] = (nl_out){.payload = packet->payload, .len = packet->len, .code = packet->code};
    }
    return 1;
}

static const nlpy_signature ask_many_sig = {"_ask_many", {"requests", "timeout", "return_exceptions", NULL}, 3, 3,
                                            NULL};

const char nlpy_link_ask_many_doc[] = "_ask_many($self, /, requests, timeout, return_exceptions)\n--\n\n"
                                      "Ask them all, pipelined: the answers in their order, and an Error where none\n"
                                      "came, or the first Error raised. None: not all of them are Packets.";

/* The error that stands for a request without an answer. */
static PyObject *failure(nlpy_link *self, nl_err err, bool maybe_sent, size_t len)
{
    nlpy_where where = {.state = self->state, .link = self, .op = "ask_many", .conn_id = -1, .len = len, .sends = true,
                        .maybe_sent = maybe_sent};
    nl_fault fault;
    bool has_story = (err == NL_ELINKDOWN || err == NL_EPROTO) && nl_link_fault(self->link, &fault);

    return nlpy_error(&where, err, has_story ? &fault : NULL, NULL);
}

/* The batch of one call. */
typedef struct many {
    nlpy_link  *link;
    nl_out     *outs;           /* n of each */
    nl_packet **answers;        /* those that came and are not taken yet */
    size_t      n, sent;        /* outs[.. sent) may have left */
    nl_err      err;            /* why some have no answer */
} many;

/* Asks and waits; when it returns, nobody brings answers any more. err NL_EINTR: an exception is set. */
static void ask_all(many *m, int64_t deadline)
{
    nl_ask_many *batch;
    size_t failed_at;

    if (!m->n || (m->err = nl_ask_many_begin(m->link->link, m->outs, m->answers, m->n, &batch)) != NL_OK)
        return;
    NLPY_WAIT(m->err, nl_ask_many_wait(batch, deadline, &failed_at));
    m->sent = nl_ask_many_sent(batch);
    nl_ask_many_end(batch);
}

/* The list of outcomes, or NULL with an exception. */
static PyObject *outcomes(many *m, bool return_exceptions)
{
    nlpy_state *state = m->link->state;
    nl_wire wire = nl_link_wire(m->link->link);
    PyObject *list;

    if (m->err == NL_EINTR)
        return NULL;
    if (m->err == NL_ENOMEM)
        return PyErr_NoMemory();
    list = PyList_New((Py_ssize_t)m->n);
    for (size_t i = 0; list && i < m->n; i++) {
        nl_packet *answer = m->answers[i];
        PyObject *item = answer ? nlpy_packet_wrap(state, answer, wire)
                                : failure(m->link, m->err, i < m->sent, m->outs[i].len);
        m->answers[i] = NULL;
        if (item && !answer && !return_exceptions) {
            PyErr_SetObject((PyObject *)Py_TYPE(item), item);
            Py_CLEAR(item);
        }
        if (!item)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

PyObject *nlpy_link_ask_many(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX], *result = NULL;
    many m = {.link = self, .err = NL_OK};
    int return_exceptions, raw;
    int64_t deadline;

    if (nlpy_args(&ask_many_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0 ||
        (return_exceptions = PyObject_IsTrue(arg[2])) < 0 || !nlpy_link_is_ready(self) ||
        (raw = gather(self, arg[0], &m.outs)) < 0)
        return NULL;
    if (raw == 0)
        Py_RETURN_NONE;
    m.n = (size_t)PyTuple_GET_SIZE(arg[0]);
    if ((m.answers = PyMem_Calloc(m.n + 1, sizeof *m.answers))) {
        ask_all(&m, deadline);
        result = outcomes(&m, return_exceptions);
        for (size_t i = 0; i < m.n; i++)
            nl_packet_free(m.answers[i]);
    } else {
        PyErr_NoMemory();
    }
    PyMem_Free(m.answers);
    PyMem_Free(m.outs);
    return result;
}

static const nlpy_signature notify_many_sig = {"_notify_many", {"messages", "timeout", NULL}, 2, 2, NULL};

const char nlpy_link_notify_many_doc[] = "_notify_many($self, /, messages, timeout)\n--\n\n"
                                         "Send them all, gathered; blocks only for the link's transmit budget.\n"
                                         "False: not all of them are Packets.";

/* The packets that are still to be queued. */
typedef struct rest {
    nl_link      *link;
    const nl_out *next;
    size_t        n;
    bool          begun;        /* some are queued */
} rest;

static nl_err notify_rest(rest *r, int64_t deadline)
{
    size_t done = 0;
    nl_err err = nl_link_notify_many(r->link, r->next, r->n, deadline, &done);

    r->next += done;
    r->n -= done;
    r->begun = r->begun || done;
    return err;
}

PyObject *nlpy_link_notify_many(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    int64_t deadline;
    nl_out *outs;
    nl_err err = NL_OK;
    int raw;

    if (nlpy_args(&notify_many_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0 ||
        !nlpy_link_is_ready(self) || (raw = gather(self, arg[0], &outs)) < 0)
        return NULL;
    if (raw == 0)
        Py_RETURN_FALSE;
    rest r = {.link = self->link, .next = outs, .n = (size_t)PyTuple_GET_SIZE(arg[0])};
    if (r.n)
        NLPY_WAIT(err, notify_rest(&r, deadline));
    size_t len = r.n ? r.next->len : 0;
    PyMem_Free(outs);
    if (err == NL_OK)
        Py_RETURN_TRUE;
    nlpy_where where = {.state = self->state, .link = self, .op = "notify_many", .conn_id = -1, .len = len,
                        .sends = true, .maybe_sent = r.begun};
    return nlpy_raise(&where, err);
}
