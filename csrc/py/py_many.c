/* NodeLink._ask_many(packets, timeout=None) -> list[Packet | Error]
 * NodeLink._notify_many(packets, timeout=None) -> None
 *     The Packets of a sequence, sent together. Messages are made into Packets and back by neolink._typed.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The core reads payloads while it sends; they are the Packets' own bytes, which do not change and stay in memory as
 * long as the list does. The list is a copy: nobody else can shrink it meanwhile.
 */
#include "py_link.h"

/* The packets as the core wants them. On success *list (new reference) keeps the payloads; PyMem_Free(*outs). */
static int gather(nlpy_link *self, PyObject *packets, PyObject **list, nl_out **outs)
{
    *list = PySequence_Tuple(packets);
    if (!*list)
        return -1;
    Py_ssize_t n = PyTuple_GET_SIZE(*list);
    *outs = PyMem_New(nl_out, (size_t)n + 1);
    if (!*outs) {
        PyErr_NoMemory();
        goto fail;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        nlpy_packet *packet = (nlpy_packet *)PyTuple_GET_ITEM(*list, i);
        if (!Py_IS_TYPE((PyObject *)packet, self->state->packet_type)) {
            PyErr_Format(PyExc_TypeError, "item %zd must be a neolink.Packet, not %.100s", i,
                         Py_TYPE(packet)->tp_name);
            goto fail;
        }
        (*outs)[i] = (nl_out){.payload = packet->payload, .len = packet->len, .code = packet->code};
    }
    return 0;
fail:
    PyMem_Free(*outs);
    Py_CLEAR(*list);
    return -1;
}

static const nlpy_signature ask_many_sig = {"_ask_many", {"packets", "timeout", NULL}, 1, 2, NULL};

const char nlpy_link_ask_many_doc[] = "_ask_many($self, /, packets, timeout=None)\n--\n\n"
                                      "Ask them all, pipelined; the answers in their order, an Error where none came.";

/* One item of the result: takes the answer, or makes the error that stands for it. */
static PyObject *outcome(nlpy_link *self, nl_packet *answer, nl_err err, bool maybe_sent, size_t len)
{
    nlpy_where where = {.state = self->state, .link = self, .op = "ask_many", .conn_id = -1, .len = len, .sends = true,
                        .maybe_sent = maybe_sent};
    nl_fault fault;

    if (answer)
        return nlpy_packet_wrap(self->state, answer, nl_link_wire(self->link));
    bool has_story = (err == NL_ELINKDOWN || err == NL_EPROTO) && nl_link_fault(self->link, &fault);
    return nlpy_error(&where, err, has_story ? &fault : NULL, NULL);
}

/* Asks and waits. NL_EINTR: an exception is set. *batch is NULL when nothing was begun. */
static nl_err ask_all(nlpy_link *self, const nl_out *outs, nl_packet **answers, size_t n, int64_t deadline,
                      nl_ask_many **batch)
{
    size_t failed_at;
    nl_err err;

    NLPY_WAIT(err, nl_ask_many_begin(self->link, outs, answers, n, batch));
    if (err != NL_OK) {
        *batch = NULL;
        return err;
    }
    NLPY_WAIT(err, nl_ask_many_wait(*batch, deadline, &failed_at));
    return err;
}

PyObject *nlpy_link_ask_many(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX], *list, *result = NULL;
    nl_ask_many *batch = NULL;
    int64_t deadline;
    nl_out *outs;

    if (nlpy_args(&ask_many_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0 ||
        !nlpy_link_is_ready(self) || gather(self, arg[0], &list, &outs) < 0)
        return NULL;
    size_t n = (size_t)PyTuple_GET_SIZE(list), sent = 0;
    nl_packet **answers = PyMem_Calloc(n + 1, sizeof *answers);
    if (!answers) {
        PyErr_NoMemory();
        goto out;
    }
    nl_err err = n ? ask_all(self, outs, answers, n, deadline, &batch) : NL_OK;
    if (err != NL_EINTR && err != NL_ENOMEM)
        result = PyList_New((Py_ssize_t)n);
    else if (err == NL_ENOMEM)
        PyErr_NoMemory();
    for (; batch && sent < n && nl_ask_many_maybe_sent(batch, sent); sent++)
        ;
    nl_ask_many_end(batch);         /* from here on nobody brings answers */
    for (size_t i = 0; result && i < n; i++) {
        PyObject *item = outcome(self, answers[i], err, i < sent, outs[i].len);
        answers[i] = NULL;
        if (!item)
            Py_CLEAR(result);
        else
            PyList_SET_ITEM(result, (Py_ssize_t)i, item);
    }
    for (size_t i = 0; i < n; i++)
        nl_packet_free(answers[i]);
    PyMem_Free(answers);
out:
    PyMem_Free(outs);
    Py_DECREF(list);
    return result;
}

static const nlpy_signature notify_many_sig = {"_notify_many", {"packets", "timeout", NULL}, 1, 2, NULL};

const char nlpy_link_notify_many_doc[] = "_notify_many($self, /, packets, timeout=None)\n--\n\n"
                                         "Send them all, gathered; blocks only for the link's transmit budget.";

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
    PyObject *arg[NLPY_ARGS_MAX], *list;
    int64_t deadline;
    nl_out *outs;
    nl_err err = NL_OK;

    if (nlpy_args(&notify_many_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0 ||
        !nlpy_link_is_ready(self) || gather(self, arg[0], &list, &outs) < 0)
        return NULL;
    rest r = {.link = self->link, .next = outs, .n = (size_t)PyTuple_GET_SIZE(list)};
    if (r.n)
        NLPY_WAIT(err, notify_rest(&r, deadline));
    size_t len = r.n ? r.next->len : 0;
    PyMem_Free(outs);
    Py_DECREF(list);
    if (err == NL_OK)
        Py_RETURN_NONE;
    nlpy_where where = {.state = self->state, .link = self, .op = "notify_many", .conn_id = -1, .len = len,
                        .sends = true, .maybe_sent = r.begun};
    return nlpy_raise(&where, err);
}
