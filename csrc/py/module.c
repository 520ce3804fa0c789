/* neolink._core: the compiled module.
 *
 *     NodeLink, Conn, Packet, Request, Listener, Dialer, TLS               # one file each: py_link.c, …
 *     def default_limits() -> tuple: ...                                   # in the order of neolink.Limits
 *     have_tls: bool                                                       # built with OpenSSL
 *     def endpoint(target) -> tuple | None: ...                            # (family, address), without a resolver
 *     def check_timeout(timeout) -> None: ...                              # ValueError, TypeError
 *     def _install(link_class, typed) -> None: ...                         # neolink/__init__.py
 *     def _shutdown() -> None: ...                                         # neolink/__init__.py, atexit
 *     def _trace_start(…), _trace_stop(), _trace_read(…)                   # py_trace.c
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything that is the module's lives in its state, nothing in static variables; so it can be imported in several
 * interpreters. What the whole process shares (the core's background thread) is ended by the main interpreter only.
 */
#include "py_wait.h"

nlpy_state *nlpy_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static const char *const typed_names[TYPED_COUNT] = {
    [TYPED_LINK_ASK] = "link_ask",           [TYPED_LINK_NOTIFY] = "link_notify",
    [TYPED_CONN_SEND] = "conn_send",         [TYPED_CONN_ASK] = "conn_ask",
    [TYPED_CONN_EXPECT] = "conn_expect",     [TYPED_REQUEST_REPLY] = "request_reply",
    [TYPED_PACKET_MESSAGE] = "packet_message", [TYPED_LINK_ANSWER] = "link_answer",
};

/* An attribute of the module, kept by the list of what was installed. Borrowed. */
static PyObject *install_one(nlpy_state *state, PyObject *typed, const char *name)
{
    PyObject *function = PyObject_GetAttrString(typed, name);
    int rc = function ? PyList_Append(state->installed, function) : -1;

    Py_XDECREF(function);
    return rc < 0 ? NULL : function;
}

PyDoc_STRVAR(install_doc, "_install($module, link_class, typed, /)\n--\n\n"
                          "Name the class of links made here, and the module that knows typed messages.");

static PyObject *core_install(PyObject *module, PyObject *args)
{
    nlpy_state *state = nlpy_state_of(module);
    PyObject *link_class, *typed, *functions[TYPED_COUNT], *askings;

    if (!PyArg_ParseTuple(args, "O!O:_install", &PyType_Type, &link_class, &typed))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)link_class, state->link_type)) {
        PyErr_SetString(PyExc_TypeError, "link_class must be a subclass of neolink._core.NodeLink");
        return NULL;
    }
    if (PyList_Append(state->installed, link_class) < 0)
        return NULL;
    for (int i = 0; i < TYPED_COUNT; i++)
        if (!(functions[i] = install_one(state, typed, typed_names[i])))
            return NULL;
    if (!(askings = install_one(state, typed, "askings")))
        return NULL;
    for (int i = 0; i < TYPED_COUNT; i++)
        state->typed[i] = functions[i];
    for (int i = 0; i < NL_WIRE_AUTO; i++)
        state->askings[i] = PyDict_GetItemString(askings, nlpy_wire_name((nl_wire)i));
    state->link_class = (PyTypeObject *)link_class;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(shutdown_doc, "_shutdown($module, /)\n--\n\n"
                           "End the core's background thread, for the end of the process. Threads that wait on a link\n"
                           "go on waiting: the process ends them, and their users hear nothing of it.");

static PyObject *core_shutdown(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
        Py_BEGIN_ALLOW_THREADS
        nl_shutdown();
        NLPY_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(default_limits_doc, "default_limits($module, /)\n--\n\n"
                                 "The core's limits, in the order of neolink.Limits.");

PyDoc_STRVAR(check_timeout_doc, "check_timeout($module, timeout, /)\n--\n\n"
                                "Raise what any blocking call would raise for this timeout.");

static PyObject *core_check_timeout(PyObject *Py_UNUSED(module), PyObject *timeout)
{
    int64_t ns;

    if (nlpy_duration(timeout, "timeout", &ns) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(endpoint_doc, "endpoint($module, target, /)\n--\n\n"
                           "(family, address) of a path, or of a (host, port) whose host is an address in numbers, or\n"
                           "of IPv6's four; None where the host is a name, which needs a resolver.");

static PyMethodDef core_methods[] = {
    {"check_timeout", core_check_timeout, METH_O, check_timeout_doc},
    {"_install", core_install, METH_VARARGS, install_doc},
    {"_shutdown", core_shutdown, METH_NOARGS, shutdown_doc},
    {"endpoint", nlpy_endpoint, METH_O, endpoint_doc},
    {"default_limits", nlpy_default_limits, METH_NOARGS, default_limits_doc},
    {NULL, NULL, 0, NULL},
};

static int core_exec(PyObject *module)
{
    if (!(nlpy_state_of(module)->installed = PyList_New(0)))
        return -1;
    if (nlpy_err_setup(module) < 0 || nlpy_packet_setup(module) < 0 ||
        nlpy_conn_setup(module) < 0 || nlpy_request_setup(module) < 0 || nlpy_link_setup(module) < 0 ||
        nlpy_tls_setup(module) < 0 || nlpy_dialer_setup(module) < 0 || nlpy_listener_setup(module) < 0)
        return -1;
    if (PyModule_AddObjectRef(module, "have_tls", nl_have_tls() ? Py_True : Py_False) < 0)
        return -1;
    return PyModule_AddFunctions(module, nlpy_trace_methods);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    nlpy_state *state = nlpy_state_of(module);

    Py_VISIT(state->link_type);
    Py_VISIT(state->conn_type);
    Py_VISIT(state->packet_type);
    Py_VISIT(state->request_type);
    Py_VISIT(state->listener_type);
    Py_VISIT(state->dialer_type);
    Py_VISIT(state->tls_type);
    Py_VISIT(state->installed);
    Py_VISIT(state->close);
    for (int i = 0; i < EXC_COUNT; i++)
        Py_VISIT(state->exceptions[i]);
    return 0;
}

static int core_clear(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    nlpy_packets_trim(state);
    Py_CLEAR(state->link_type);
    Py_CLEAR(state->conn_type);
    Py_CLEAR(state->packet_type);
    Py_CLEAR(state->request_type);
    Py_CLEAR(state->listener_type);
    Py_CLEAR(state->dialer_type);
    Py_CLEAR(state->tls_type);
    Py_CLEAR(state->close);
    for (int i = 0; i < EXC_COUNT; i++)
        Py_CLEAR(state->exceptions[i]);
    for (int i = 0; i < TYPED_COUNT; i++)
        state->typed[i] = NULL;
    for (int i = 0; i < NL_WIRE_AUTO; i++)
        state->askings[i] = NULL;
    state->link_class = NULL;
    Py_CLEAR(state->installed);
    return 0;
}

static void core_free(void *module)
{
    core_clear(module);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},  /* module.h: what stands in its place */
#endif
    {0, NULL},
};

PyDoc_STRVAR(core_doc, "The compiled part of neolink. Use the package: its public names are in neolink itself.");

struct PyModuleDef nlpy_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "neolink._core",
    .m_doc = core_doc,
    .m_size = sizeof(nlpy_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&nlpy_module_def);
}
