/* class TLS:
 *     """Certificates as NEO uses them: mutual, one CA for the cluster."""
 *     def __init__(self, ca: str, cert: str, key: str, *, crl=None, hostname=None) -> None: ...
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Owns the core's TLS context, which read and checked the files when it was made. Links that use it hold the context
 * themselves.
 */
#include "module.h"

typedef struct nlpy_tls {
    PyObject_HEAD
    nl_tls_ctx *ctx;        /* owned */
    PyObject   *ca;         /* bytes, for repr */
} nlpy_tls;

static void TLS_dealloc(nlpy_tls *self)
{
    PyTypeObject *type = Py_TYPE(self);

    nl_tls_ctx_rele(self->ctx);
    Py_XDECREF(self->ca);
    type->tp_free(self);
    Py_DECREF(type);
}

/* A path or None to bytes; *out is NULL for None. */
static int path_or_none(PyObject *value, void *out)
{
    if (value == NULL || value == Py_None) {
        if (!value)
            Py_CLEAR(*(PyObject **)out);
        return value ? 1 : 0;
    }
    return PyUnicode_FSConverter(value, out);
}

static nl_err read_files(PyObject *const path[4], const char *hostname, nl_tls_ctx **ctx, nl_fault *why)
{
    const char *name[4];
    nl_err err;

    for (int i = 0; i < 4; i++)
        name[i] = path[i] ? PyBytes_AS_STRING(path[i]) : NULL;
    Py_BEGIN_ALLOW_THREADS
    err = nl_tls_ctx_new(name[0], name[1], name[2], name[3], hostname, ctx, why);
    NLPY_END_ALLOW_THREADS
    return err;
}

static PyObject *TLS_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"ca", "cert", "key", "crl", "hostname", NULL};
    PyObject *path[4] = {NULL};
    const char *hostname = NULL;
    nl_tls_ctx *ctx = NULL;
    nl_fault why = {0};
    nlpy_tls *self = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&O&|$O&z:TLS", names, PyUnicode_FSConverter, &path[0],
                                     PyUnicode_FSConverter, &path[1], PyUnicode_FSConverter, &path[2], path_or_none,
                                     &path[3], &hostname))
        goto out;
    nl_err err = read_files(path, hostname, &ctx, &why);
    if (err != NL_OK) {
        nlpy_where where = {.state = PyType_GetModuleState(type), .op = "TLS", .conn_id = -1};
        nlpy_raise_why(&where, err, &why, NULL);
        goto out;
    }
    self = (nlpy_tls *)type->tp_alloc(type, 0);
    if (self) {
        self->ctx = ctx;
        self->ca = Py_NewRef(path[0]);
    } else {
        nl_tls_ctx_rele(ctx);
    }
out:
    for (int i = 0; i < 4; i++)
        Py_XDECREF(path[i]);
    return (PyObject *)self;
}

nl_tls_ctx *nlpy_tls_ctx(PyObject *tls)
{
    return ((nlpy_tls *)tls)->ctx;
}

static PyObject *TLS_repr(nlpy_tls *self)
{
    return PyUnicode_FromFormat("<neolink.TLS ca=%R>", self->ca);
}

static PyMethodDef TLS_methods[] = {
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(TLS_doc, "TLS(ca, cert, key, *, crl=None, hostname=None)\n--\n\n"
                      "NEO's way: mutual, one CA for the cluster. The files are read and checked at once. Without a\n"
                      "hostname any certificate of the CA is good.");

static PyType_Slot TLS_slots[] = {
    {Py_tp_doc, (void *)TLS_doc},
    {Py_tp_new, TLS_new},
    {Py_tp_dealloc, TLS_dealloc},
    {Py_tp_repr, TLS_repr},
    {Py_tp_methods, TLS_methods},
    {0, NULL},
};

static PyType_Spec TLS_spec = {
    .name = "neolink.TLS",
    .basicsize = sizeof(nlpy_tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TLS_slots,
};

int nlpy_tls_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->tls_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &TLS_spec, NULL);
    return state->tls_type ? PyModule_AddType(module, state->tls_type) : -1;
}
