/* class Packet:
 *     """One packet: conn_id, code, payload. The payload is read-only, and it is the received bytes themselves."""
 *     def __init__(self, code: int, payload: Buffer = b"", conn_id: int = 0) -> None: ...
 *     conn_id: int;  code: int
 *     @property
 *     def payload(self) -> memoryview: ...        # keeps the Packet, and so the bytes, in memory
 *     @property
 *     def message(self) -> Any: ...               # decoded by the wire of the link it came from
 *     def __buffer__(self, flags) -> memoryview: ...
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A received Packet owns the core's packet, one made in Python owns a bytes object; a reader sees no difference. It
 * refers to no object that could refer back, so the garbage collector need not know it.
 */
#include "module.h"

/* A packet that is freed is kept for the next one: to free and to allocate it takes longer than all else that is done
 * for it here. Not where there is no GIL, nor where a tool wants to see objects come and go. */
#if defined(Py_GIL_DISABLED) || defined(Py_TRACE_REFS) || defined(__SANITIZE_ADDRESS__)
#define PACKETS_KEPT 0
#else
#define PACKETS_KEPT 256
#endif

static void Packet_dealloc(nlpy_packet *self)
{
    PyTypeObject *type = Py_TYPE(self);
    nlpy_state *state = PyType_GetModuleState(type);

    nl_packet_free(self->packet);
    Py_XDECREF(self->bytes);
    if (state->packets_room > 0) {
        state->packets_room--;
        self->next = state->packets;
        state->packets = self;
    } else {
        type->tp_free(self);
    }
    Py_DECREF(type);
}

/* Not cleared, as tp_alloc does: the caller sets all. */
static nlpy_packet *packet_alloc(nlpy_state *state)
{
    nlpy_packet *self = state->packets;

    if (!self)
        return PyObject_New(nlpy_packet, state->packet_type);
    state->packets = self->next;
    state->packets_room++;
    return (nlpy_packet *)PyObject_Init((PyObject *)self, state->packet_type);
}

void nlpy_packets_trim(nlpy_state *state)
{
    for (nlpy_packet *packet; (packet = state->packets);) {
        state->packets = packet->next;
        PyObject_Free(packet);
    }
    state->packets_room = 0;
}

PyObject *nlpy_packet_wrap(nlpy_state *state, nl_packet *packet, nl_wire wire)
{
    nlpy_packet *self = packet_alloc(state);

    if (!self) {
        nl_packet_free(packet);
        return NULL;
    }
    self->packet = packet;
    self->bytes = NULL;
    self->payload = packet->payload;
    self->len = packet->len;
    self->conn_id = packet->conn_id;
    self->code = packet->code;
    self->wire = (int8_t)wire;
    return (PyObject *)self;
}

static const nlpy_signature packet_sig = {"Packet", {"code", "payload", "conn_id", NULL}, 1, 3, NULL};

static PyObject *Packet_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    unsigned long id = 0;
    nlpy_out out;

    if (nlpy_args(&packet_sig, args, PyVectorcall_NARGS(nargsf), kwnames, arg) < 0)
        return NULL;
    PyObject *code = arg[0], *payload = arg[1], *conn_id = arg[2];
    if (conn_id) {
        if (!PyLong_Check(conn_id))
            return PyErr_Format(PyExc_TypeError, "conn_id must be an int, not %.100s", Py_TYPE(conn_id)->tp_name);
        id = PyLong_AsUnsignedLong(conn_id);
        if (PyErr_Occurred() || id > UINT32_MAX)
            return PyErr_Format(PyExc_ValueError, "conn_id must be in 0..0xffffffff, not %S", conn_id);
    }
    if (nlpy_out_get(&out, code, payload) < 0)
        return NULL;
    nlpy_packet *self = packet_alloc(PyType_GetModuleState((PyTypeObject *)type));
    if (self) {
        self->packet = NULL;
        if (payload && PyBytes_CheckExact(payload))
            self->bytes = Py_NewRef(payload);
        else
            self->bytes = PyBytes_FromStringAndSize(out.payload, (Py_ssize_t)out.len);
        if (!self->bytes) {
            Py_CLEAR(self);
        } else {
            self->payload = PyBytes_AS_STRING(self->bytes);
            self->len = out.len;
            self->conn_id = (uint32_t)id;
            self->code = out.code;
            self->wire = -1;
        }
    }
    nlpy_out_release(&out);
    return (PyObject *)self;
}

/* For whoever does not call the type: Packet.__new__(Packet, code). */
static PyObject *Packet_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return PyObject_VectorcallDict((PyObject *)type, &PyTuple_GET_ITEM(args, 0), (size_t)PyTuple_GET_SIZE(args), kwargs);
}

static int Packet_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    nlpy_packet *self = (nlpy_packet *)op;

    return PyBuffer_FillInfo(view, op, (void *)self->payload, (Py_ssize_t)self->len, 1, flags);
}

static PyObject *Packet_get_conn_id(nlpy_packet *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->conn_id);
}

static PyObject *Packet_get_code(nlpy_packet *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->code);
}

static PyObject *Packet_get_payload(PyObject *self, void *Py_UNUSED(closure))
{
    return PyMemoryView_FromObject(self);
}

static PyObject *Packet_get_wire(nlpy_packet *self, void *Py_UNUSED(closure))
{
    if (self->wire < 0)
        Py_RETURN_NONE;
    return PyUnicode_FromString(nlpy_wire_name((nl_wire)self->wire));
}

static PyObject *Packet_get_message(PyObject *self, void *Py_UNUSED(closure))
{
    return nlpy_typed_call(PyType_GetModuleState(Py_TYPE(self)), TYPED_PACKET_MESSAGE, self, NULL, NULL);
}

static PyObject *Packet_repr(nlpy_packet *self)
{
    const Py_ssize_t shown_max = 24;
    Py_ssize_t len = (Py_ssize_t)self->len;
    PyObject *bytes = PyBytes_FromStringAndSize(self->payload, len > shown_max ? shown_max : len), *text = NULL;

    if (!bytes)
        return NULL;
    if (len > shown_max)
        text = PyUnicode_FromFormat("<neolink.Packet conn_id=%u code=0x%04x %zd bytes: %R...>", self->conn_id,
                                    self->code, len, bytes);
    else
        text = PyUnicode_FromFormat("<neolink.Packet conn_id=%u code=0x%04x %R>", self->conn_id, self->code, bytes);
    Py_DECREF(bytes);
    return text;
}

static PyMethodDef Packet_methods[] = {
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Packet_getset[] = {
    {"conn_id", (getter)Packet_get_conn_id, NULL, "The id of its connection.", NULL},
    {"code", (getter)Packet_get_code, NULL, "The message code.", NULL},
    {"payload", Packet_get_payload, NULL, "The payload: a read-only memoryview, zero copy.", NULL},
    {"message", Packet_get_message, NULL, "The typed message; DecodeError when malformed.", NULL},
    {"_wire", (getter)Packet_get_wire, NULL, "The wire it came by; None when made in Python.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Packet_doc, "Packet(code, payload=b'', conn_id=0)\n--\n\n"
                         "One packet. payload is read-only and zero-copy, valid as long as something refers to it.");

static PyType_Slot Packet_slots[] = {
    {Py_tp_doc, (void *)Packet_doc},
    {Py_tp_new, Packet_new},
    {Py_tp_dealloc, Packet_dealloc},
    {Py_tp_repr, Packet_repr},
    {Py_tp_methods, Packet_methods},
    {Py_tp_getset, Packet_getset},
    {Py_bf_getbuffer, Packet_getbuffer},
    {0, NULL},
};

static PyType_Spec Packet_spec = {
    .name = "neolink.Packet",
    .basicsize = sizeof(nlpy_packet),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Packet_slots,
};

int nlpy_packet_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->packet_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Packet_spec, NULL);
    if (!state->packet_type)
        return -1;
    state->packets_room = PACKETS_KEPT;
    state->packet_type->tp_vectorcall = Packet_vectorcall;      /* there is no slot for it before Python 3.14 */
    return PyModule_AddType(module, state->packet_type);
}
