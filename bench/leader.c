/* The bare leader design under Python: many threads ask on one socket, and the thread that waits is the one that reads.
 * No budgets, no deadlines, no close and no errors: what remains when neolink's core is reduced to this one idea.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *     def connect(port: str) -> None: ...                  # the one socket
 *     def ask(code: int, payload: bytes) -> bytes: ...     # from any thread
 *
 * A request is written by its caller under a mutex. If nobody reads, the caller does, as the leader: it delivers each
 * answer to the slot on its asker's stack, and wakes that asker, until its own answer is here; then it hands the
 * leadership to another that still waits. The GIL is left around all of that.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bench.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define SLOTS  4096u            /* a power of two, and more than there are askers */
#define ROOM   ((size_t)64 << 10)
#define BATCH  128              /* askers woken after one hold of the mutex */
#define PACKET 4096u            /* the largest */

typedef struct slot {
    struct slot *before, *after;        /* in the ring of those that wait */
    bool         done, leads;
    atomic_uint  word;                  /* futex: 1 when posted */
    size_t       len;
    uint8_t      payload[PACKET];       /* of the answer */
} slot;

static int sock;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER, writing = PTHREAD_MUTEX_INITIALIZER;
static slot *slots[SLOTS];      /* under mu: of the ask with the id 2 * i + 1, and of those SLOTS further on */
static slot ring = { .before = &ring, .after = &ring };
static uint32_t next_id = 1;
static bool led;                /* somebody reads */
static uint8_t bytes[ROOM];     /* the leader's: what it read */
static size_t have;

static void futex(atomic_uint *word, int op, unsigned value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Delivers the whole packets in `bytes`, at most BATCH; how many sleepers are to be woken. */
static size_t deliver(const slot *mine, atomic_uint **words)
{
    size_t at = 0, n = 0, count = 0;

    for (; count < BATCH && have - at >= HEAD && have - at >= load32(bytes + at + 6); count++) {
        const uint8_t *p = bytes + at;
        slot **entry = &slots[load32(p) / 2 % SLOTS], *s = *entry;
        if (!s || load32(p + 6) - HEAD > PACKET)
            die("an answer");
        *entry = NULL;
        s->len = load32(p + 6) - HEAD;
        memcpy(s->payload, p + HEAD, s->len);
        s->done = true;
        s->before->after = s->after;
        s->after->before = s->before;
        atomic_store(&s->word, 1);
        if (s != mine)
            words[n++] = &s->word;
        at += HEAD + s->len;
    }
    have -= at;
    memmove(bytes, bytes + at, have);
    return n;
}

/* Is a whole packet in `bytes`? The leader asks. */
static bool has_packet(void) { return have >= HEAD && have >= load32(bytes + 6); }

/* Reads until the answer is here. A slot may be gone when its word is woken: the kernel takes the address for a key. */
static void lead(slot *mine)
{
    atomic_uint *words[BATCH + 1];
    size_t n;

    do {
        if (!has_packet()) {
            ssize_t got = recv(sock, bytes + have, ROOM - have, 0);
            if (got <= 0)
                die("recv");
            have += (size_t)got;
        }
        pthread_mutex_lock(&mu);
        n = deliver(mine, words);
        if (mine->done && (led = ring.before != &ring)) {
            ring.before->leads = true;
            atomic_store(&ring.before->word, 1);
            words[n++] = &ring.before->word;
        }
        pthread_mutex_unlock(&mu);
        for (size_t i = 0; i < n; i++)
            futex(words[i], FUTEX_WAKE, 1);
    } while (!mine->done);
}

/* Enters the slot, and its id into the packet. */
static void enter(slot *mine, uint8_t *packet)
{
    pthread_mutex_lock(&mu);
    if (slots[next_id / 2 % SLOTS])
        die("too many askers");
    slots[next_id / 2 % SLOTS] = mine;
    store32(packet, next_id);
    next_id += 2;
    mine->before = ring.before;
    mine->after = &ring;
    ring.before = ring.before->after = mine;
    pthread_mutex_unlock(&mu);
}

static void await(slot *mine)
{
    pthread_mutex_lock(&mu);
    while (!mine->done && !mine->leads) {
        if (!led) {
            led = mine->leads = true;
        } else {
            pthread_mutex_unlock(&mu);
            futex(&mine->word, FUTEX_WAIT, 0);
            pthread_mutex_lock(&mu);
        }
    }
    pthread_mutex_unlock(&mu);
    if (mine->leads)
        lead(mine);
}

static PyObject *py_connect(PyObject *self, PyObject *port)
{
    const char *text = PyUnicode_AsUTF8(port);

    (void)self;
    if (!text)
        return NULL;
    sock = connect_to(text);
    Py_RETURN_NONE;
}

static PyObject *py_ask(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint8_t packet[HEAD + PACKET];
    slot mine;
    unsigned long code;
    size_t len;

    (void)self;
    if (nargs != 2 || !PyBytes_Check(args[1]) || (size_t)PyBytes_GET_SIZE(args[1]) > PACKET)
        return PyErr_Format(PyExc_TypeError, "ask(code, payload of at most %u bytes)", PACKET);
    if ((code = PyLong_AsUnsignedLong(args[0])) == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    len = (size_t)PyBytes_GET_SIZE(args[1]);
    put_head(packet, 0, (unsigned)code, len);
    memcpy(packet + HEAD, PyBytes_AS_STRING(args[1]), len);
    mine.done = mine.leads = false;
    atomic_init(&mine.word, 0);
    Py_BEGIN_ALLOW_THREADS
    enter(&mine, packet);
    pthread_mutex_lock(&writing);
    write_all(sock, packet, HEAD + len);
    pthread_mutex_unlock(&writing);
    await(&mine);
    Py_END_ALLOW_THREADS
    return PyBytes_FromStringAndSize((const char *)mine.payload, (Py_ssize_t)mine.len);
}

static PyMethodDef methods[] = {
    { "connect", py_connect, METH_O, NULL },
    { "ask", (PyCFunction)(void (*)(void))py_ask, METH_FASTCALL, NULL },
    { NULL, NULL, 0, NULL },
};

static struct PyModuleDef leader = { PyModuleDef_HEAD_INIT, .m_name = "leader", .m_size = -1, .m_methods = methods };

PyMODINIT_FUNC PyInit_leader(void);
PyMODINIT_FUNC PyInit_leader(void) { return PyModule_Create(&leader); }
