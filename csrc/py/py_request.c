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
 * It refers to the core's Conn; the Conn for Python is made when somebody asks for it, which few handlers do.
 */
#include "module.h"

#include <structmember.h>

typedef struct nlpy_request {
    NLPY_SENDER_HEAD
    PyObject           *packet;     /* strong, a Packet */
    _Atomic(PyObject *) py_conn;    /* strong, a Conn; NULL until it is asked for, then never another */
} nlpy_request;

/* No tp_clear: nothing of it can be set from outside, so a cycle is broken elsewhere. */
static int Request_traverse(nlpy_request *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->link);
    Py_VISIT(self->packet);
    Py_VISIT(self->py_conn);
    return 0;
}

static void Request_dealloc(nlpy_request *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->py_conn);
    Py_XDECREF(self->packet);
    nl_conn_rele(self->conn);
    Py_XDECREF(self->link);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *nlpy_request_wrap(nlpy_link *link, nl_conn *conn, nl_packet *packet)
{
    PyTypeObject *type = link->state->request_type;
    PyObject *py_packet = nlpy_packet_wrap(link->state, packet, nl_link_wire(link->link));
    nlpy_request *self = py_packet ? (nlpy_request *)type->tp_alloc(type, 0) : NULL;

    if (!self) {
        Py_XDECREF(py_packet);
        nl_conn_rele(conn);
        return NULL;
    }
    self->conn = conn;
    self->link = (nlpy_link *)Py_NewRef((PyObject *)link);
    self->packet = py_packet;
    return (PyObject *)self;
}

PyDoc_STRVAR(Request_reply_doc, "reply($self, /, code, payload=b'', *, timeout=None)\n--\n\n"
                                "Answer on the request's Conn with a packet, or with a message: reply(message).");

static PyObject *Request_reply(nlpy_request *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const nlpy_signature sig = NLPY_SEND_SIGNATURE("reply");

    return nlpy_conn_send((nlpy_sender *)self, &sig, args, nargs, kwnames, TYPED_REQUEST_REPLY);
}

PyDoc_STRVAR(Request_close_doc, "close($self, /)\n--\n\nClose the request's Conn.");

static PyObject *Request_close(nlpy_request *self, PyObject *Py_UNUSED(unused))
{
    nl_conn_close(self->conn);
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

static PyObject *Request_get_conn(nlpy_request *self, void *Py_UNUSED(closure))
{
    PyObject *conn = self->py_conn, *made_meanwhile = NULL;

    if (!conn) {
        nl_conn_hold(self->conn);
        conn = nlpy_conn_wrap(self->link, self->conn);
        if (!conn)
            return NULL;
        if (!atomic_compare_exchange_strong(&self->py_conn, &made_meanwhile, conn)) {   /* where there is no GIL */
            Py_DECREF(conn);
            conn = made_meanwhile;
        }
    }
    return Py_NewRef(conn);
}

static PyObject *Request_get_message(nlpy_request *self, void *Py_UNUSED(closure))
{
    return nlpy_typed_call(self->link->state, TYPED_PACKET_MESSAGE, self->packet, NULL, NULL);
}

static PyObject *Request_repr(nlpy_request *self)
{
    PyObject *conn = Request_get_conn(self, NULL), *text;

    if (!conn)
        return NULL;
    text = PyUnicode_FromFormat("<neolink.Request %R on %R>", self->packet, conn);
    Py_DECREF(conn);
    return text;
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
    /* _EX, though it is never NULL: the interpreter has a fast path for those. */
    {"packet", T_OBJECT_EX, offsetof(nlpy_request, packet), READONLY, "The packet it was opened with."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Request_getset[] = {
    {"conn", (getter)Request_get_conn, NULL, "The Conn the peer opened.", NULL},
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
