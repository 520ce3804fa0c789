/* The one translator: what the core returned, as the exception a Python user should see.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The classes live in neolink/errors.py. An exception made here says in its text what was attempted, where, what came
 * in the way and what to do; it carries .link, .conn_id and .op, and the OSError behind it as its cause.
 */
#include "module.h"

#include <string.h>

static const char *const exc_names[EXC_COUNT] = {
    [EXC_LINK_CLOSED] = "LinkClosed",     [EXC_LINK_DOWN] = "LinkDown",         [EXC_PROTOCOL] = "ProtocolError",
    [EXC_HANDSHAKE] = "HandshakeError",   [EXC_CONN_CLOSED] = "ConnClosed",     [EXC_NOT_ACCEPTING] = "NotAccepting",
    [EXC_TIMEOUT] = "Timeout",            [EXC_TOO_BIG] = "TooBig",             [EXC_TOO_MANY] = "TooManyConns",
    [EXC_FORKED] = "ForkedLink",          [EXC_DECODE] = "DecodeError",         [EXC_ENCODE] = "EncodeError",
};

int nlpy_err_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);
    PyObject *errors = PyImport_ImportModule("neolink.errors");

    if (!errors)
        return -1;
    for (int i = 0; i < EXC_COUNT; i++) {
        state->exceptions[i] = PyObject_GetAttrString(errors, exc_names[i]);
        if (!state->exceptions[i]) {
            Py_DECREF(errors);
            return -1;
        }
    }
    Py_DECREF(errors);
    return 0;
}

/* Borrowed. */
static PyObject *class_of(const nlpy_state *state, nl_err err)
{
    switch (err) {
    case NL_ETIMEOUT:       return state->exceptions[EXC_TIMEOUT];
    case NL_ELINKCLOSED:
    case NL_ECANCELLED:     return state->exceptions[EXC_LINK_CLOSED];
    case NL_ELINKDOWN:      return state->exceptions[EXC_LINK_DOWN];
    case NL_EPROTO:         return state->exceptions[EXC_PROTOCOL];
    case NL_ECONNCLOSED:    return state->exceptions[EXC_CONN_CLOSED];
    case NL_ENOTACCEPTING:  return state->exceptions[EXC_NOT_ACCEPTING];
    case NL_ETOOBIG:        return state->exceptions[EXC_TOO_BIG];
    case NL_ETOOMANY:       return state->exceptions[EXC_TOO_MANY];
    case NL_EENCODE:        return state->exceptions[EXC_ENCODE];
    case NL_EFORKED:        return state->exceptions[EXC_FORKED];
    case NL_EHANDSHAKE:     return state->exceptions[EXC_HANDSHAKE];
    case NL_EINVAL:         return PyExc_ValueError;
    case NL_ENOMEM:         return PyExc_MemoryError;
    case NL_ESYS:           return PyExc_OSError;
    case NL_OK:
    case NL_EINTR:
    case NL_ERR_COUNT:      break;
    }
    return PyExc_SystemError;
}

/* What came in the way, where the core has no story of its own. */
static PyObject *reason_of(const nlpy_where *where, nl_err err)
{
    switch (err) {
    case NL_ETIMEOUT:
        return PyUnicode_FromFormat("timed out%s", !where->sends      ? ""
                                                   : where->maybe_sent ? "; the packet may have been sent"
                                                                       : "; the packet was not sent");
    case NL_ELINKCLOSED:
        return PyUnicode_FromString("closed by this side");
    case NL_ECANCELLED:
        return PyUnicode_FromString("cancelled");
    case NL_ECONNCLOSED:
        return PyUnicode_FromString("the Conn was closed by this side");
    case NL_ENOTACCEPTING:
        return PyUnicode_FromString("this end accepts no Conns: close_accept() was called, or the link was made with "
                                    "accept=\"refuse\" or \"ignore\"");
    case NL_ETOOBIG:
        if (!where->sends)
            return PyUnicode_FromString("the peer sent more than Limits.conn_rx_bytes of unread packets on this Conn; "
                                        "read faster, raise the limit, or use rx_policy=\"hold\"");
        return PyUnicode_FromFormat("a payload of %zu bytes is larger than Limits.packet_bytes allows; send less at a "
                                    "time, or raise the limit at both ends", where->len);
    case NL_ETOOMANY:
        return PyUnicode_FromString("as many Conns are open as Limits.conns allows, or no id is free; close some");
    case NL_EENCODE:
        return PyUnicode_FromString("on wire M a payload must be exactly one msgpack array, or empty");
    case NL_EFORKED:
        return PyUnicode_FromString("it belongs to the parent process; make a new link in the child");
    case NL_EINVAL:
        return PyUnicode_FromString("not possible on this link: send_packet and recv_packet are for links made with "
                                    "raw=True, everything else is for the others");
    default:
        return PyUnicode_FromString(nl_err_name(err));
    }
}

/* "recv on Conn 3 of 127.0.0.1:4000 -> 127.0.0.1:24210: timed out" */
static PyObject *text_of(const nlpy_where *where, nl_err err, const nl_fault *why)
{
    PyObject *text = NULL, *reason;

    if (why && why->text[0])
        reason = PyUnicode_DecodeUTF8(why->text, (Py_ssize_t)strlen(why->text), "replace");
    else
        reason = reason_of(where, err);
    PyObject *link = reason && where->link ? nlpy_link_text(where->link) : NULL;
    if (!reason || (where->link && !link))
        goto out;
    if (!link)
        text = PyUnicode_FromFormat("%s: %U", where->op, reason);
    else if (!where->op)
        text = PyUnicode_FromFormat("link %U: %U", link, reason);
    else if (where->conn_id < 0)
        text = PyUnicode_FromFormat("%s on link %U: %U", where->op, link, reason);
    else
        text = PyUnicode_FromFormat("%s on Conn %lld of link %U: %U", where->op, (long long)where->conn_id, link,
                                    reason);
out:
    Py_XDECREF(link);
    Py_XDECREF(reason);
    return text;
}

/* Sets an attribute and drops the value; a NULL value is an exception already set. */
static int set_attr(PyObject *error, const char *name, PyObject *value)
{
    int rc = value ? PyObject_SetAttrString(error, name, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static int set_attrs(PyObject *error, const nlpy_where *where, nl_err err, const nl_fault *why,
                     const nl_hs_report *report)
{
    if (where->link && set_attr(error, "link", Py_NewRef((PyObject *)where->link)) < 0)
        return -1;
    if (where->conn_id >= 0 && set_attr(error, "conn_id", PyLong_FromLongLong(where->conn_id)) < 0)
        return -1;
    if (where->op && set_attr(error, "op", PyUnicode_FromString(where->op)) < 0)
        return -1;
    if (err == NL_ETIMEOUT && set_attr(error, "maybe_sent", PyBool_FromLong(where->maybe_sent)) < 0)
        return -1;
    if (err == NL_ELINKDOWN && why && why->clean && set_attr(error, "clean", Py_NewRef(Py_True)) < 0)
        return -1;
    if (err == NL_EHANDSHAKE && report) {
        if (set_attr(error, "ours", PyUnicode_DecodeUTF8(report->ours, (Py_ssize_t)strlen(report->ours), "replace")) ||
            set_attr(error, "theirs",
                     PyUnicode_DecodeUTF8(report->theirs, (Py_ssize_t)strlen(report->theirs), "replace")))
            return -1;
    }
    if (why && why->sys_errno) {
        PyObject *cause = PyObject_CallFunction(PyExc_OSError, "is", why->sys_errno, strerror(why->sys_errno));
        if (!cause)
            return -1;
        PyException_SetCause(error, cause);
    }
    return 0;
}

PyObject *nlpy_error(const nlpy_where *where, nl_err err, const nl_fault *why, const nl_hs_report *report)
{
    PyObject *text = text_of(where, err, why), *error = NULL;

    if (!text)
        return NULL;
    if (err == NL_ESYS && why)
        error = PyObject_CallFunction(PyExc_OSError, "iO", why->sys_errno, text);
    else
        error = PyObject_CallOneArg(class_of(where->state, err), text);
    Py_DECREF(text);
    bool is_ours = err != NL_ESYS && err != NL_ENOMEM && err != NL_EINVAL;
    if (error && is_ours && set_attrs(error, where, err, why, report) < 0)
        Py_CLEAR(error);
    return error;
}

PyObject *nlpy_raise_why(const nlpy_where *where, nl_err err, const nl_fault *why, const nl_hs_report *report)
{
    if (err == NL_EINTR)
        return NULL;                            /* the signal's handler has raised */
    if (err == NL_ENOMEM)
        return PyErr_NoMemory();
    PyObject *error = nlpy_error(where, err, why, report);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

PyObject *nlpy_raise(const nlpy_where *where, nl_err err)
{
    nl_fault fault;
    bool is_fault = (err == NL_ELINKDOWN || err == NL_EPROTO) && where->link;
    bool has_story = is_fault && nl_link_fault(where->link->link, &fault);

    return nlpy_raise_why(where, err, has_story ? &fault : NULL, NULL);
}

bool nlpy_is_clean_end(nl_link *link, nl_err err)
{
    nl_fault fault;

    if (err == NL_ELINKCLOSED || err == NL_ECONNCLOSED)
        return true;
    return err == NL_ELINKDOWN && nl_link_fault(link, &fault) && fault.clean;
}
