/* class NodeLink:                                   # neolink.NodeLink adds what needs no C
 *     """A link between two nodes."""
 *     def __init__(self, fd: int, role: str, *, wire="2016", routing=None, accept="queue", tls=None, limits=None,
 *                  raw=False, first_id=0, timeout=30.0, let_go=None) -> None: ...  # timeout: of a TLS handshake
 *     role: str;  wire: str;  version: int | None;  closed: bool;  fault: Error | None
 *     local_address: Any;  peer_address: Any
 *     def fileno(self) -> int: ...
 *     def new_conn(self) -> Conn: ...
 *     def accept(self, timeout=None) -> Conn: ...
 *     def close_accept(self) -> None: ...
 *     def recv1(self, timeout=None) -> Request: ...
 *     def ask(self, code, payload=b"", *, timeout=None) -> Packet: ...     # or ask(message), neolink._typed
 *     def notify(self, code, payload=b"", *, timeout=None) -> None: ...    # or notify(message)
 *     def send_packet(self, packet, *, timeout=None) -> None: ...          # raw links
 *     def recv_packet(self, timeout=None) -> Packet: ...                   # raw links
 *     def close(self, timeout=5.0) -> None: ...
 *     def abort(self) -> None: ...
 *     def __iter__(self) -> Iterator[Conn]: ...
 *     def _stats(self) -> tuple[int, ...]: ...      def _wakes(self) -> int: ...
 *     def _take(self, request: bool, wakes: int) -> Conn | Request | None: ...
 *     def _ask_many(self, requests, timeout, return_exceptions) -> list[Packet | Error] | None: ...   # py_many.c, as
 *     def _notify_many(self, messages, timeout) -> bool: ...                                          # this one
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * There is one Python object for each core link: it is made where the core link is made, and Conns, Requests and errors
 * refer to it. So it can say "dropped without close()" when it dies: nothing else can be using the link then.
 */
#include "py_link.h"

#include <unistd.h>

#define CLOSE_SECONDS     5
#define HANDSHAKE_SECONDS 30

static nlpy_where here(nlpy_link *self, const char *op)
{
    return (nlpy_where){.state = self->state, .link = self, .op = op, .conn_id = -1};
}

static PyObject *link_raise(nlpy_link *self, const char *op, nl_err err)
{
    nlpy_where where = here(self, op);
    return nlpy_raise(&where, err);
}

bool nlpy_link_is_ready(nlpy_link *self)
{
    if (!self->link)
        PyErr_SetString(PyExc_ValueError, "this NodeLink has no link: NodeLink.__init__() was not called or failed");
    return self->link != NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* From here on the object has its core link. */
static void link_fill(nlpy_link *self, nl_link *link, const nl_limits *limits)
{
    const size_t head_max = 64;         /* more than any wire puts in front of a payload */
    size_t budget = limits->link_tx_bytes > head_max ? limits->link_tx_bytes - head_max : 0;

    self->small = budget < NLPY_SMALL ? budget : NLPY_SMALL;
    self->pid = getpid();
    self->claimed = true;
    self->link = link;                  /* last: whoever sees it sees the others */
}

PyObject *nlpy_link_wrap(nlpy_state *state, nl_link *link, const nl_limits *limits)
{
    PyTypeObject *type = state->link_class;
    nlpy_link *self = (nlpy_link *)type->tp_alloc(type, 0);

    if (!self) {
        nl_link_rele(link);
        return NULL;
    }
    self->state = state;
    link_fill(self, link, limits);
    return (PyObject *)self;
}

/* Runs when the last reference goes: the only place that can tell the user of a link he forgot to close. */
static void Link_finalize(nlpy_link *self)
{
    if (!self->link || self->pid != getpid() || nl_link_is_closed(self->link))
        return;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning((PyObject *)self, 1, "%R was dropped without close(): it is aborted", self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    nl_link_abort(self->link);          /* now, for the warning's filters may keep the object alive */
    PyErr_Restore(type, value, traceback);
}

static void Link_dealloc(nlpy_link *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    nl_link_rele(self->link);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Link_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *module = PyType_GetModuleByDef(type, &nlpy_module_def);      /* type may be a subclass */
    nlpy_link *self = module ? (nlpy_link *)type->tp_alloc(type, 0) : NULL;

    if (self)
        self->state = nlpy_state_of(module);
    return (PyObject *)self;
}

static int link_role(PyObject *role, nl_role *out)
{
    if (PyUnicode_Check(role) && PyUnicode_CompareWithASCIIString(role, "server") == 0)
        *out = NL_SERVER;
    else if (PyUnicode_Check(role) && PyUnicode_CompareWithASCIIString(role, "client") == 0)
        *out = NL_CLIENT;
    else {
        PyErr_Format(PyExc_ValueError, "role must be \"server\" or \"client\", not %R", role);
        return -1;
    }
    return 0;
}

static nl_err take_over(int fd, const nl_link_config *config, int64_t deadline, nl_link **link, nl_fault *why)
{
    nl_takeover takeover;
    nl_err err = nl_takeover_begin(&takeover, fd, config, why);

    if (err != NL_OK)
        return err;
    NLPY_WAIT(err, nl_takeover_wait(&takeover, deadline, link, why));
    nl_takeover_end(&takeover);
    return err;
}

/* Whoever had the descriptor lets go of it, now that it is the link's: nothing that may fail, and no signal's handler,
 * comes between the two, or both would close it. It is a built-in detach(), which forgets the descriptor before all
 * else; what it then fails to return, nobody wants. */
static void take_from(PyObject *let_go)
{
    PyObject *fd = PyObject_CallNoArgs(let_go);

    if (!fd)
        PyErr_Clear();
    Py_XDECREF(fd);
}

static int link_make(nlpy_link *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "role", "wire", "routing", "accept", "tls", "keepalive", "limits", "raw", "first_id",
                            "timeout", "let_go", NULL};
    nlpy_options options = {0};
    nl_link_config config;
    PyObject *role, *timeout = NULL, *let_go = NULL;
    unsigned int first_id = 0;
    int fd, raw = 0;
    int64_t deadline = nl_now_ns() + HANDSHAKE_SECONDS * INT64_C(1000000000);

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO|$OOOOOOpIOO:NodeLink", names, &fd, &role, &options.wire,
                                     &options.routing, &options.accept, &options.tls, &options.keepalive,
                                     &options.limits, &raw, &first_id, &timeout, &let_go))
        return -1;
    if (timeout && nlpy_deadline(timeout, &deadline) < 0)
        return -1;
    nl_link_config_default(&config);
    if (nlpy_link_config(self->state, &options, &config) < 0 || link_role(role, &config.role) < 0)
        return -1;
    if (config.wire == NL_WIRE_AUTO) {
        PyErr_SetString(PyExc_ValueError, "wire must be \"2016\", \"N\" or \"M\": a bare socket has no opening to tell "
                                          "it from; dial() and listen() have wire=\"auto\"");
        return -1;
    }
    config.raw = raw;
    config.first_id = first_id;

    nl_fault why = {0};
    nl_link *link = NULL;
    nl_err err = take_over(fd, &config, deadline, &link, &why);
    if (err == NL_OK) {
        link_fill(self, link, &config.limits);
        if (let_go && let_go != Py_None)
            take_from(let_go);
        return 0;
    }
    nlpy_where where = {.state = self->state, .op = "NodeLink", .conn_id = -1};
    nlpy_raise_why(&where, err, &why, NULL);
    return -1;
}

/* Its handshake waits without the GIL: of several threads that come here with the same object, one makes the link. */
static int Link_init(nlpy_link *self, PyObject *args, PyObject *kwargs)
{
    if (atomic_exchange(&self->claimed, true)) {
        PyErr_SetString(PyExc_RuntimeError, "NodeLink.__init__() was called already");
        return -1;
    }
    if (link_make(self, args, kwargs) == 0)
        return 0;
    self->claimed = false;
    return -1;
}

static const nlpy_signature close_sig = {"close", {"timeout", NULL}, 0, 1, NULL};

PyDoc_STRVAR(Link_close_doc, "close($self, /, timeout=5.0)\n--\n\n"
                             "Interrupt everything on the link and wait until no call is inside it. What was sent\n"
                             "before is still delivered to a peer that reads, within the timeout; the rest is cut.\n"
                             "Idempotent, from any thread.");

static PyObject *Link_close(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    int64_t deadline = 0;
    nl_err err;

    if (nlpy_args(&close_sig, args, nargs, kwnames, arg) < 0)
        return NULL;
    if (!arg[0])
        deadline = nl_now_ns() + CLOSE_SECONDS * INT64_C(1000000000);
    else if (nlpy_deadline(arg[0], &deadline) < 0)
        return NULL;
    if (!self->link)
        Py_RETURN_NONE;
    NLPY_WAIT(err, nl_link_close(self->link, deadline));
    /* With its time over it is closed all the same; in a forked child there is nothing to close. */
    if (err == NL_OK || err == NL_ETIMEOUT || err == NL_EFORKED)
        Py_RETURN_NONE;
    return link_raise(self, "close", err);
}

PyDoc_STRVAR(Link_abort_doc, "abort($self, /)\n--\n\nClose at once, without delivering what still waits to be sent.");

static PyObject *Link_abort(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    if (self->link)
        nl_link_abort(self->link);
    Py_RETURN_NONE;
}

static PyObject *Link_enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(self);
}

static PyObject *Link_exit(nlpy_link *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    PyObject *const to[] = {(PyObject *)self};

    return PyObject_VectorcallMethod(self->state->close, to, 1, NULL);
}

/* ---- Conns ------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(Link_new_conn_doc, "new_conn($self, /)\n--\n\n"
                                "Open a Conn. LinkClosed or LinkDown when the link is not open.");

static PyObject *Link_new_conn(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    nl_conn *conn;

    if (!nlpy_link_is_ready(self))
        return NULL;
    nl_err err = nl_conn_new(self->link, &conn);
    if (err == NL_OK)
        return nlpy_conn_wrap(self, conn);
    return link_raise(self, "new_conn", err);
}

PyDoc_STRVAR(Link_accept_doc, "accept($self, /, timeout=None)\n--\n\nThe next Conn that the peer opened.");

static PyObject *Link_accept(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nl_conn *conn = NULL;
    int64_t deadline;
    nl_err err;

    if (nlpy_timeout("accept", args, nargs, kwnames, &deadline) < 0 || !nlpy_link_is_ready(self))
        return NULL;
    NLPY_TRY_THEN_WAIT(err, true, deadline, false, nl_link_accept(self->link, at, &conn));
    if (err == NL_OK)
        return nlpy_conn_wrap(self, conn);
    return link_raise(self, "accept", err);
}

static PyObject *Link_next(nlpy_link *self)
{
    nl_conn *conn = NULL;
    nl_err err;

    if (!nlpy_link_is_ready(self))
        return NULL;
    NLPY_TRY_THEN_WAIT(err, true, NL_FOREVER, false, nl_link_accept(self->link, at, &conn));
    if (err == NL_OK)
        return nlpy_conn_wrap(self, conn);
    if (err == NL_ENOTACCEPTING || nlpy_is_clean_end(self->link, err))
        return NULL;
    return link_raise(self, "accept", err);
}

PyDoc_STRVAR(Link_recv1_doc, "recv1($self, /, timeout=None)\n--\n\n"
                             "Accept a Conn and receive its opening packet, in one go.");

static PyObject *Link_recv1(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nl_packet *packet = NULL;
    nl_conn *conn = NULL;
    int64_t deadline;
    nl_err err;

    if (nlpy_timeout("recv1", args, nargs, kwnames, &deadline) < 0 || !nlpy_link_is_ready(self))
        return NULL;
    NLPY_TRY_THEN_WAIT(err, true, deadline, false, nl_link_recv1(self->link, at, &conn, &packet));
    if (err == NL_OK)
        return nlpy_request_wrap(self, conn, packet);
    return link_raise(self, "recv1", err);
}

PyDoc_STRVAR(Link_take_doc, "_take($self, request, wakes, /)\n--\n\n"
                            "accept() or recv1() for a worker: None when a signal came instead, or\n"
                            "_wake_accept() since _wakes() was `wakes`.");

static PyObject *Link_take(nlpy_link *self, PyObject *args)
{
    nl_packet *packet = NULL;
    nl_conn *conn = NULL;
    int is_request;
    unsigned wakes;
    nl_err err;

    if (!PyArg_ParseTuple(args, "pI:_take", &is_request, &wakes) || !nlpy_link_is_ready(self))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    err = nl_link_take(self->link, wakes, &conn, is_request ? &packet : NULL);
    NLPY_END_ALLOW_THREADS
    if (err == NL_OK)
        return is_request ? nlpy_request_wrap(self, conn, packet) : nlpy_conn_wrap(self, conn);
    if (err == NL_EINTR && PyErr_CheckSignals() == 0)
        Py_RETURN_NONE;
    return link_raise(self, is_request ? "recv1" : "accept", err);
}

PyDoc_STRVAR(Link_wakes_doc, "_wakes($self, /)\n--\n\nHow many times _wake_accept() was called: for _take().");

static PyObject *Link_wakes(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    return nlpy_link_is_ready(self) ? PyLong_FromUnsignedLong(nl_link_wakes(self->link)) : NULL;
}

PyDoc_STRVAR(Link_wake_accept_doc, "_wake_accept($self, /)\n--\n\n"
                                   "Make every _take() return None whose `wakes` is of before.");

static PyObject *Link_wake_accept(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    if (!nlpy_link_is_ready(self))
        return NULL;
    nl_link_wake_accept(self->link);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Link_close_accept_doc, "close_accept($self, /)\n--\n\n"
                                    "Accept no more: waiting and later openers are answered \"connection refused\".");

static PyObject *Link_close_accept(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    if (!nlpy_link_is_ready(self))
        return NULL;
    nl_link_close_accept(self->link);
    Py_RETURN_NONE;
}

/* ---- asking and telling ----------------------------------------------------------------------------------------- */

static const nlpy_signature ask_sig = NLPY_SEND_SIGNATURE("ask");

PyDoc_STRVAR(Link_ask_doc, "ask($self, /, code, payload=b'', *, timeout=None)\n--\n\n"
                           "Send a request on a Conn of its own and return the answer. ask(message) returns the typed\n"
                           "answer, and an Error answer raises.");

/* One ask and all that it needs. */
typedef struct whole_ask {
    nl_link  *link;
    nlpy_out  out;
    nl_ask    ask;
    bool      maybe_sent;
} whole_ask;

static nl_err wait_and_look(nl_ask *ask, int64_t deadline, nl_packet **answer, int64_t *woken_ns)
{
    nl_err err = nl_ask_wait(ask, deadline, answer);

    *woken_ns = nl_now_ns();
    return err;
}

/* Waits for the answer without the GIL, and tells the core what it took to get that back: 5 ms beside a thread that
 * computes. An answer that comes in a try is worth a good deal then. */
static nl_err ask_asleep(whole_ask *whole, int64_t deadline, nl_packet **answer)
{
    int64_t woken_ns;
    nl_err err;

    if (!nl_link_tries(whole->link)) {
        NLPY_WAIT(err, nl_ask_wait(&whole->ask, deadline, answer));
    } else {
        NLPY_WAIT(err, wait_and_look(&whole->ask, deadline, answer, &woken_ns));
        nl_link_slept_dearly(whole->link, nl_now_ns() - woken_ns);
    }
    return err;
}

/* The usual way: begun with the GIL, which is given up only if the answer does not come at once. */
static nl_err ask_in_steps(whole_ask *whole, size_t small, int64_t deadline, nl_packet **answer)
{
    nl_err err;

    NLPY_TRY_THEN_WAIT(err, whole->out.len <= small, deadline, whole->maybe_sent,
                       nl_ask_begin(whole->link, &whole->ask, whole->out.code, whole->out.payload, whole->out.len, at,
                                    &whole->maybe_sent));
    nlpy_out_release(&whole->out);
    if (err != NL_OK)
        return err;
    err = nl_link_tries(whole->link) ? nl_ask_wait(&whole->ask, NL_TRY, answer) : NL_ETIMEOUT;
    return err == NL_ETIMEOUT || err == NL_EINTR ? ask_asleep(whole, deadline, answer) : err;
}

/* Will it have to sleep in any case, and to give the GIL up for that? Then it does so first. Where others wait already,
 * one of them reads; and in a crowd, whoever has the GIL waits for the link's lock, which threads that were woken pass
 * through on their way to the GIL. A caller's buffer is not kept that long: its owner may change it once it is sent. */
static bool will_sleep(const whole_ask *whole)
{
    return !whole->out.view.obj && (!nl_link_tries(whole->link) || nl_link_is_waited_on(whole->link));
}

static PyObject *Link_ask(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    nl_packet *answer = NULL;
    int64_t deadline;
    nl_err err;

    if (nlpy_args(&ask_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[2], &deadline) < 0 ||
        !nlpy_link_is_ready(self))
        return NULL;
    whole_ask whole;                    /* set field by field: clearing all of it takes longer than the rest */
    whole.link = self->link;
    whole.ask.begun = whole.maybe_sent = false;
    int raw = nlpy_out_parse(self->state, &whole.out, arg[0], arg[1]);
    if (raw < 0)
        return NULL;
    nlpy_asking asking = { .known = NULL };    /* an ask by code */
    if (raw == 0) {
        int known = nlpy_asking_begin(self, arg[0], &asking, &whole.out);
        if (known < 0)
            return NULL;
        if (known == 0)
            return nlpy_typed_call(self->state, TYPED_LINK_ASK, (PyObject *)self, arg[0], arg[2]);
    }
    if (will_sleep(&whole))
        NLPY_WAIT(err, nl_ask_whole(whole.link, &whole.ask, whole.out.code, whole.out.payload, whole.out.len, deadline,
                                    &whole.maybe_sent, &answer));
    else
        err = ask_in_steps(&whole, self->small, deadline, &answer);
    nlpy_where where = here(self, "ask");
    where.sends = true;
    where.len = whole.out.len;
    where.maybe_sent = whole.maybe_sent;
    if (whole.ask.begun) {
        where.conn_id = whole.ask.conn_id;
        nl_ask_end(&whole.ask);
    }
    PyObject *result = err != NL_OK ? nlpy_raise(&where, err)
                       : asking.known ? nlpy_asking_answer(self, &asking, answer)
                                      : nlpy_packet_wrap(self->state, answer, nl_link_wire(self->link));
    nlpy_asking_end(&asking);
    return result;
}

static const nlpy_signature notify_sig = NLPY_SEND_SIGNATURE("notify");

PyDoc_STRVAR(Link_notify_doc, "notify($self, /, code, payload=b'', *, timeout=None)\n--\n\n"
                              "Send a packet on a Conn of its own and expect no answer. Also notify(message).");

static PyObject *Link_notify(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    int64_t deadline;
    nlpy_out out;
    nl_err err;

    if (nlpy_args(&notify_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[2], &deadline) < 0 ||
        !nlpy_link_is_ready(self))
        return NULL;
    int raw = nlpy_out_parse(self->state, &out, arg[0], arg[1]);
    if (raw < 0)
        return NULL;
    if (raw == 0)
        return nlpy_typed_call(self->state, TYPED_LINK_NOTIFY, (PyObject *)self, arg[0], arg[2]);
    nlpy_where where = here(self, "notify");
    where.sends = true;
    where.len = out.len;
    NLPY_TRY_THEN_WAIT(err, out.len <= self->small, deadline, where.maybe_sent,
                       nl_link_notify(self->link, out.code, out.payload, out.len, at, &where.maybe_sent));
    nlpy_out_release(&out);
    if (err != NL_OK)
        return nlpy_raise(&where, err);
    Py_RETURN_NONE;
}

/* ---- raw links -------------------------------------------------------------------------------------------------- */

static const nlpy_signature send_packet_sig = {"send_packet", {"packet", "timeout", NULL}, 1, 1, NULL};

PyDoc_STRVAR(Link_send_packet_doc, "send_packet($self, /, packet, *, timeout=None)\n--\n\n"
                                   "Send a packet under the id it has. Links made with raw=True only.");

static PyObject *Link_send_packet(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *arg[NLPY_ARGS_MAX];
    int64_t deadline;
    nlpy_out out;
    nl_err err;

    if (nlpy_args(&send_packet_sig, args, nargs, kwnames, arg) < 0 || nlpy_deadline(arg[1], &deadline) < 0 ||
        !nlpy_link_is_ready(self))
        return NULL;
    if (!Py_IS_TYPE(arg[0], self->state->packet_type))
        return PyErr_Format(PyExc_TypeError, "packet must be a neolink.Packet, not %.100s", Py_TYPE(arg[0])->tp_name);
    nlpy_packet *packet = (nlpy_packet *)arg[0];
    nlpy_out_of_packet(&out, packet);
    nlpy_where where = here(self, "send_packet");
    where.sends = true;
    where.len = out.len;
    NLPY_TRY_THEN_WAIT(err, out.len <= self->small, deadline, where.maybe_sent,
                       nl_link_send_packet(self->link, packet->conn_id, out.code, out.payload, out.len, at,
                                           &where.maybe_sent));
    if (err != NL_OK)
        return nlpy_raise(&where, err);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Link_recv_packet_doc, "recv_packet($self, /, timeout=None)\n--\n\n"
                                   "The next packet of the link, whatever its id. Links made with raw=True only.");

static PyObject *Link_recv_packet(nlpy_link *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    nl_packet *packet = NULL;
    int64_t deadline;
    nl_err err;

    if (nlpy_timeout("recv_packet", args, nargs, kwnames, &deadline) < 0 || !nlpy_link_is_ready(self))
        return NULL;
    NLPY_TRY_THEN_WAIT(err, true, deadline, false, nl_link_recv_packet(self->link, at, &packet));
    if (err == NL_OK)
        return nlpy_packet_wrap(self->state, packet, nl_link_wire(self->link));
    return link_raise(self, "recv_packet", err);
}

/* ---- what it is ------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(Link_fileno_doc, "fileno($self, /)\n--\n\nThe socket's descriptor, -1 once closed.");

static PyObject *Link_fileno(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(self->link ? nl_link_fd(self->link) : -1);
}

PyDoc_STRVAR(Link_stats_doc, "_stats($self, /)\n--\n\nOne consistent snapshot, in the order of neolink.LinkStats.");

static PyObject *Link_stats(nlpy_link *self, PyObject *Py_UNUSED(unused))
{
    nl_stats s;

    if (!nlpy_link_is_ready(self))
        return NULL;
    nl_link_stats(self->link, &s);
    const uint64_t numbers[] = {
        s.packets_sent, s.packets_received, s.bytes_sent, s.bytes_received, s.conns, s.rx_bytes_queued,
        s.tx_bytes_queued, s.late_answers, s.ignored_packets, s.refused_conns, s.rx_takes, s.rx_handovers, s.rx_arms,
        s.poller_reads, s.poller_idle_wakeups, s.tx_turns, s.tx_handoffs, s.tx_for_others, s.spins, s.spin_hits,
        s.waiters, s.inside, s.throttles, s.wakes_left, s.turn_waits,
    };
    const Py_ssize_t n = (Py_ssize_t)(sizeof numbers / sizeof numbers[0]);
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (!number)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, number);
    }
    return tuple;
}

static PyObject *Link_get_role(nlpy_link *self, void *Py_UNUSED(closure))
{
    if (!nlpy_link_is_ready(self))
        return NULL;
    return PyUnicode_FromString(nl_link_role(self->link) == NL_SERVER ? "server" : "client");
}

static PyObject *Link_get_wire(nlpy_link *self, void *Py_UNUSED(closure))
{
    return nlpy_link_is_ready(self) ? PyUnicode_FromString(nlpy_wire_name(nl_link_wire(self->link))) : NULL;
}

static PyObject *Link_get_routing(nlpy_link *self, void *Py_UNUSED(closure))
{
    if (!nlpy_link_is_ready(self))
        return NULL;
    return PyUnicode_FromString(nl_link_routing(self->link) == NL_ROUTE_NEO ? "neo" : "stream");
}

static PyObject *Link_get_version(nlpy_link *self, void *Py_UNUSED(closure))
{
    if (!nlpy_link_is_ready(self))
        return NULL;
    int version = nl_link_version(self->link);
    if (version < 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(version);
}

static PyObject *Link_get_local_address(nlpy_link *self, void *Py_UNUSED(closure))
{
    socklen_t len;

    if (!nlpy_link_is_ready(self))
        return NULL;
    const struct sockaddr *address = nl_link_local(self->link, &len);
    return nlpy_address(address, len);
}

static PyObject *Link_get_peer_address(nlpy_link *self, void *Py_UNUSED(closure))
{
    socklen_t len;

    if (!nlpy_link_is_ready(self))
        return NULL;
    const struct sockaddr *address = nl_link_peer(self->link, &len);
    return nlpy_address(address, len);
}

static PyObject *Link_get_closed(nlpy_link *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->link || nl_link_is_closed(self->link));
}

static PyObject *Link_get_fault(nlpy_link *self, void *Py_UNUSED(closure))
{
    nl_fault fault;

    if (!nlpy_link_is_ready(self))
        return NULL;
    if (!nl_link_fault(self->link, &fault))
        Py_RETURN_NONE;
    nlpy_where where = here(self, NULL);
    return nlpy_error(&where, fault.code, &fault, NULL);
}

static PyObject *Link_get_serial(nlpy_link *self, void *Py_UNUSED(closure))
{
    return nlpy_link_is_ready(self) ? PyLong_FromUnsignedLongLong(nl_link_serial(self->link)) : NULL;
}

PyObject *nlpy_link_text(const nlpy_link *self)
{
    socklen_t local_len, peer_len;
    const struct sockaddr *local = nl_link_local(self->link, &local_len), *peer = nl_link_peer(self->link, &peer_len);
    PyObject *from = nlpy_address_text(local, local_len), *to = nlpy_address_text(peer, peer_len), *text = NULL;

    if (from && to)
        text = PyUnicode_FromFormat("%U -> %U", from, to);
    Py_XDECREF(from);
    Py_XDECREF(to);
    return text;
}

static PyObject *Link_repr(nlpy_link *self)
{
    nl_fault fault;

    if (!self->link)
        return PyUnicode_FromString("<neolink.NodeLink without a link>");
    PyObject *text = nlpy_link_text(self), *repr;
    if (!text)
        return NULL;
    const char *state = !nl_link_is_closed(self->link)         ? "open"
                        : nl_link_fault(self->link, &fault)    ? "down"
                                                               : "closed";
    repr = PyUnicode_FromFormat("<neolink.NodeLink %s %s %U %s>", nlpy_wire_name(nl_link_wire(self->link)),
                                nl_link_role(self->link) == NL_SERVER ? "server" : "client", text, state);
    Py_DECREF(text);
    return repr;
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

static PyMethodDef Link_methods[] = {
    {"new_conn", (PyCFunction)Link_new_conn, METH_NOARGS, Link_new_conn_doc},
    {"accept", FAST(Link_accept), Link_accept_doc},
    {"close_accept", (PyCFunction)Link_close_accept, METH_NOARGS, Link_close_accept_doc},
    {"recv1", FAST(Link_recv1), Link_recv1_doc},
    {"ask", FAST(Link_ask), Link_ask_doc},
    {"notify", FAST(Link_notify), Link_notify_doc},
    {"send_packet", FAST(Link_send_packet), Link_send_packet_doc},
    {"recv_packet", FAST(Link_recv_packet), Link_recv_packet_doc},
    {"close", FAST(Link_close), Link_close_doc},
    {"abort", (PyCFunction)Link_abort, METH_NOARGS, Link_abort_doc},
    {"fileno", (PyCFunction)Link_fileno, METH_NOARGS, Link_fileno_doc},
    {"_stats", (PyCFunction)Link_stats, METH_NOARGS, Link_stats_doc},
    {"_take", (PyCFunction)Link_take, METH_VARARGS, Link_take_doc},
    {"_wakes", (PyCFunction)Link_wakes, METH_NOARGS, Link_wakes_doc},
    {"_wake_accept", (PyCFunction)Link_wake_accept, METH_NOARGS, Link_wake_accept_doc},
    {"_ask_many", FAST(nlpy_link_ask_many), nlpy_link_ask_many_doc},
    {"_notify_many", FAST(nlpy_link_notify_many), nlpy_link_notify_many_doc},
    {"__enter__", Link_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Link_exit, METH_FASTCALL, NULL},
    NLPY_NO_PICKLE,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef Link_getset[] = {
    {"role", (getter)Link_get_role, NULL, "\"server\" or \"client\".", NULL},
    {"wire", (getter)Link_get_wire, NULL, "\"2016\", \"N\" or \"M\".", NULL},
    {"routing", (getter)Link_get_routing, NULL, "\"stream\" or \"neo\".", NULL},
    {"version", (getter)Link_get_version, NULL, "The protocol number agreed on, or None.", NULL},
    {"local_address", (getter)Link_get_local_address, NULL, "Our end, taken once; valid after the end too.", NULL},
    {"peer_address", (getter)Link_get_peer_address, NULL, "The peer's end, taken once.", NULL},
    {"closed", (getter)Link_get_closed, NULL, "Closed by us or down.", NULL},
    {"fault", (getter)Link_get_fault, NULL, "The first fault of a link that went down, or None.", NULL},
    {"serial", (getter)Link_get_serial, NULL, "A number no other link of the process has: trace events carry it.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(Link_doc, "NodeLink(fd, role, *, wire='2016', routing=None, accept='queue', tls=None,\n"
                       "         keepalive=(60, 10, 3), limits=None, raw=False, first_id=0, timeout=30.0,\n"
                       "         let_go=None)\n--\n\nThe compiled part of neolink.NodeLink.");

static PyType_Slot Link_slots[] = {
    {Py_tp_doc, (void *)Link_doc},
    {Py_tp_new, Link_new},
    {Py_tp_init, Link_init},
    {Py_tp_finalize, Link_finalize},
    {Py_tp_dealloc, Link_dealloc},
    {Py_tp_repr, Link_repr},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, Link_next},
    {Py_tp_methods, Link_methods},
    {Py_tp_getset, Link_getset},
    {0, NULL},
};

static PyType_Spec Link_spec = {
    .name = "neolink._core.NodeLink",
    .basicsize = sizeof(nlpy_link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Link_slots,
};

int nlpy_link_setup(PyObject *module)
{
    nlpy_state *state = nlpy_state_of(module);

    state->link_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &Link_spec, NULL);
    state->close = PyUnicode_InternFromString("close");
    if (!state->link_type || !state->close)
        return -1;
    state->link_class = state->link_type;
    return PyModule_AddType(module, state->link_type);
}
