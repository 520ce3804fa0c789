/* What the files of the Python face share: the module's state, and the few helpers every type uses.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The face is thin. A Python object owns one reference to a core object and nothing of its insides; whatever can wait
 * is one core call with a deadline, made without the GIL (py_wait.h); whatever fails goes through one translator
 * (py_err.c). Names: Link_ask is NodeLink.ask as the class reads in Python; nlpy_ is shared between these files.
 *
 * Nothing below needs the GIL to be right, for there are builds of Python without one (docs/design.rst). A field is set
 * before a second thread can know of its object and then stays, or it is atomic, or a critical section guards it; the
 * comments name the latter two. The core's own locks are never held while the GIL is taken, and no core call that can
 * wait is made with the GIL held; calls with NL_NOW do not wait.
 */
#ifndef NLPY_MODULE_H
#define NLPY_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>

#include "neolink.h"

/* They came with Python 3.13. Where there is a GIL they are mere braces, in later versions too. */
#ifndef Py_BEGIN_CRITICAL_SECTION
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* Exceptions, by the place of their class in the module state; py_err.c has the names. */
typedef enum nlpy_exc {
    EXC_LINK_CLOSED, EXC_LINK_DOWN, EXC_PROTOCOL, EXC_HANDSHAKE, EXC_CONN_CLOSED, EXC_NOT_ACCEPTING, EXC_TIMEOUT,
    EXC_TOO_BIG, EXC_TOO_MANY, EXC_FORKED, EXC_DECODE, EXC_ENCODE, EXC_COUNT
} nlpy_exc;

/* Functions of neolink._typed: what a method does when its first argument is a message instead of a code. */
typedef enum nlpy_typed {
    TYPED_LINK_ASK, TYPED_LINK_NOTIFY, TYPED_CONN_SEND, TYPED_CONN_ASK, TYPED_CONN_EXPECT, TYPED_REQUEST_REPLY,
    TYPED_PACKET_MESSAGE, TYPED_LINK_ANSWER, TYPED_COUNT
} nlpy_typed;

typedef struct nlpy_link nlpy_link;

typedef struct nlpy_state {
    PyTypeObject *link_type, *conn_type, *packet_type, *request_type, *listener_type, *dialer_type, *tls_type;
    PyObject     *exceptions[EXC_COUNT];
    struct nlpy_packet *packets;            /* freed ones, kept for reuse through `next`; each without its type's
                                             * reference */
    int           packets_room;             /* so many more may be kept: 0 for ever where there is no GIL */
    PyObject     *close;                    /* "close", interned: the interpreter keeps a name it has looked up */
    /* What _install() set, to be set anew when neolink is reloaded: atomic, and borrowed from `installed`, a list that
     * keeps all there ever was, for another thread may be about to call what is replaced. */
    PyObject     *installed;
    _Atomic(PyTypeObject *) link_class;     /* what dialing and accepting make: neolink.NodeLink once installed */
    _Atomic(PyObject *) typed[TYPED_COUNT]; /* NULL until installed */
    _Atomic(PyObject *) askings[NL_WIRE_AUTO];  /* by wire: dicts of py_typed.c, or NULL */
} nlpy_state;

/* Py_END_ALLOW_THREADS where the core was called in between. A thread that waits for the GIL with a lock of the core in
 * its hands stops whoever has the GIL and wants that lock. Only a build that counts locks can tell. */
#ifdef NL_COUNT_LOCKS
static inline void nlpy_check_unlocked(void)
{
    if (nl_locks_held() != 0) {
        fputs("neolink: a lock of the core is held where the GIL is taken\n", stderr);
        abort();                        /* Py_FatalError keeps faulthandler, and so pytest, from saying where */
    }
}
#else
static inline void nlpy_check_unlocked(void) { }
#endif
#define NLPY_END_ALLOW_THREADS nlpy_check_unlocked(); Py_END_ALLOW_THREADS

extern struct PyModuleDef nlpy_module_def;
nlpy_state *nlpy_state_of(PyObject *module);

/* ---- the objects that more than one file looks into ----------------------------------------------------------- */

struct nlpy_link {
    PyObject_HEAD
    nlpy_state *state;          /* borrowed: the type keeps the module */
    atomic_bool claimed;        /* somebody is in __init__, or it has succeeded */
    _Atomic(nl_link *) link;    /* owned; NULL until __init__ has succeeded, then never again; set after those below */
    size_t      small;          /* payloads up to this are sent with the GIL held: py_wait.h */
    pid_t       pid;            /* who made it: a forked child neither warns nor aborts */
};

typedef struct nlpy_packet {
    PyObject_HEAD
    union {
        nl_packet          *packet; /* owned; NULL when made in Python */
        struct nlpy_packet *next;   /* freed: see nlpy_state */
    };
    PyObject   *bytes;          /* owned; the payload when made in Python */
    const void *payload;
    size_t      len;
    uint32_t    conn_id;
    uint16_t    code;
    int8_t      wire;           /* nl_wire of the link it came from, -1: made in Python */
} nlpy_packet;

/* What a Conn and a Request begin with, and what the code that both share takes them for. */
#define NLPY_SENDER_HEAD                                                                                              \
    PyObject_HEAD                                                                                                     \
    nl_conn   *conn;            /* owned */                                                                           \
    nlpy_link *link;            /* strong: Conn.link is the very object it came from */

typedef struct nlpy_sender {
    NLPY_SENDER_HEAD
} nlpy_sender;

/* For a dealloc: `list` is the object's. Where there is no GIL, a weak reference that another thread lets go of takes
 * itself off the list at the same time. */
static inline void nlpy_clear_weakrefs(PyObject *object, PyObject **list)
{
    if (__atomic_load_n(list, __ATOMIC_ACQUIRE))
        PyObject_ClearWeakRefs(object);
}

/* Each makes one type and puts it into the state and the module. 0 or -1 with an exception, as all below. */
int nlpy_packet_setup(PyObject *module);
int nlpy_conn_setup(PyObject *module);
int nlpy_request_setup(PyObject *module);
int nlpy_link_setup(PyObject *module);
int nlpy_listener_setup(PyObject *module);
int nlpy_dialer_setup(PyObject *module);
int nlpy_tls_setup(PyObject *module);
int nlpy_err_setup(PyObject *module);
extern PyMethodDef nlpy_trace_methods[];    /* module functions of py_trace.c */

/* Makers. Each takes over the core reference it is given, also when it fails. */
PyObject *nlpy_link_wrap(nlpy_state *state, nl_link *link, const nl_limits *limits);
PyObject *nlpy_conn_wrap(nlpy_link *link, nl_conn *conn);
PyObject *nlpy_packet_wrap(nlpy_state *state, nl_packet *packet, nl_wire wire);
PyObject *nlpy_request_wrap(nlpy_link *link, nl_conn *conn, nl_packet *packet);
void nlpy_packets_trim(nlpy_state *state);          /* frees those kept, and keeps no more */

/* "127.0.0.1:4000 -> 127.0.0.1:24210": the link as texts name it. New reference. */
PyObject *nlpy_link_text(const nlpy_link *self);

/* ---- errors: py_err.c ----------------------------------------------------------------------------------------- */

/* Where it happened, for the text and the attributes of the exception. */
typedef struct nlpy_where {
    nlpy_state *state;
    nlpy_link  *link;           /* NULL: no link yet */
    const char *op;             /* "send", "recv", …; NULL: none, the link itself is asked about */
    int64_t     conn_id;        /* -1: no Conn */
    size_t      len;            /* of the payload that was to be sent */
    bool        sends;          /* the op sends a packet, so maybe_sent means something */
    bool        maybe_sent;
} nlpy_where;

/* Raises what `err` means there and returns NULL. NL_EINTR means that an exception is set already. */
PyObject *nlpy_raise(const nlpy_where *where, nl_err err);
/* The same for failures that come with their own story. Each of why and report may be NULL. */
PyObject *nlpy_raise_why(const nlpy_where *where, nl_err err, const nl_fault *why, const nl_hs_report *report);
/* The exception as an object. New reference, or NULL with another exception set. */
PyObject *nlpy_error(const nlpy_where *where, nl_err err, const nl_fault *why, const nl_hs_report *report);
/* Was this the end that iteration takes for its own? Our close, or an end of file between two packets. */
bool nlpy_is_clean_end(nl_link *link, nl_err err);

/* ---- arguments: py_args.c ------------------------------------------------------------------------------------- */

#define NLPY_ARGS_MAX 4

/* What a method called with METH_FASTCALL | METH_KEYWORDS takes. */
typedef struct nlpy_signature {
    const char *function;
    const char *names[NLPY_ARGS_MAX];   /* the positional ones first; NULL ends */
    int         n_required, n_positional;
    const char *alias;                  /* another keyword for the first, or NULL */
} nlpy_signature;

/* Sorts the arguments into out[] by their place in names[]; what was not given is NULL. Borrowed references. */
int nlpy_args(const nlpy_signature *sig, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

/* A packet to send: code and payload, whatever they were given as. */
typedef struct nlpy_out {
    const void *payload;
    size_t      len;
    uint16_t    code;
    Py_buffer   view;                   /* view.obj is NULL when there is nothing to release */
} nlpy_out;

int  nlpy_code(PyObject *value, uint16_t *code);
/* `payload` NULL: none. The memory stays valid until nlpy_out_release() while the caller holds `payload`. */
int  nlpy_out_get(nlpy_out *out, PyObject *code, PyObject *payload);
void nlpy_out_of_packet(nlpy_out *out, nlpy_packet *packet);
void nlpy_out_release(nlpy_out *out);

/* Of send, ask, notify and reply. */
#define NLPY_SEND_SIGNATURE(op) {op, {"code", "payload", "timeout", NULL}, 1, 2, "message"}
/* Conn.send and Request.reply: the signature of either, and what each does with a typed message. */
PyObject *nlpy_conn_send(nlpy_sender *self, const nlpy_signature *sig, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames, nlpy_typed typed);

/* The first argument of send, ask, notify and reply: 1: a code or a Packet, *out is filled; 0: a typed message;
 * -1: an exception. */
int nlpy_out_parse(nlpy_state *state, nlpy_out *out, PyObject *first, PyObject *payload);
/* neolink._typed.<function>(self, message, timeout). */
PyObject *nlpy_typed_call(nlpy_state *state, nlpy_typed function, PyObject *self, PyObject *message, PyObject *timeout);

/* ---- asking by messages: py_typed.c ---------------------------------------------------------------------------- */

typedef struct nlpy_asking {
    PyObject *known;                    /* owned, what is known of the message's class; NULL: nothing was begun */
    PyObject *message;                  /* the caller's */
    PyObject *payload;                  /* owned; *out refers to it */
} nlpy_asking;

/* 1: *out is the message's packet, and nlpy_asking_end() must follow; 0: it is for TYPED_LINK_ASK; -1: an exception. */
int nlpy_asking_begin(const nlpy_link *link, PyObject *message, nlpy_asking *asking, nlpy_out *out);
void nlpy_asking_end(nlpy_asking *asking);
/* The message that answers it. Takes over `answer`. */
PyObject *nlpy_asking_answer(nlpy_link *link, const nlpy_asking *asking, nl_packet *answer);

/* __reduce__ of every type: TypeError. */
PyObject *nlpy_no_pickle(PyObject *self, PyObject *unused);
#define NLPY_NO_PICKLE {"__reduce__", nlpy_no_pickle, METH_NOARGS, "Not picklable: it lives in this process only."}

/* ---- addresses and settings: py_config.c ---------------------------------------------------------------------- */

PyObject *nlpy_address(const struct sockaddr *address, socklen_t len);          /* as the socket module has it */
PyObject *nlpy_address_text(const struct sockaddr *address, socklen_t len);     /* "127.0.0.1:80", "unix:/path" */
/* (family, address), as socket.getaddrinfo() returns the two. */
int nlpy_sockaddr(PyObject *pair, struct sockaddr_storage *out, socklen_t *len);
PyObject *nlpy_endpoint(PyObject *module, PyObject *target);

/* The options that NodeLink, dial and listen share, as they were given; NULL: not given. */
typedef struct nlpy_options {
    PyObject *wire, *routing, *accept, *tls, *limits, *version, *keepalive;
} nlpy_options;
int nlpy_link_config(nlpy_state *state, const nlpy_options *options, nl_link_config *config);
const char *nlpy_wire_name(nl_wire wire);                                       /* "2016", "N", "M" */
PyObject *nlpy_default_limits(PyObject *module, PyObject *unused);
nl_tls_ctx *nlpy_tls_ctx(PyObject *tls);                                        /* borrowed */

#endif
