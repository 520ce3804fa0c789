/* class Listener:                                   # made by neolink.listen()
 *     """A listening socket. Context manager; iterating yields links whose handshake succeeded."""
 *     def __init__(self, address: tuple[int, Any], *, backlog=128, tls=None, wire="auto", version=None, routing=None,
 *                  accept="queue", keepalive=None, handshake_timeout=10.0, limits=None) -> None: ...
 *     address: Any;  closed: bool
 *     def fileno(self) -> int: ...
 *     def accept(self, timeout=None) -> NodeLink: ...
 *     def close(self) -> None: ...
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The core shakes hands in the background, many at once; accept takes what is ready. A handshake that failed arrives
 * here as an event of its own: it is logged, and accept goes on with the same deadline. Of each reason one
 * line a second, so that a flood of strangers is none of lines.
 */
#include "py_wait.h"

#include "throttle.h"

#include <stdio.h>
#include <string.h>
#include <structmember.h>

typedef struct nlpy_listener {
    PyObject_HEAD
    nl_listener *listener;  /* owned */
    PyObject    *weakrefs;
    nl_limits    limits;    /* what its links have */
    nl_throttle  throttle;  /* of what is logged; the object's critical section guards it */
    atomic_bool  closed;
} nlpy_listener;

static nlpy_where here(nlpy_state *state, const char *op)
{
    return (nlpy_where){.state = state, .op = op, .conn_id = -1};
}

static void Listener_dealloc(nlpy_listener *self)
{
    PyTypeObject *type = Py_TYPE(self);

    nlpy_clear_weakrefs((PyObject *)self, &self->weakrefs);
    nl_listener_rele(self->listener);
    type->tp_free(self);
    Py_DECREF(type);
}

static int listener_open(nlpy_listener *self, nlpy_state *state, PyObject *pair, const nl_listen_config *config)
{
    struct sockaddr_storage address;
    socklen_t len;
    nl_fault why = {0};

    if (nlpy_sockaddr(pair, &address, &len) < 0)
        return -1;
    self->limits = config->link.limits;
    nl_err err = nl_listener_new((struct sockaddr *)&address, len, config, &self->listener, &why);
    if (err == NL_OK)
        return 0;
    nlpy_where where = here(state, "listen");
    nlpy_raise_why(&where, err, &why, NULL);
    return -1;
}

static PyObject *Listener_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "backlog", "tls", "wire", "version", "routing", "accept", "keepalive",
                            "handshake_timeout", "limits", NULL};
    nlpy_state *state = PyType_GetModuleState(type);
    PyObject *pair, *handshake_timeout = NULL;
    nlpy_options options = {0};
    nl_listen_config config;

    nl_listen_config_default(&config);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$iOOOOOOOO:Listener", names, &PyTuple_Type, &pair,
                                     &config.backlog, &options.tls, &options.wire, &options.version, &options.routing,
                                     &options.accept, &options.keepalive, &handshake_timeout, &options.limits))
        return NULL;
    if (config.backlog < 1)
        return PyErr_Format(PyExc_ValueError, "backlog must be 1 or more, not %d", config.backlog);
    if (handshake_timeout && nlpy_duration(handshake_timeout, "handshake_timeout", &config.handshake_ns) < 0)
        return NULL;
    if (nlpy_link_config(state, &options, &config.link) < 0)
        return NULL;
    nlpy_listener *self = (nlpy_listener *)type->tp_alloc(type, 0);
    if (self && listener_open(self, state, pair, &config) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* logging.getLogger("neolink"). Imported when there is something to log: few programs ever need it. New reference. */
static PyObject *get_logger(void)
{
    PyObject *logging = PyImport_ImportModule("logging");
    PyObject *logger = logging ? PyObject_CallMethod(logging, "getLogger", "s", "neolink") : NULL;

    Py_XDECREF(logging);
    return logger;
}

/* What the listener says of a peer, without whom, and without how many others failed: the same for each of a kind. */
static void bare_reason(const nl_fault *why, char *text, size_t size)
{
    const char *reason = strstr(why->text, ": ");
    snprintf(text, size, "%s", reason ? reason + 2 : why->text);
    char *count = why->others ? strstr(text, " (and ") : NULL;
    if (count)
        *count = 0;
}

/* Whether this failure shall be told. */
static bool pass(nlpy_listener *self, const char *reason, uint64_t *others)
{
    bool passed;

    Py_BEGIN_CRITICAL_SECTION(self);
    passed = nl_throttle_pass(&self->throttle, reason, nl_now_ns(), others);
    Py_END_CRITICAL_SECTION();
    return passed;
}

/* A peer that failed its handshake: one line in the log, unless there is one of its kind already. 0, or -1 when logging
 * raised. */
static int log_failed(nlpy_listener *self, const nl_fault *why, const nl_hs_report *report,
                      const struct sockaddr_storage *peer, socklen_t peer_len)
{
    char reason[sizeof why->text], more[48] = "";
    uint64_t others = why->others;

    bare_reason(why, reason, sizeof reason);
    if (!pass(self, reason, &others))
        return 0;
    if (others)
        snprintf(more, sizeof more, "; and %llu more failed", (unsigned long long)others);
    PyObject *who = nlpy_address_text((const struct sockaddr *)peer, peer_len);
    PyObject *logger = who ? get_logger() : NULL, *done = NULL;

    if (logger)
        done = PyObject_CallMethod(logger, "warning", "sOssss",
                                   "peer %s failed its handshake: it speaks %s, this end speaks %s (%s%s)", who,
                                   report->theirs[0] ? report->theirs : "nothing",
                                   report->ours[0] ? report->ours : "any wire", reason, more);
    Py_XDECREF(who);
    Py_XDECREF(logger);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* The next link, or NL_EINTR with an exception set, or why there is none. */
static nl_err take(nlpy_listener *self, int64_t deadline, nl_link **link)
{
    nl_err err;

    do {
        struct sockaddr_storage peer = {0};
        socklen_t peer_len = sizeof peer;
        nl_hs_report report = {0};
        nl_fault why = {0};

        NLPY_TRY_THEN_WAIT(err, true, deadline, false,
                           nl_listener_accept(self->listener, at, link, &why, &report, &peer, &peer_len));
        if (err == NL_EHANDSHAKE && log_failed(self, &why, &report, &peer, peer_len) < 0)
            return NL_EINTR;
    } while (err == NL_EHANDSHAKE);
    return err;
}

PyDoc_STRVAR(Listener_accept_doc, "accept($self, /, timeout=None)\n--\n\n"
                                  "The next link whose handshake succeeded. LinkClosed once the listener is closed.");

static PyObject *Listener_accept(nlpy_listener *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nlpy_state *state = PyType_GetModuleState(Py_TYPE(self));
    nl_link *link = NULL;
    int64_t deadline;

    if (nlpy_timeout("accept", args, nargs, kwnames, &deadline) < 0)
        return NULL;
    nl_err err = take(self, deadline, &link);
    if (err == NL_OK)
        return nlpy_link_wrap(state, link, &self->limits);
    nlpy_where where = here(state, "accept");
    return nlpy_raise(&where, err);
}

static PyObject *Listener_next(nlpy_listener *self)
{
    nlpy_state *state = PyType_GetModuleState(Py_TYPE(self));
    nl_link *link = NULL;

    nl_err err = take(self, NL_FOREVER, &link);
    if (err == NL_OK)
        return nlpy_link_wrap(state, link, &self->limits);
    if (err == NL_ELINKCLOSED)
        return NULL;
    nlpy_where where = here(state, "accept");
    return nlpy_raise(&where, err);
}

PyDoc_STRVAR(Listener_close_doc, "close($self, /)\n--\n\n"
                                 "Stop listening: accept wakes with LinkClosed, handshakes under way are cut.");

static PyObject *Listener_close(nlpy_listener *self, PyObject *Py_UNUSED(unused))
{
    self->closed = true;
    nl_listener_close(self->listener);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Listener_fileno_doc, "fileno($self, /)\n--\n\nThe socket's descriptor, -1 once closed.");

static PyObject *Listener_fileno(nlpy_listener *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(self->closed ? -1 : nl_listener_fd(self->listener));
}

static PyObject *Listener_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(self);
}

static PyObject *Listener_exit(nlpy_listener *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return Listener_close(self, NULL);
}

static PyObject *Listener_get_address(nlpy_listener *self, void *Py_UNUSED(closure))
{
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(self->listener, &len);

    return nlpy_address(address, len);
}

static PyObject *Listener_get_closed(nlpy_listener *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *Listener_repr(nlpy_listener *self)
{
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(self->listener, &len);
    PyObject *where = nlpy_address_text(address, len), *text = NULL;

    if (where)
        text = PyUnicode_FromFormat("<neolink.Listener %U %s>", where, self->closed ? "closed" : "open");
    Py_XDECREF(where);
    return text;
}

static PyMethodDef Listener_methods[] = {
    {"accept", (PyCFunction)(void (*)(void))Listener_accept, METH_FASTCALL | METH_KEYWORDS, Listener_accept_doc},
    {"close", (PyCFunction)Listener_close, METH_NOARGS, Listener_close_doc},
    {"fileno", (PyCFunction)Listener_fileno, METH_NOARGS, Listener_fileno_doc},
    {"__enter__", Listener_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Listener_exit, METH_FASTCALL, NULL},
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Listener_getset[] = {
    {"address", (getter)Listener_get_address, NULL, "Where it listens: the port is the one it got.", NULL},
    {"closed", (getter)Listener_get_closed, NULL, "close() was called.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Listener_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(nlpy_listener, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Listener_doc, "Listener(address, *, backlog=128, tls=None, wire='auto', version=None, routing=None,\n"
                           "         accept='queue', keepalive=None, handshake_timeout=10.0, limits=None)\n--\n\n"
                           "A listening socket and the handshakes on it: made by neolink.listen().");

static PyType_Slot Listener_slots[] = {
    {Py_tp_doc, (void *)Listener_doc},
    {Py_tp_new, Listener_new},
    {Py_tp_dealloc, Listener_dealloc},
    {Py_tp_repr, Listener_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Listener_next},
    {Py_tp_methods, Listener_methods},
    {Py_tp_getset, Listener_getset},
    {Py_tp_members, Listener_members},
    {0, NULL},
};

static PyType_Spec Listener_spec = {
    .name = "neolink.Listener",
    .basicsize = sizeof(nlpy_listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Listener_slots,
};

int nlpy_listener_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->listener_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Listener_spec, NULL);
    return state->listener_type ? PyModule_AddType(module, state->listener_type) : -1;
}
