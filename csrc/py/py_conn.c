/* class Conn:
 *     """One connection on a link. Context manager; iterating yields packets until it ends."""
 *     link: NodeLink;  conn_id: int;  closed: bool
 *     def send(self, code, payload=b"", *, timeout=None) -> None: ...      # or send(message, *, timeout=None)
 *     def recv(self, timeout=None) -> Packet: ...
 *     def ask(self, message, *, timeout=None) -> Any: ...                  # typed; neolink._typed
 *     def expect(self, *types, timeout=None) -> Any: ...                   # typed; neolink._typed
 *     def close_recv(self) -> None: ...
 *     def close(self) -> None: ...
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A Conn is made by its link only. It holds the link's Python object, so Conn.link is that very object and a link
 * cannot be dropped while a Conn of it is in use.
 */
#include "py_wait.h"

#include <structmember.h>

typedef struct nlpy_conn {
    NLPY_SENDER_HEAD
    PyObject *weakrefs;
} nlpy_conn;

static nlpy_state *state_of(nlpy_conn *self)
{
    return self->link->state;
}

static nlpy_where here(nlpy_sender *self, const char *op)
{
    return (nlpy_where){.state = self->link->state, .link = self->link, .op = op, .conn_id = nl_conn_id(self->conn)};
}

/* No tp_clear: a cycle through a Conn passes through the __dict__ of its link or of a container, which break it. */
static int Conn_traverse(nlpy_conn *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->link);
    return 0;
}

static void Conn_dealloc(nlpy_conn *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    nlpy_clear_weakrefs((PyObject *)self, &self->weakrefs);
    nl_conn_rele(self->conn);
    Py_XDECREF(self->link);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *nlpy_conn_wrap(nlpy_link *link, nl_conn *conn)
{
    PyTypeObject *type = link->state->conn_type;
    nlpy_conn *self = (nlpy_conn *)type->tp_alloc(type, 0);

    if (!self) {
        nl_conn_rele(conn);
        return NULL;
    }
    self->conn = conn;
    self->link = (nlpy_link *)Py_NewRef((PyObject *)link);
    return (PyObject *)self;
}

PyObject *nlpy_conn_send(nlpy_sender *self, const nlpy_signature *sig, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames, nlpy_typed typed)
{
    nlpy_state *state = self->link->state;
    PyObject *arg[NLPY_ARGS_MAX];
    bool maybe_sent = false;
    int64_t deadline;
    nlpy_out out;
    nl_err err;

    if (nlpy_args(sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[2], &deadline) < 0)
        return NULL;
    int raw = nlpy_out_parse(state, &out, arg[0], arg[1]);
    if (raw < 0)
        return NULL;
    if (raw == 0)
        return nlpy_typed_call(state, typed, (PyObject *)self, arg[0], arg[2]);
    NLPY_TRY_THEN_WAIT(err, out.len <= self->link->small, deadline, maybe_sent,
                       nl_conn_send(self->conn, out.code, out.payload, out.len, at, &maybe_sent));
    nlpy_out_release(&out);
    if (err == NL_OK)
        Py_RETURN_NONE;
    nlpy_where where = here(self, sig->function);
    where.sends = true;
    where.maybe_sent = maybe_sent;
    where.len = out.len;
    return nlpy_raise(&where, err);
}

PyDoc_STRVAR(Conn_send_doc, "send($self, /, code, payload=b'', *, timeout=None)\n--\n\n"
                            "Send a packet, or a message: send(message). Returns when it is on its way or queued\n"
                            "within the link's budget; the buffer is the caller's again however it returns.");

static PyObject *Conn_send(nlpy_conn *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const nlpy_signature sig = NLPY_SEND_SIGNATURE("send");

    return nlpy_conn_send((nlpy_sender *)self, &sig, args, nargs, kwnames, TYPED_CONN_SEND);
}

PyDoc_STRVAR(Conn_recv_doc, "recv($self, /, timeout=None)\n--\n\n"
                            "The next packet. Packets received before an end stay readable, then comes the end.");

static PyObject *Conn_recv(nlpy_conn *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nl_packet *packet = NULL;
    int64_t deadline;
    nl_err err;

    if (nlpy_timeout("recv", args, nargs, kwnames, &deadline) < 0)
        return NULL;
    NLPY_TRY_THEN_WAIT(err, true, deadline, false, nl_conn_recv(self->conn, at, &packet));
    if (err == NL_OK)
        return nlpy_packet_wrap(state_of(self), packet, nl_link_wire(self->link->link));
    nlpy_where where = here((nlpy_sender *)self, "recv");
    return nlpy_raise(&where, err);
}

static PyObject *Conn_next(nlpy_conn *self)
{
    nl_packet *packet = NULL;
    nl_err err;

    NLPY_TRY_THEN_WAIT(err, true, NL_FOREVER, false, nl_conn_recv(self->conn, at, &packet));
    if (err == NL_OK)
        return nlpy_packet_wrap(state_of(self), packet, nl_link_wire(self->link->link));
    if (nlpy_is_clean_end(self->link->link, err))
        return NULL;
    nlpy_where where = here((nlpy_sender *)self, "recv");
    return nlpy_raise(&where, err);
}

static const nlpy_signature ask_sig = {"ask", {"message", "timeout", NULL}, 1, 1, NULL};

PyDoc_STRVAR(Conn_ask_doc, "ask($self, /, message, *, timeout=None)\n--\n\n"
                           "Send a message and receive its answer: the typed answer, or RemoteError.");

static PyObject *Conn_ask(nlpy_conn *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    int64_t deadline;

    if (nlpy_args(&ask_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0)
        return NULL;
    return nlpy_typed_call(state_of(self), TYPED_CONN_ASK, (PyObject *)self, arg[0], arg[1]);
}

PyDoc_STRVAR(Conn_expect_doc, "expect($self, /, *types, timeout=None)\n--\n\n"
                              "Receive one message that is one of types; an Error raises RemoteError unless Error is\n"
                              "among them, any other message raises UnexpectedMessage.");

static PyObject *Conn_expect(nlpy_conn *self, PyObject *args, PyObject *kwargs)
{
    PyObject *timeout = NULL;
    int64_t deadline;

    if (kwargs && PyDict_GET_SIZE(kwargs)) {
        timeout = PyDict_GetItemString(kwargs, "timeout");
        if (!timeout || PyDict_GET_SIZE(kwargs) > 1) {
            PyErr_SetString(PyExc_TypeError, "expect() has one keyword argument, 'timeout'");
            return NULL;
        }
    }
    if (nlpy_deadline(timeout, &deadline) < 0)
        return NULL;
    return nlpy_typed_call(state_of(self), TYPED_CONN_EXPECT, (PyObject *)self, args, timeout);
}

PyDoc_STRVAR(Conn_close_recv_doc, "close_recv($self, /)\n--\n\n"
                                  "Later packets are answered \"connection closed\"; send still works.");

static PyObject *Conn_close_recv(nlpy_conn *self, PyObject *Py_UNUSED(unused))
{
    nl_conn_close_recv(self->conn);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Conn_close_doc, "close($self, /)\n--\n\n"
                             "Close it: blocked send and recv wake with ConnClosed, a begun send completes.");

static PyObject *Conn_close(nlpy_conn *self, PyObject *Py_UNUSED(unused))
{
    nl_conn_close(self->conn);
    Py_RETURN_NONE;
}

static PyObject *Conn_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(self);
}

static PyObject *Conn_exit(nlpy_conn *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return Conn_close(self, NULL);
}

static PyObject *Conn_get_conn_id(nlpy_conn *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(nl_conn_id(self->conn));
}

static PyObject *Conn_get_closed(nlpy_conn *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(nl_conn_is_closed(self->conn));
}

static PyObject *Conn_get_link(nlpy_conn *self, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)self->link);
}

static PyObject *Conn_repr(nlpy_conn *self)
{
    PyObject *link = nlpy_link_text(self->link), *text;

    if (!link)
        return NULL;
    text = PyUnicode_FromFormat("<neolink.Conn %u %s of %U>", nl_conn_id(self->conn),
                                nl_conn_is_closed(self->conn) ? "closed" : "open", link);
    Py_DECREF(link);
    return text;
}

static PyMethodDef Conn_methods[] = {
    {"send", (PyCFunction)(void (*)(void))Conn_send, METH_FASTCALL | METH_KEYWORDS, Conn_send_doc},
    {"recv", (PyCFunction)(void (*)(void))Conn_recv, METH_FASTCALL | METH_KEYWORDS, Conn_recv_doc},
    {"ask", (PyCFunction)(void (*)(void))Conn_ask, METH_FASTCALL | METH_KEYWORDS, Conn_ask_doc},
    {"expect", (PyCFunction)(void (*)(void))Conn_expect, METH_VARARGS | METH_KEYWORDS, Conn_expect_doc},
    {"close_recv", (PyCFunction)Conn_close_recv, METH_NOARGS, Conn_close_recv_doc},
    {"close", (PyCFunction)Conn_close, METH_NOARGS, Conn_close_doc},
    {"__enter__", Conn_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Conn_exit, METH_FASTCALL, NULL},
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Conn_getset[] = {
    {"link", (getter)Conn_get_link, NULL, "The NodeLink it is a connection of.", NULL},
    {"conn_id", (getter)Conn_get_conn_id, NULL, "Its 32-bit id.", NULL},
    {"closed", (getter)Conn_get_closed, NULL, "Closed by us, failed, or its link ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef Conn_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(nlpy_conn, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Conn_doc, "One connection on a link: made by NodeLink.new_conn() or accept().");

static PyType_Slot Conn_slots[] = {
    {Py_tp_doc, (void *)Conn_doc},
    {Py_tp_traverse, Conn_traverse},
    {Py_tp_dealloc, Conn_dealloc},
    {Py_tp_repr, Conn_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Conn_next},
    {Py_tp_methods, Conn_methods},
    {Py_tp_getset, Conn_getset},
    {Py_tp_members, Conn_members},
    {0, NULL},
};

static PyType_Spec Conn_spec = {
    .name = "neolink.Conn",
    .basicsize = sizeof(nlpy_conn),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Conn_slots,
};

int nlpy_conn_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->conn_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Conn_spec, NULL);
    return state->conn_type ? PyModule_AddType(module, state->conn_type) : -1;
}
