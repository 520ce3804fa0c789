/* class Request:
 *     """A peer's opening packet, and the Conn to answer it on. Context manager; leaving it closes the Conn."""
 *     conn: Conn;  packet: Packet
 *     @property
 *     def message(self) -> Any: ...                                        # packet.message
 *     def reply(self, code, payload=b"", *, timeout=None) -> None: ...     # or reply(message, *, timeout=None)
 *     def close(self) -> None: ...
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pair of references with Conn's methods in reach; there is nothing in it to lock or to end.
 */
#include "module.h"

#include <structmember.h>

typedef struct nlpy_request {
    PyObject_HEAD
    PyObject *conn;         /* strong, a Conn */
    PyObject *packet;       /* strong, a Packet */
    nlpy_state *state;      /* borrowed: the type keeps the module */
} nlpy_request;

/* No tp_clear: conn and packet cannot be set from outside, so a cycle is broken elsewhere. */
static int Request_traverse(nlpy_request *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->conn);
    Py_VISIT(self->packet);
    return 0;
}

static void Request_dealloc(nlpy_request *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->conn);
    Py_XDECREF(self->packet);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *nlpy_request_wrap(nlpy_link *link, nl_conn *conn, nl_packet *packet)
{
    nlpy_state *state = link->state;
    PyObject *py_packet = nlpy_packet_wrap(state, packet, nl_link_wire(link->link));
    PyObject *py_conn = nlpy_conn_wrap(link, conn);
    nlpy_request *self = NULL;

    if (py_packet && py_conn)
        self = (nlpy_request *)state->request_type->tp_alloc(state->request_type, 0);
    if (!self) {
        Py_XDECREF(py_packet);
        Py_XDECREF(py_conn);
        return NULL;
    }
    self->conn = py_conn;
    self->packet = py_packet;
    self->state = state;
    return (PyObject *)self;
}

PyDoc_STRVAR(Request_reply_doc, "reply($self, /, code, payload=b'', *, timeout=None)\n--\n\n"
                                "Answer on the request's Conn with a packet, or with a message: reply(message).");

static PyObject *Request_reply(nlpy_request *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nlpy_conn *conn = (nlpy_conn *)self->conn;

    return nlpy_conn_send(conn, "reply", args, nargs, kwnames, TYPED_REQUEST_REPLY, (PyObject *)self);
}

PyDoc_STRVAR(Request_close_doc, "close($self, /)\n--\n\nClose the request's Conn.");

static PyObject *Request_close(nlpy_request *self, PyObject *Py_UNUSED(unused))
{
    nl_conn_close(((nlpy_conn *)self->conn)->conn);
    Py_RETURN_NONE;
}

static PyObject *Request_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(self);
}

static PyObject *Request_exit(nlpy_request *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return Request_close(self, NULL);
}

static PyObject *Request_get_message(nlpy_request *self, void *Py_UNUSED(closure))
{
    return nlpy_typed_call(self->state, TYPED_PACKET_MESSAGE, self->packet, NULL, NULL);
}

static PyObject *Request_repr(nlpy_request *self)
{
    return PyUnicode_FromFormat("<neolink.Request %R on %R>", self->packet, self->conn);
}

static PyMethodDef Request_methods[] = {
    {"reply", (PyCFunction)(void (*)(void))Request_reply, METH_FASTCALL | METH_KEYWORDS, Request_reply_doc},
    {"close", (PyCFunction)Request_close, METH_NOARGS, Request_close_doc},
    {"__enter__", Request_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Request_exit, METH_FASTCALL, NULL},
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Request_members[] = {
    {"conn", T_OBJECT, offsetof(nlpy_request, conn), READONLY, "The Conn the peer opened."},
    {"packet", T_OBJECT, offsetof(nlpy_request, packet), READONLY, "The packet it was opened with."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Request_getset[] = {
    {"message", (getter)Request_get_message, NULL, "The packet as a typed message.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Request_doc, "A peer's opening packet taken with recv1(), and the Conn to answer it on.");

static PyType_Slot Request_slots[] = {
    {Py_tp_doc, (void *)Request_doc},
    {Py_tp_traverse, Request_traverse},
    {Py_tp_dealloc, Request_dealloc},
    {Py_tp_repr, Request_repr},
    {Py_tp_methods, Request_methods},
    {Py_tp_members, Request_members},
    {Py_tp_getset, Request_getset},
    {0, NULL},
};

static PyType_Spec Request_spec = {
    .name = "neolink.Request",
    .basicsize = sizeof(nlpy_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Request_slots,
};

int nlpy_request_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->request_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Request_spec, NULL);
    return state->request_type ? PyModule_AddType(module, state->request_type) : -1;
}
