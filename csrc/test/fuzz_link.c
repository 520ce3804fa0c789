/* Fuzzing a whole link: a script of calls, of what its peer does, and of how it all ends.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first two bytes of an input choose the link: wire, role, routing, accept, budgets. Then each byte is a step, with operands
 * behind it. One thread makes all the calls, with no time to wait, so none blocks; the poller reads and writes beside it as
 * it does always. The peer's end of the socket pair is non-blocking.
 *
 * What must hold: what the link sends is a stream of packets; each ask that was begun ends in one way, its answer is the first
 * that was sent to it, and never comes again; a Conn gets what was sent to it in order, each once; after the end
 * nothing is left in any budget. (Order and answers cannot be known any more when the script has sent bytes at random.)
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "neolink.h"
#include "wire.h"

#define MUST(what) do { if (!(what)) abort(); } while (0)
#define CONNS   6
#define ASKS    4
#define HEARD   (256 << 10)
#define STEPS   200
#define STRANGE 0x1000u         /* ids from here on are none of ours */
#define REQUEST ((uint16_t)0x0020)
#define ANSWER  ((uint16_t)0x8020)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct conn { nl_conn *conn; uint32_t seen; } conn;
typedef struct ask { nl_ask ask; bool begun; uint32_t answered; } ask;

static struct run {
    const uint8_t *p, *end;
    nl_link *link;
    nl_wire wire;
    int peer;                       /* -1: it has closed */
    bool raw, noise;                /* bytes at random were sent */
    conn conns[CONNS];
    ask asks[ASKS];
    uint32_t serial;                /* of what the peer sends, one for all */
    uint64_t sent, taken, begun, ended, answers;
    size_t heard_len;
    uint8_t heard[HEARD];           /* of what the link sends, the packet that is not whole yet */
} r;

static uint8_t next(void) { return r.p < r.end ? *r.p++ : 0; }

/* ---- payloads: [serial, n bytes] of msgpack, which the other wires take as well ------------------------------------------- */

static size_t payload(uint8_t *out, uint32_t serial, size_t n)
{
    const uint8_t head[] = { 0x92, 0xce, (uint8_t)(serial >> 24), (uint8_t)(serial >> 16), (uint8_t)(serial >> 8), (uint8_t)serial,
                             0xc5, (uint8_t)(n >> 8), (uint8_t)n };

    memcpy(out, head, sizeof head);
    memset(out + sizeof head, 'x', n);
    return sizeof head + n;
}

static uint32_t serial_of(const nl_packet *p)
{
    MUST(p->len >= 9);
    return (uint32_t)p->payload[2] << 24 | (uint32_t)p->payload[3] << 16 | (uint32_t)p->payload[4] << 8 | p->payload[5];
}

/* ---- the peer ----------------------------------------------------------------------------------------------------------- */

/* All or, if the socket is full in the middle of it, a part: then the stream is noise. */
static bool peer_write(const uint8_t *bytes, size_t n)
{
    ssize_t done = r.peer < 0 ? -1 : send(r.peer, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    r.noise |= done >= 0 && (size_t)done < n;
    return done == (ssize_t)n;
}

static uint32_t peer_packet(uint32_t id, uint16_t code, size_t n)
{
    static uint8_t bytes[NL_HEAD_MAX + 9 + 65535], body[9 + 65535];
    size_t len = payload(body, ++r.serial, n), head = nl_wire_head(r.wire, id, code, len, bytes);

    memcpy(bytes + head, body, len);
    if (!peer_write(bytes, head + len))
        return 0;
    r.sent++;
    return r.serial;
}

static void peer_noise(size_t n)
{
    r.noise = true;
    n = n < (size_t)(r.end - r.p) ? n : (size_t)(r.end - r.p);
    peer_write(r.p, n);
    r.p += n;
}

/* Cuts what was heard into packets. */
static void hear(void)
{
    size_t at = 0;

    for (;;) {
        nl_scan scan = { 0 };
        nl_fault why;
        nl_scan_result result = nl_wire_scan(r.wire, r.heard + at, r.heard_len - at, NL_UNLIMITED, 0, &scan, &why);
        MUST(result != NL_SCAN_BAD);
        if (result == NL_SCAN_MORE)
            break;
        r.taken++;
        at += scan.total;
    }
    memmove(r.heard, r.heard + at, r.heard_len - at);
    r.heard_len -= at;
}

static bool peer_read(size_t n)
{
    ssize_t got = r.peer < 0 ? -1 : recv(r.peer, r.heard + r.heard_len, n < HEARD - r.heard_len ? n : HEARD - r.heard_len, MSG_DONTWAIT);

    if (got <= 0)
        return false;
    r.heard_len += (size_t)got;
    hear();
    return true;
}

/* ---- calls -------------------------------------------------------------------------------------------------------------- */

static bool is_end(nl_err e)
{
    return e == NL_ELINKCLOSED || e == NL_ELINKDOWN || e == NL_EPROTO;
}

static void conn_open(conn *c)
{
    nl_err e;

    if (c->conn)
        return;
    e = nl_conn_new(r.link, &c->conn);
    MUST(e == NL_OK || e == NL_ETOOMANY || is_end(e) || (r.raw && e == NL_EINVAL));
    *c = (conn){ .conn = e == NL_OK ? c->conn : NULL };
}

static void conn_accept(conn *c)
{
    nl_err e;

    if (c->conn)
        return;
    e = nl_link_accept(r.link, NL_NOW, &c->conn);
    MUST(e == NL_OK || e == NL_ETIMEOUT || e == NL_ENOTACCEPTING || is_end(e) || (r.raw && e == NL_EINVAL));
    *c = (conn){ .conn = e == NL_OK ? c->conn : NULL };
}

static void conn_recv(conn *c)
{
    nl_packet *p;
    nl_err e;

    if (!c->conn)
        return;
    e = nl_conn_recv(c->conn, NL_NOW, &p);
    MUST(e == NL_OK || e == NL_ETIMEOUT || e == NL_ECONNCLOSED || e == NL_ETOOBIG || is_end(e));
    if (e != NL_OK)
        return;
    MUST(p->conn_id == nl_conn_id(c->conn));
    if (!r.noise) {
        MUST(serial_of(p) > c->seen && serial_of(p) <= r.serial);
        c->seen = serial_of(p);
    }
    nl_packet_free(p);
}

static void conn_send(conn *c, size_t n)
{
    static uint8_t bytes[9 + 65535];
    bool maybe = true;
    nl_err e;

    if (!c->conn)
        return;
    e = nl_conn_send(c->conn, n & 1 ? REQUEST : ANSWER, bytes, payload(bytes, 0, n), NL_NOW, &maybe);
    MUST(e == NL_OK || e == NL_ETIMEOUT || e == NL_ECONNCLOSED || e == NL_ETOOBIG || is_end(e));
    MUST(e != NL_OK || maybe);
}

static void conn_rele(conn *c)
{
    nl_conn_rele(c->conn);
    *c = (conn){ NULL, 0 };
}

static void ask_begin(ask *a)
{
    uint8_t bytes[16];
    nl_err e;

    if (a->begun)
        return;
    e = nl_ask_begin(r.link, &a->ask, REQUEST, bytes, payload(bytes, 0, 0), NL_NOW, NULL);
    MUST(e == NL_OK || e == NL_ETIMEOUT || e == NL_ETOOMANY || is_end(e) || (r.raw && e == NL_EINVAL));
    a->begun = e == NL_OK;
    a->answered = 0;
    r.begun += a->begun;
}

static void ask_end(ask *a)
{
    if (!a->begun)
        return;
    nl_ask_end(&a->ask);
    a->begun = false;
    r.ended++;
}

static void ask_wait(ask *a)
{
    nl_packet *p = NULL;
    nl_err e;

    if (!a->begun)
        return;
    e = nl_ask_wait(&a->ask, NL_NOW, &p);
    MUST(e == NL_OK || e == NL_ETIMEOUT || is_end(e));
    MUST((e == NL_OK) == (p != NULL));
    if (p) {
        MUST(p->conn_id == a->ask.conn_id);
        MUST(r.noise || (a->answered && serial_of(p) == a->answered));
        r.answers++;
        nl_packet_free(p);
    }
    if (e != NL_ETIMEOUT)
        ask_end(a);
}

/* The peer answers, perhaps again. */
static void answer(ask *a)
{
    uint32_t serial = a->begun ? peer_packet(a->ask.conn_id, ANSWER, 0) : 0;

    if (!a->answered)
        a->answered = serial;
}

static void raw_recv(void)
{
    nl_packet *p;
    nl_err e = nl_link_recv_packet(r.link, NL_NOW, &p);

    MUST(e == NL_OK || e == NL_ETIMEOUT || is_end(e) || (!r.raw && e == NL_EINVAL));
    if (e == NL_OK)
        nl_packet_free(p);
}

/* ---- the script --------------------------------------------------------------------------------------------------------- */

static void peer_end(uint8_t how)
{
    if (r.peer < 0)
        return;
    if (how & 1) {
        shutdown(r.peer, SHUT_WR);
        return;
    }
    close(r.peer);
    r.peer = -1;
}

static void peer_step(uint8_t op)
{
    conn *c = &r.conns[next() % CONNS];
    ask *a = &r.asks[next() % ASKS];
    uint8_t size = next();

    switch (op % 8) {
    case 0: peer_packet(c->conn ? nl_conn_id(c->conn) : STRANGE | size, ANSWER, size * 16u); break;
    case 1: peer_packet(c->conn ? nl_conn_id(c->conn) : STRANGE | size, REQUEST, size); break;
    case 2: peer_packet(STRANGE | size, REQUEST, 0); break;
    case 3: answer(a); break;
    case 4: peer_read(size * 64u + 1); break;
    case 5: while (peer_read(65536)) { } break;
    case 6: peer_noise(size % 32); break;
    case 7: if (size > 200) peer_end(size); break;
    }
}

static void link_step(uint8_t op)
{
    uint8_t which = next();
    conn *c = &r.conns[which % CONNS];
    ask *a = &r.asks[which % ASKS];

    switch (op % 16) {
    case 0: conn_open(c); break;
    case 1: conn_accept(c); break;
    case 2: case 3: conn_recv(c); break;
    case 4: conn_send(c, next()); break;
    case 5: conn_send(c, next() * 256u); break;
    case 6: if (c->conn) nl_conn_close_recv(c->conn); break;
    case 7: if (c->conn) nl_conn_close(c->conn); break;
    case 8: conn_rele(c); break;
    case 9: case 10: ask_begin(a); break;
    case 11: ask_wait(a); break;
    case 12: ask_end(a); break;
    case 13: nl_link_notify(r.link, r.wire == NL_WIRE_2016 ? 5 : 3, "\x90", 1, NL_NOW, NULL); break;
    case 14: if (which > 240) nl_link_close_accept(r.link); else raw_recv(); break;
    case 15:
        if (which > 250)
            nl_link_close(r.link, NL_NOW);
        else if (which > 245)
            nl_link_abort(r.link);
        else if (which > 240)
            nl_link_shut(r.link);
        break;
    }
}

static void begin(uint8_t how, uint8_t more)
{
    nl_link_config c;
    nl_fault why;
    int fd[2];

    nl_link_config_default(&c);
    c.wire = (nl_wire)(how % 3);
    c.role = how / 3 & 1 ? NL_SERVER : NL_CLIENT;
    c.routing = (nl_routing)(how / 6 % 3);
    c.accept = (nl_accept)(how / 18 % 3);
    c.raw = (more & 7) == 7;
    c.limits.rx_fail = more & 8;
    if (more & 16) {
        c.limits.link_rx_bytes = c.limits.conn_rx_bytes = 2000;
        c.limits.link_tx_bytes = 4000;
        c.limits.conns = c.limits.accept_backlog = 3;
    }
    if (more & 32)
        c.limits.closed_ns = 0;
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
    r.wire = c.wire;
    r.raw = c.raw;
    r.peer = fd[1];
    MUST(nl_link_new(fd[0], &c, NL_NOW, &r.link, &why) == NL_OK);
}

/* The link ends, then everything that hung on it. */
static void end(void)
{
    nl_stats s;

    nl_link_abort(r.link);
    MUST(nl_link_close(r.link, nl_now_ns() + INT64_C(20000000000)) == NL_OK);
    for (ask *a = r.asks; a < r.asks + ASKS; a++) {
        ask_wait(a);
        ask_end(a);
    }
    for (conn *c = r.conns; c < r.conns + CONNS; c++)
        conn_rele(c);
    nl_link_stats(r.link, &s);
    MUST(!s.rx_bytes_queued && !s.tx_bytes_queued && !s.conns && !s.inside && !s.waiters);
    MUST(r.begun == r.ended && r.answers <= r.begun);
    MUST(r.noise || s.packets_received <= r.sent);
    while (peer_read(65536)) { }
    MUST(r.taken <= s.packets_sent);
    nl_link_rele(r.link);
    if (r.peer >= 0)
        close(r.peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    signal(SIGPIPE, SIG_IGN);
    memset(&r, 0, offsetof(struct run, heard));
    r.p = data + 2;
    r.end = data + size;
    begin(data[0], data[1]);
    for (int i = 0; i < STEPS && r.p < r.end; i++) {
        uint8_t op = next();
        if (op & 128)
            peer_step(op);
        else
            link_step(op);
    }
    end();
    return 0;
}
