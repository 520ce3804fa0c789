/* class Dialer:                                     # internal: neolink.dial() and the asyncio face use it
 *     """A dial of one address."""
 *     def __init__(self, address: tuple[int, Any], *, tls=None, wire="auto", version=None, routing=None,
 *                  accept="queue", keepalive=None, limits=None) -> None: ...               # address: (family, socket
 *                  address)
 *     def wait(self, timeout=None) -> NodeLink: ...                        # connects and shakes hands
 *     def cancel(self) -> None: ...                                        # wait raises LinkClosed
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A wait that is interrupted by a signal goes on where it was. One thread at a time may wait, as the core wants it. The
 * core's dialer is freed with the object, which a call of wait keeps alive: so nobody can be inside then.
 */
#include "py_wait.h"

typedef struct nlpy_dialer {
    PyObject_HEAD
    nl_dialer  *dialer;     /* owned */
    nl_limits   limits;     /* what its link will have */
    atomic_bool waiting;    /* a thread is in wait() */
} nlpy_dialer;

static void Dialer_dealloc(nlpy_dialer *self)
{
    PyTypeObject *type = Py_TYPE(self);

    nl_dialer_free(self->dialer);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Dialer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "tls", "wire", "version", "routing", "accept", "keepalive", "limits", NULL};
    nlpy_state *state = PyType_GetModuleState(type);
    struct sockaddr_storage address;
    nlpy_options options = {0};
    nl_dial_config config;
    PyObject *pair;
    socklen_t len;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$OOOOOOO:Dialer", names, &PyTuple_Type, &pair, &options.tls,
                                     &options.wire, &options.version, &options.routing, &options.accept,
                                     &options.keepalive, &options.limits))
        return NULL;
    nl_dial_config_default(&config);
    if (nlpy_sockaddr(pair, &address, &len) < 0 || nlpy_link_config(state, &options, &config.link) < 0)
        return NULL;
    nlpy_dialer *self = (nlpy_dialer *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->limits = config.link.limits;
    nl_err err = nl_dialer_new((struct sockaddr *)&address, len, &config, &self->dialer);
    if (err == NL_OK)
        return (PyObject *)self;
    Py_DECREF(self);
    nlpy_where where = {.state = state, .op = "dial", .conn_id = -1};
    return nlpy_raise(&where, err);
}

PyDoc_STRVAR(Dialer_wait_doc, "wait($self, /, timeout=None)\n--\n\n"
                              "The link. OSError: not reached; HandshakeError; Timeout: wait again to go on.");

static PyObject *Dialer_wait(nlpy_dialer *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nlpy_state *state = PyType_GetModuleState(Py_TYPE(self));
    nl_hs_report report = {0};
    nl_link *link = NULL;
    nl_fault why = {0};
    int64_t deadline;
    nl_err err;

    if (nlpy_timeout("wait", args, nargs, kwnames, &deadline) < 0)
        return NULL;
    if (atomic_exchange(&self->waiting, true)) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is in wait() of this Dialer");
        return NULL;
    }
    NLPY_WAIT(err, nl_dialer_wait(self->dialer, deadline, &link, &why, &report));
    self->waiting = false;
    if (err == NL_OK)
        return nlpy_link_wrap(state, link, &self->limits);
    nlpy_where where = {.state = state, .op = "dial", .conn_id = -1};
    return nlpy_raise_why(&where, err, &why, &report);
}

PyDoc_STRVAR(Dialer_cancel_doc, "cancel($self, /)\n--\n\nEnd the dial, from any thread: wait() raises LinkClosed.");

static PyObject *Dialer_cancel(nlpy_dialer *self, PyObject *Py_UNUSED(unused))
{
    nl_dialer_cancel(self->dialer);
    Py_RETURN_NONE;
}

static PyMethodDef Dialer_methods[] = {
    {"wait", (PyCFunction)(void (*)(void))Dialer_wait, METH_FASTCALL | METH_KEYWORDS, Dialer_wait_doc},
    {"cancel", (PyCFunction)Dialer_cancel, METH_NOARGS, Dialer_cancel_doc},
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Dialer_doc, "Dialer(address, *, tls=None, wire='auto', version=None, routing=None, accept='queue',\n"
                         "       keepalive=None, limits=None)\n--\n\nA dial of one (family, address) under way.");

static PyType_Slot Dialer_slots[] = {
    {Py_tp_doc, (void *)Dialer_doc},
    {Py_tp_new, Dialer_new},
    {Py_tp_dealloc, Dialer_dealloc},
    {Py_tp_methods, Dialer_methods},
    {0, NULL},
};

static PyType_Spec Dialer_spec = {
    .name = "neolink._core.Dialer",
    .basicsize = sizeof(nlpy_dialer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Dialer_slots,
};

int nlpy_dialer_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->dialer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Dialer_spec, NULL);
    return state->dialer_type ? PyModule_AddType(module, state->dialer_type) : -1;
}
