/* Addresses and settings: Python's tuples and words, and the core's structs.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "py_wait.h"

#include <arpa/inet.h>
#include <limits.h>
#include <math.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

/* ---- addresses -------------------------------------------------------------------------------------------------- */

/* Length of the path in a Unix address: an abstract one begins with NUL and may hold more of them. */
static Py_ssize_t unix_path_len(const struct sockaddr_un *un, socklen_t len)
{
    size_t have = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;

    if (have && un->sun_path[0] != '\0')
        have = strnlen(un->sun_path, have);
    return (Py_ssize_t)have;
}

PyObject *nlpy_address(const struct sockaddr *address, socklen_t len)
{
    char host[INET6_ADDRSTRLEN];

    if (!address || len < sizeof address->sa_family)
        Py_RETURN_NONE;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        return Py_BuildValue("si", host, (int)ntohs(in->sin_port));
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        return Py_BuildValue("siII", host, (int)ntohs(in6->sin6_port), (unsigned)ntohl(in6->sin6_flowinfo),
                             (unsigned)in6->sin6_scope_id);
    }
    if (address->sa_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        Py_ssize_t n = unix_path_len(un, len);
        if (n && un->sun_path[0] == '\0')
            return PyBytes_FromStringAndSize(un->sun_path, n);
        return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, n);
    }
    return Py_BuildValue("iy#", (int)address->sa_family, address->sa_data,
                         (Py_ssize_t)(len - sizeof address->sa_family));
}

PyObject *nlpy_address_text(const struct sockaddr *address, socklen_t len)
{
    PyObject *plain = nlpy_address(address, len), *text = NULL;

    if (!plain)
        return NULL;
    if (PyTuple_Check(plain) && address->sa_family == AF_INET)
        text = PyUnicode_FromFormat("%U:%S", PyTuple_GET_ITEM(plain, 0), PyTuple_GET_ITEM(plain, 1));
    else if (PyTuple_Check(plain) && address->sa_family == AF_INET6)
        text = PyUnicode_FromFormat("[%U]:%S", PyTuple_GET_ITEM(plain, 0), PyTuple_GET_ITEM(plain, 1));
    else if (PyBytes_Check(plain))
        text = PyUnicode_FromFormat("unix:%R", plain);
    else if (PyUnicode_Check(plain))
        text = PyUnicode_GET_LENGTH(plain) ? PyUnicode_FromFormat("unix:%U", plain) : PyUnicode_FromString("unnamed");
    else
        text = PyObject_Str(plain);
    Py_DECREF(plain);
    return text;
}

static int inet_of(PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    const char *host;
    int port;

    if (!PyArg_ParseTuple(address, "si", &host, &port))
        return -1;
    if (inet_pton(AF_INET, host, &in->sin_addr) != 1) {
        PyErr_Format(PyExc_ValueError, "%R is not an IPv4 address", PyTuple_GET_ITEM(address, 0));
        return -1;
    }
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    *len = sizeof *in;
    return 0;
}

static int inet6_of(PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    char host[INET6_ADDRSTRLEN];
    const char *given;
    unsigned flow = 0, scope = 0;
    int port;

    if (!PyArg_ParseTuple(address, "si|II", &given, &port, &flow, &scope))
        return -1;
    size_t n = strcspn(given, "%");             /* the scope's name is repeated as a number behind */
    if (n < sizeof host) {
        memcpy(host, given, n);
        host[n] = '\0';
    }
    if (n >= sizeof host || inet_pton(AF_INET6, host, &in6->sin6_addr) != 1) {
        PyErr_Format(PyExc_ValueError, "%R is not an IPv6 address", PyTuple_GET_ITEM(address, 0));
        return -1;
    }
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    in6->sin6_flowinfo = htonl(flow);
    in6->sin6_scope_id = scope;
    *len = sizeof *in6;
    return 0;
}

static int unix_of(PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_un *un = (struct sockaddr_un *)out;
    PyObject *path = PyBytes_Check(address) ? Py_NewRef(address) : NULL;

    if (!path && !PyUnicode_FSConverter(address, &path)) {
        if (!PyUnicode_Check(address) || !PyErr_ExceptionMatches(PyExc_ValueError))
            return -1;
        PyErr_Clear();                          /* an abstract name begins with NUL, which no path may hold */
        path = PyUnicode_EncodeFSDefault(address);
        if (!path)
            return -1;
    }
    size_t n = (size_t)PyBytes_GET_SIZE(path);
    if (n == 0 || n >= sizeof un->sun_path) {
        PyErr_Format(PyExc_ValueError, "the path of a Unix socket has 1 to %zu bytes, %R has %zu",
                     sizeof un->sun_path - 1, address, n);
        Py_DECREF(path);
        return -1;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, PyBytes_AS_STRING(path), n);
    bool is_abstract = un->sun_path[0] == '\0';
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (is_abstract ? 0 : 1));
    Py_DECREF(path);
    return 0;
}

int nlpy_sockaddr(PyObject *pair, struct sockaddr_storage *out, socklen_t *len)
{
    PyObject *address;
    int family;

    memset(out, 0, sizeof *out);
    if (!PyArg_ParseTuple(pair, "iO;address must be (family, address)", &family, &address))
        return -1;
    if (family == AF_UNIX)
        return unix_of(address, out, len);
    if (!PyTuple_Check(address)) {
        PyErr_Format(PyExc_TypeError, "an internet address must be a tuple, not %.100s", Py_TYPE(address)->tp_name);
        return -1;
    }
    if (family == AF_INET)
        return inet_of(address, out, len);
    if (family == AF_INET6)
        return inet6_of(address, out, len);
    PyErr_Format(PyExc_ValueError, "address family %d is not supported: only IPv4, IPv6 and Unix sockets are", family);
    return -1;
}

/* Is it an internet address in numbers? Then it is in *out, without port. */
static bool is_number(const char *host, struct sockaddr_storage *out)
{
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1)
        out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1)
        out->ss_family = AF_INET6;
    return out->ss_family != AF_UNSPEC;
}

PyObject *nlpy_endpoint(PyObject *Py_UNUSED(module), PyObject *target)
{
    struct sockaddr_storage address;
    const char *host;
    Py_ssize_t n;
    int port;

    if (!PyTuple_Check(target))
        return Py_BuildValue("iO", AF_UNIX, target);
    if (PyTuple_GET_SIZE(target) == 4)
        return Py_BuildValue("iO", AF_INET6, target);
    if (!PyArg_ParseTuple(target, "s#i:endpoint", &host, &n, &port))
        return NULL;
    if ((size_t)n != strlen(host) || !is_number(host, &address))
        Py_RETURN_NONE;
    if (address.ss_family == AF_INET)
        ((struct sockaddr_in *)&address)->sin_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in6 *)&address)->sin6_port = htons((uint16_t)port);
    return Py_BuildValue("iN", (int)address.ss_family, nlpy_address((struct sockaddr *)&address, sizeof address));
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

static const char *const wire_words[] = {"2016", "N", "M", "auto", NULL};
static const char *const routing_words[] = {"stream", "neo", NULL};
static const char *const accept_words[] = {"queue", "refuse", "ignore", NULL};
static const char *const policy_words[] = {"hold", "fail", NULL};

const char *nlpy_wire_name(nl_wire wire)
{
    return wire_words[wire];
}

/* The place of the string in words[], or -1 with ValueError. */
static int word_of(const char *name, PyObject *value, const char *const words[])
{
    if (PyUnicode_Check(value))
        for (int i = 0; words[i]; i++)
            if (PyUnicode_CompareWithASCIIString(value, words[i]) == 0)
                return i;
    PyObject *list = PyUnicode_FromFormat("\"%s\"", words[0]);
    for (int i = 1; list && words[i]; i++)
        Py_SETREF(list, PyUnicode_FromFormat("%U, \"%s\"", list, words[i]));
    if (list)
        PyErr_Format(PyExc_ValueError, "%s must be one of %U, not %R", name, list, value);
    Py_XDECREF(list);
    return -1;
}

/* ---- limits ----------------------------------------------------------------------------------------------------- */

enum { LIMIT_PACKET, LIMIT_CONN_RX, LIMIT_LINK_RX, LIMIT_LINK_TX, LIMIT_CONNS, LIMIT_BACKLOG, LIMIT_POLICY,
       LIMIT_CLOSED_SECONDS, LIMIT_SPIN_SECONDS, LIMIT_STRAY_SHARE, LIMIT_COUNT };
static const char *const limit_names[] = {"Limits.packet_bytes", "Limits.conn_rx_bytes", "Limits.link_rx_bytes",
                                          "Limits.link_tx_bytes", "Limits.conns", "Limits.accept_backlog",
                                          "Limits.rx_policy", "Limits.closed_seconds", "Limits.spin_seconds",
                                          "Limits.stray_share"};

static int limit_duration(PyObject *tuple, int index, int64_t *ns)
{
    return nlpy_duration(PyTuple_GET_ITEM(tuple, index), limit_names[index], ns);
}

static int limit_size(PyObject *tuple, int index, size_t *out)
{
    PyObject *value = PyTuple_GET_ITEM(tuple, index);

    if (value == Py_None) {
        *out = NL_UNLIMITED;
        return 0;
    }
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an int or None, not %.100s", limit_names[index],
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    size_t size = PyLong_AsSize_t(value);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s must be 0 or more, and fit in memory, not %S", limit_names[index], value);
        return -1;
    }
    *out = size;
    return 0;
}

static int limit_share(PyObject *tuple, int index, double *share)
{
    PyObject *value = PyTuple_GET_ITEM(tuple, index);

    *share = 1;
    if (value == Py_None)
        return 0;
    if (!PyFloat_Check(value) && !PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be a float or None, not %.100s", limit_names[index],
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    *share = PyFloat_AsDouble(value);
    if (!(*share > 0 && *share <= 1)) {         /* an int that is too large for a float is -1, with an error of its own */
        PyErr_Format(PyExc_ValueError, "%s must be above 0 and at most 1, or None, not %S", limit_names[index], value);
        return -1;
    }
    return 0;
}

static int limits_of(PyObject *tuple, nl_limits *limits)
{
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != LIMIT_COUNT) {
        PyErr_Format(PyExc_TypeError, "limits must be a neolink.Limits, not %.100s", Py_TYPE(tuple)->tp_name);
        return -1;
    }
    size_t *const sizes[] = {&limits->packet_bytes, &limits->conn_rx_bytes, &limits->link_rx_bytes,
                             &limits->link_tx_bytes, &limits->conns, &limits->accept_backlog};
    for (int i = LIMIT_PACKET; i <= LIMIT_BACKLOG; i++)
        if (limit_size(tuple, i, sizes[i]) < 0)
            return -1;
    int policy = word_of(limit_names[LIMIT_POLICY], PyTuple_GET_ITEM(tuple, LIMIT_POLICY), policy_words);
    if (policy < 0)
        return -1;
    limits->rx_fail = policy == 1;
    if (limit_duration(tuple, LIMIT_CLOSED_SECONDS, &limits->closed_ns) < 0)
        return -1;
    if (limit_duration(tuple, LIMIT_SPIN_SECONDS, &limits->spin_ns) < 0)
        return -1;
    return limit_share(tuple, LIMIT_STRAY_SHARE, &limits->stray_share);
}

static PyObject *size_or_none(size_t size)
{
    return size == NL_UNLIMITED ? Py_NewRef(Py_None) : PyLong_FromSize_t(size);
}

static double seconds_of_ns(int64_t ns)
{
    return ns == NL_FOREVER ? (double)INFINITY : (double)ns / 1e9;
}

PyObject *nlpy_default_limits(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    nl_limits l;

    nl_limits_default(&l);
    return Py_BuildValue("(NNNNNNsddd)", size_or_none(l.packet_bytes), size_or_none(l.conn_rx_bytes),
                         size_or_none(l.link_rx_bytes), size_or_none(l.link_tx_bytes), size_or_none(l.conns),
                         size_or_none(l.accept_backlog), policy_words[l.rx_fail],
                         seconds_of_ns(l.closed_ns), seconds_of_ns(l.spin_ns), l.stray_share);
}

/* ---- everything a link is made with ----------------------------------------------------------------------------- */

static bool is_given(PyObject *value)
{
    return value && value != Py_None;
}

static int version_of(PyObject *value, int *version)
{
    if (!PyLong_Check(value)) {
        PyErr_Format(PyExc_TypeError, "version must be an int or None, not %.100s", Py_TYPE(value)->tp_name);
        return -1;
    }
    long number = PyLong_AsLong(value);
    if (PyErr_Occurred() || number < 0 || number > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "version must be a protocol number of 0 or more, not %S", value);
        return -1;
    }
    *version = (int)number;
    return 0;
}

/* Whole seconds for the kernel, rounded up. */
static int seconds_of(PyObject *value, const char *name, int *seconds)
{
    int64_t ns;

    if (nlpy_duration(value, name, &ns) < 0)
        return -1;
    int64_t whole = ns == NL_FOREVER ? INT_MAX : ns / 1000000000 + (ns % 1000000000 ? 1 : 0);
    const int kernel_max = 32767;
    if (whole < 1 || whole > kernel_max) {
        PyErr_Format(PyExc_ValueError, "%s must be 1 to %d seconds, not %R", name, kernel_max, value);
        return -1;
    }
    *seconds = (int)whole;
    return 0;
}

static int keepalive_of(PyObject *value, nl_keepalive *keepalive)
{
    if (value == Py_None) {
        *keepalive = (nl_keepalive){0};
        return 0;
    }
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 3) {
        PyErr_Format(PyExc_TypeError, "keepalive must be (idle seconds, interval seconds, probes) or None, not %R",
                     value);
        return -1;
    }
    if (seconds_of(PyTuple_GET_ITEM(value, 0), "keepalive idle", &keepalive->idle_s) < 0 ||
        seconds_of(PyTuple_GET_ITEM(value, 1), "keepalive interval", &keepalive->interval_s) < 0)
        return -1;
    long probes = PyLong_AsLong(PyTuple_GET_ITEM(value, 2));
    if (probes == -1 && PyErr_Occurred())
        return -1;
    if (probes < 1 || probes > 127) {
        PyErr_Format(PyExc_ValueError, "keepalive probes must be 1 to 127, not %ld", probes);
        return -1;
    }
    keepalive->probes = (int)probes;
    return 0;
}

int nlpy_link_config(nlpy_state *state, const nlpy_options *options, nl_link_config *config)
{
    int word;

#ifndef Py_GIL_DISABLED
    config->in_turn = true;
#endif
    if (options->wire) {
        if ((word = word_of("wire", options->wire, wire_words)) < 0)
            return -1;
        config->wire = (nl_wire)word;
    }
    if (is_given(options->routing)) {
        if ((word = word_of("routing", options->routing, routing_words)) < 0)
            return -1;
        config->routing = (nl_routing)word;
    }
    if (options->accept) {
        if ((word = word_of("accept", options->accept, accept_words)) < 0)
            return -1;
        config->accept = (nl_accept)word;
    }
    if (is_given(options->tls)) {
        if (!Py_IS_TYPE(options->tls, state->tls_type)) {
            PyErr_Format(PyExc_TypeError, "tls must be a neolink.TLS or None, not %.100s",
                         Py_TYPE(options->tls)->tp_name);
            return -1;
        }
        config->tls = nlpy_tls_ctx(options->tls);
    }
    if (is_given(options->limits) && limits_of(options->limits, &config->limits) < 0)
        return -1;
    if (is_given(options->version) && version_of(options->version, &config->version) < 0)
        return -1;
    if (options->keepalive && keepalive_of(options->keepalive, &config->keepalive) < 0)
        return -1;
    return 0;
}
