/* neolink - the NEO link layer: public face of the C core.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The nouns
 *   nl_link      one stream socket to another node, on which many connections are multiplexed
 *   nl_conn      one connection: a conversation under one 32-bit id
 *   nl_packet    (connection id, message code, payload), received
 *   nl_dialer    a dial under way          nl_listener   a listening socket and the handshakes on it
 *
 * Rules that hold for every function here
 *   - Every function may be called from any thread, unless it says otherwise, as long as the caller owns a reference.
 *     _new/_accept/... hand out one reference; _hold adds one; _rele drops one and accepts NULL.
 *   - A blocking call takes `deadline_ns` on the monotonic clock of nl_now_ns(): NL_FOREVER never ends, NL_NOW polls.
 *   - NL_EINTR means: a signal reached this thread, or may have; nothing was lost, run your handlers and make the same
 *     call again. Whoever sleeps through it instead breaks Ctrl-C; so the core never retries it by itself. A handler that
 *     was installed with SA_RESTART is not one that wants this: the kernel may go on with the sleep then.
 *   - No call sleeps while it holds a lock, no call calls back, and no call touches Python.
 *   - After fork() a child's calls on its parent's objects return NL_EFORKED and change nothing.
 *
 * A correct receiver, in full:
 *
 *     for (;;) {
 *         nl_err e = nl_conn_recv(conn, deadline, &packet);
 *         if (e == NL_EINTR) { if (run_signal_handlers() < 0) return; continue; }
 *         if (e) return report(e, link);        // NL_ETIMEOUT, or nl_link_fault() has the story
 *         use(packet->code, packet->payload, packet->len);
 *         nl_packet_free(packet);
 *     }
 */
#ifndef NEOLINK_H
#define NEOLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- errors ------------------------------------------------------------------------------------------------- */

typedef enum nl_err {
    NL_OK = 0,
    NL_EINTR,           /* a signal came; call again */
    NL_ETIMEOUT,        /* the deadline passed */
    NL_ELINKCLOSED,     /* the link was closed by us */
    NL_ELINKDOWN,       /* the link ended: peer or network; nl_link_fault() tells */
    NL_EPROTO,          /* the link ended: the peer broke the protocol; nl_link_fault() tells */
    NL_ECONNCLOSED,     /* the Conn was closed by us */
    NL_ENOTACCEPTING,   /* accept after close_accept, or in a mode without accept */
    NL_ETOOBIG,         /* larger than limits.packet_bytes (send), or the Conn overflowed (recv, rx_fail) */
    NL_ETOOMANY,        /* limits.conns reached, or no free id */
    NL_EENCODE,         /* wire M: the payload is not exactly one msgpack array */
    NL_EFORKED,         /* a parent's object in a forked child */
    NL_ENOMEM,
    NL_EINVAL,          /* a misuse the caller could have seen, e.g. send_packet on a link that is not raw */
    NL_ESYS,            /* a system call failed; the fault has its errno */
    NL_EHANDSHAKE,      /* reached, but not a NEO node we can talk to */
    NL_ECANCELLED,      /* nl_dialer_cancel() */
    NL_ERR_COUNT
} nl_err;

const char *nl_err_name(nl_err err);                    /* "NL_ETIMEOUT": for logs and tests */

/* Why something ended: what happened, in words, and the numbers behind it. Plain data, copied freely. */
typedef struct nl_fault {
    nl_err code;            /* NL_OK: no fault */
    int    sys_errno;       /* 0, or the errno behind it */
    bool   clean;           /* an end of file between two packets */
    uint64_t others;        /* of a listener: failures before this one that are not reported, as the text says */
    char   text[240];       /* one sentence, no newline: what was seen, where */
} nl_fault;

/* ---- time --------------------------------------------------------------------------------------------------- */

#define NL_FOREVER INT64_MAX
#define NL_NOW     INT64_C(0)
#define NL_TRY     INT64_C(-1)      /* nl_ask_wait: as NL_NOW, but tries briefly, as a wait does before it sleeps */
int64_t nl_now_ns(void);                                /* CLOCK_MONOTONIC */

/* ---- kinds -------------------------------------------------------------------------------------------------- */

typedef enum nl_role    { NL_SERVER, NL_CLIENT } nl_role;                    /* even ids, odd ids */
typedef enum nl_wire    { NL_WIRE_2016, NL_WIRE_N, NL_WIRE_M, NL_WIRE_AUTO } nl_wire;
typedef enum nl_routing { NL_ROUTE_STREAM, NL_ROUTE_NEO, NL_ROUTE_DEFAULT } nl_routing;
typedef enum nl_accept  { NL_ACCEPT_QUEUE, NL_ACCEPT_REFUSE, NL_ACCEPT_IGNORE } nl_accept;

#define NL_UNLIMITED SIZE_MAX

/* Every bound in one place; docs/design.rst has the reason of each default. */
typedef struct nl_limits {
    size_t  packet_bytes;       /* N: payload; 2016 and M: whole packet */
    size_t  conn_rx_bytes;      /* unread bytes one Conn may hold */
    size_t  link_rx_bytes;      /* unread bytes all Conns of a link may hold */
    size_t  link_tx_bytes;      /* queued unsent bytes above which a send blocks */
    size_t  conns;              /* open Conns, both sides' */
    size_t  accept_backlog;     /* peer-opened Conns that wait for accept */
    bool    rx_fail;            /* a Conn over conn_rx_bytes fails (true) or lives on the link's budget (false) */
    int64_t closed_ns;          /* how long a closed Conn's id still answers "connection closed" */
    int64_t spin_ns;            /* longest adaptive try of the socket before sleeping; 0: never */
    double  stray_share;        /* of a processor's time that packets nobody wants may take, those of all links
                                 * together; above 0; 1: no bound */
} nl_limits;
void nl_limits_default(nl_limits *limits);

/* ---- packets ------------------------------------------------------------------------------------------------ */

/* A received packet. Read-only; owned by whoever received it; outlives its link. */
typedef struct nl_packet {
    const uint8_t *payload;     /* on M: the raw bytes of args, at least the one byte 0x90 */
    size_t         len;
    uint32_t       conn_id;
    uint16_t       code;
} nl_packet;
void nl_packet_free(nl_packet *packet);                 /* NULL is fine; any thread, without the link */

/* One packet to send in a batch. */
typedef struct nl_out {
    const void *payload;
    size_t      len;
    uint16_t    code;
} nl_out;

/* ---- link --------------------------------------------------------------------------------------------------- */

typedef struct nl_link nl_link;
typedef struct nl_conn nl_conn;
typedef struct nl_tls_ctx nl_tls_ctx;                   /* certificates and keys: nl_tls_ctx_new() */

/* How a TCP peer that is gone is found, by the kernel: after idle_s seconds of silence it is probed every interval_s
 * seconds, and after `probes` of them without a sign of life it is dead. A send that nobody acknowledges, or for which
 * the peer has no room, waits for so long in all, too (TCP_USER_TIMEOUT). So it is promised: idle_s + interval_s *
 * probes. */
typedef struct nl_keepalive { int idle_s, interval_s, probes; } nl_keepalive;   /* idle_s 0: off */

typedef struct nl_link_config {
    nl_role    role;
    nl_wire    wire;            /* not NL_WIRE_AUTO for nl_link_new() */
    nl_routing routing;         /* NL_ROUTE_DEFAULT: stream for 2016, else neo */
    nl_accept  accept;
    nl_limits  limits;
    int        version;         /* protocol number agreed on, -1: none */
    bool       raw;             /* packets as they come, no routing: only send_packet and recv_packet */
    bool       in_turn;         /* with two processors: threads that are woken together come one after the other, since
                                 * each needs a lock of the caller's next, such as Python's GIL */
    uint32_t   first_id;        /* tests near the end of the id range; made of the role's parity; 0: usual */
    nl_tls_ctx *tls;            /* NULL: plain */
    nl_keepalive keepalive;
} nl_link_config;
/* client, 2016, default routing, queue, default limits, keepalive as NEO has it: 60, 10, 3 */
void nl_link_config_default(nl_link_config *config);

/* Takes over an established stream socket, which becomes blocking and close-on-exec. On failure `fd` is the caller's
 * still, its flags as they were. NL_ENOMEM, NL_EINVAL (not a stream socket), NL_ESYS. With TLS the handshake is done
 * inside, up to the deadline: NL_ETIMEOUT, NL_EHANDSHAKE. This one call, for programs without signal handlers, goes on
 * when a signal comes. */
nl_err nl_link_new(int fd, const nl_link_config *config, int64_t deadline_ns, nl_link **out, nl_fault *why);
/* The same in three steps, for programs with such handlers. The struct is the caller's; one thread at a time. wait may
 * be called again after NL_EINTR and NL_ETIMEOUT, and goes on where it was. `config` stays until the end, which must
 * follow a successful begin. */
typedef struct nl_takeover {
    const nl_link_config *config;
    struct nl_tls *tls;
    int            fd;
    unsigned       fork_generation;
} nl_takeover;
nl_err nl_takeover_begin(nl_takeover *takeover, int fd, const nl_link_config *config, nl_fault *why);
nl_err nl_takeover_wait(nl_takeover *takeover, int64_t deadline_ns, nl_link **out, nl_fault *why);
void   nl_takeover_end(nl_takeover *takeover);
void   nl_link_hold(nl_link *link);
void   nl_link_rele(nl_link *link);                     /* the last one aborts a link that is still open */

nl_role nl_link_role(const nl_link *link);
nl_wire nl_link_wire(const nl_link *link);
nl_routing nl_link_routing(const nl_link *link);
int     nl_link_version(const nl_link *link);           /* -1: none */
int     nl_link_fd(const nl_link *link);                /* -1 once closed */
bool    nl_link_is_closed(nl_link *link);               /* closed by us or down */
bool    nl_link_fault(nl_link *link, nl_fault *out);    /* false: no fault so far. The first one stays */
const struct sockaddr *nl_link_local(const nl_link *link, socklen_t *len);
const struct sockaddr *nl_link_peer(const nl_link *link, socklen_t *len);

/* Interrupts every call on the link, delivers what was sent before to a peer that reads, waits until no other call is
 * inside, closes the socket. Idempotent. NL_ETIMEOUT: the time was not enough, the rest was cut (the link is closed all
 * the same). NL_EINTR: call again. */
nl_err nl_link_close(nl_link *link, int64_t deadline_ns);
/* The first half of close: refuses new work, wakes everyone, never blocks; queued bytes still leave in the
 * background. */
void   nl_link_shut(nl_link *link);
void   nl_link_abort(nl_link *link);                    /* ends it at once, delivers nothing, never blocks */

typedef struct nl_stats {
    uint64_t packets_sent, packets_received, bytes_sent, bytes_received;
    uint64_t conns, rx_bytes_queued, tx_bytes_queued;
    uint64_t late_answers, ignored_packets, refused_conns;
    /* how the work was shared: for tests and benchmarks */
    uint64_t rx_takes, rx_handovers, rx_arms, poller_reads, poller_idle_wakeups, tx_turns, tx_handoffs, tx_for_others,
             spins, spin_hits, waiters, inside, throttles, wakes_left, turn_waits;
} nl_stats;
void nl_link_stats(nl_link *link, nl_stats *out);       /* one consistent snapshot */

/* Asking. nl_ask_begin() sends the request (it blocks only for the transmit budget), nl_ask_wait() takes the answer,
 * nl_ask_end() must follow a successful begin, before the link is released: it forgets an ask that has no answer yet,
 * which then counts as late.
 * The struct is the caller's and must not move in between; one thread at a time.
 * *maybe_sent (may be NULL) is false as long as the packet surely did not leave. */
typedef struct nl_ask {
    nl_link   *link;
    nl_conn   *conn;
    nl_packet *answer;
    void      *waiter;
    uint32_t   conn_id;
    bool       begun;           /* nl_ask_end() must follow */
} nl_ask;
nl_err nl_ask_begin(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent);
nl_err nl_ask_wait(nl_ask *ask, int64_t deadline_ns, nl_packet **answer);
void   nl_ask_end(nl_ask *ask);
/* Begins, unless ask->begun, and waits: the two above as one turn in the link, which is cheaper. What either says. After
 * NL_EINTR the same call goes on where it was. Let *ask be cleared before the first. */
nl_err nl_ask_whole(nl_link *link, nl_ask *ask, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent, nl_packet **answer);
/* Do threads wait for something on the link? Then one of them reads, and an ask of yours will sleep. A glance without
 * the link's lock, for callers to whom that makes a difference before they begin. */
bool   nl_link_is_waited_on(const nl_link *link);
/* For callers to whom a sleep costs more than the sleep, such as an interpreter's lock that they get back late: so many
 * nanoseconds it was, after an ask. If a 32nd of that is more than limits.spin_ns (and 10 us, and up to 1 ms), the next
 * NL_TRY is made however many were in vain, and may take so long. Not worth measuring on a link that does not try. */
bool   nl_link_tries(const nl_link *link);
void   nl_link_slept_dearly(nl_link *link, int64_t cost_ns);

/* Many asks at once, pipelined, answers in the order of `requests`. `answers` has `n` places, NULL at first; those
 * that were answered are filled even when the call fails. State between NL_EINTR and the next call lives in the batch.
 * nl_ask_many_end() must follow nl_ask_many_begin(), before the link is released. */
typedef struct nl_ask_many nl_ask_many;
nl_err nl_ask_many_begin(nl_link *link, const nl_out *requests, nl_packet **answers, size_t n, nl_ask_many **out);
nl_err nl_ask_many_wait(nl_ask_many *batch, int64_t deadline_ns, size_t *failed_at); /* first unanswered index */
size_t nl_ask_many_sent(const nl_ask_many *batch);         /* requests[.. so many) may have left */
void   nl_ask_many_end(nl_ask_many *batch);

nl_err nl_link_notify(nl_link *link, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                      bool *maybe_sent);
/* *done counts those that were queued; on NL_EINTR or NL_ETIMEOUT go on from there. */
nl_err nl_link_notify_many(nl_link *link, const nl_out *packets, size_t n, int64_t deadline_ns, size_t *done);

nl_err nl_link_accept(nl_link *link, int64_t deadline_ns, nl_conn **out);
/* Accept and take the opening packet in one go. */
nl_err nl_link_recv1(nl_link *link, int64_t deadline_ns, nl_conn **conn, nl_packet **packet);
void   nl_link_close_accept(nl_link *link);             /* queued and later openers are answered "connection refused" */

/* For pools that change their mind. A worker asks for the number of wakes so far, looks whether it is still wanted, and
 * takes: a Conn with its opening packet, or without, if `packet` is NULL. A wake that comes after the question makes it
 * return NL_EINTR, whether it sleeps by then or is still on its way; and every accept and recv1 that sleeps. */
unsigned nl_link_wakes(nl_link *link);
nl_err nl_link_take(nl_link *link, unsigned wakes, nl_conn **conn, nl_packet **packet);
void   nl_link_wake_accept(nl_link *link);

/* Raw links only, NL_EINVAL otherwise. */
nl_err nl_link_send_packet(nl_link *link, uint32_t conn_id, uint16_t code, const void *payload, size_t len,
                           int64_t deadline_ns, bool *maybe_sent);
nl_err nl_link_recv_packet(nl_link *link, int64_t deadline_ns, nl_packet **out);

/* ---- conn --------------------------------------------------------------------------------------------------- */

nl_err   nl_conn_new(nl_link *link, nl_conn **out);     /* NL_ETOOMANY, NL_ENOMEM, or why the link is not open */
void     nl_conn_hold(nl_conn *conn);
void     nl_conn_rele(nl_conn *conn);                   /* the last one closes it */
uint32_t nl_conn_id(const nl_conn *conn);
bool     nl_conn_is_ours(const nl_conn *conn);          /* opened by us, not by the peer */
nl_link *nl_conn_link(const nl_conn *conn);             /* borrowed: a Conn keeps its link in memory */
bool     nl_conn_is_closed(nl_conn *conn);              /* closed by us, failed, or its link ended */

/* Returns when the packet is on its way or queued within the budget; `payload` is the caller's again however it
 * returns. */
nl_err nl_conn_send(nl_conn *conn, uint16_t code, const void *payload, size_t len, int64_t deadline_ns,
                    bool *maybe_sent);
/* Packets received before an end stay readable, then comes the end: NL_ECONNCLOSED, NL_ELINKCLOSED, the link's
 * fault. */
nl_err nl_conn_recv(nl_conn *conn, int64_t deadline_ns, nl_packet **out);
void   nl_conn_close_recv(nl_conn *conn);               /* queued and later requests are answered "connection closed" */
/* Wakes its calls; a begun send completes; requests that wait unread are answered as those that come later. */
void   nl_conn_close(nl_conn *conn);

/* ---- dial and listen ---------------------------------------------------------------------------------------- */

/* What a failed handshake found. */
typedef struct nl_hs_report {
    char ours[64];              /* "NEO M protocol 5" */
    char theirs[160];           /* "NEO N protocol 6", "HTTP", "TLS", "nothing", "bytes 05 41 ..." */
} nl_hs_report;

typedef struct nl_dialer nl_dialer;
typedef struct nl_dial_config {
    nl_link_config link;        /* wire may be NL_WIRE_AUTO; version -1: our own number of that wire */
} nl_dial_config;
void   nl_dial_config_default(nl_dial_config *config);

/* One address. nl_dialer_new() never blocks; nl_dialer_wait() connects, shakes hands, redials where "auto" or M has to.
 * NL_ESYS: not reached (fault has the errno); NL_EHANDSHAKE: reached, report tells; NL_ETIMEOUT; NL_ECANCELLED;
 * NL_EINTR: call again, it goes on where it was. */
nl_err nl_dialer_new(const struct sockaddr *address, socklen_t len, const nl_dial_config *config, nl_dialer **out);
nl_err nl_dialer_wait(nl_dialer *dialer, int64_t deadline_ns, nl_link **out, nl_fault *why, nl_hs_report *report);
void   nl_dialer_cancel(nl_dialer *dialer);             /* from any thread; its wait returns NL_ECANCELLED */
void   nl_dialer_free(nl_dialer *dialer);               /* no other call may be inside */

typedef struct nl_listener nl_listener;
typedef struct nl_listen_config {
    nl_link_config link;
    int            backlog;             /* of the socket, and of links whose handshake is done and nobody took */
    int64_t        handshake_ns;        /* a peer's whole handshake */
} nl_listen_config;
void   nl_listen_config_default(nl_listen_config *config);

/* Handshakes run in the background, many at once, whether or not anybody accepts. NL_ESYS with errno. */
nl_err nl_listener_new(const struct sockaddr *address, socklen_t len, const nl_listen_config *config,
                       nl_listener **out, nl_fault *why);
/* NL_EHANDSHAKE: a peer failed (report and its address are filled): log it and call again. NL_ELINKCLOSED: closed. */
nl_err nl_listener_accept(nl_listener *listener, int64_t deadline_ns, nl_link **out, nl_fault *why,
                          nl_hs_report *report, struct sockaddr_storage *peer, socklen_t *peer_len);
const struct sockaddr *nl_listener_address(const nl_listener *listener, socklen_t *len);
int    nl_listener_fd(const nl_listener *listener);
void   nl_listener_close(nl_listener *listener);        /* wakes its accepts; handshakes under way are cut */
void   nl_listener_hold(nl_listener *listener);
void   nl_listener_rele(nl_listener *listener);

/* ---- TLS ---------------------------------------------------------------------------------------------------- */

/* Reads and checks the files at once. `crl` and `hostname` may be NULL. NL_ESYS: a file cannot be read (errno);
 * NL_EINVAL: it cannot be used; NL_ENOMEM; the text names the file and what is wrong with it. A core built without
 * OpenSSL returns NL_EINVAL and says so. */
nl_err nl_tls_ctx_new(const char *ca, const char *cert, const char *key, const char *crl, const char *hostname,
                      nl_tls_ctx **out, nl_fault *why);
void   nl_tls_ctx_hold(nl_tls_ctx *ctx);
void   nl_tls_ctx_rele(nl_tls_ctx *ctx);
bool   nl_have_tls(void);

/* ---- trace -------------------------------------------------------------------------------------------------- */

/* A process-wide ring of what happened. Off it costs one load and one branch per event. */
typedef enum nl_trace_kind {
    NL_TRACE_CONNECT, NL_TRACE_ACCEPT, NL_TRACE_SEND, NL_TRACE_RECV, NL_TRACE_CLOSE
} nl_trace_kind;
typedef struct nl_trace_event {
    int64_t  time_ns;           /* nl_now_ns() */
    uint64_t link;              /* a number that no other link of the process has or will have */
    uint64_t lost;              /* events dropped before this one because nobody read them */
    size_t   len;               /* payload bytes of a packet */
    uint32_t conn_id;
    uint16_t code;
    nl_trace_kind kind;
} nl_trace_event;
nl_err nl_trace_start(size_t events);                   /* NL_ENOMEM; NL_EINVAL when it is on already */
/* Records no more and wakes the reader, who still gets what was recorded before. Returns how many events were dropped
 * after the last one that was recorded: no event tells of those. */
uint64_t nl_trace_stop(void);
/* NL_ELINKCLOSED when the trace was stopped and all of it has been read. */
nl_err nl_trace_read(nl_trace_event *out, size_t max, int64_t deadline_ns, size_t *n);
uint64_t nl_link_serial(const nl_link *link);           /* the number that trace events carry */

/* ---- the process -------------------------------------------------------------------------------------------- */

/* Ends the background thread; links that need it go down. For the end of the process, before OpenSSL's own clean-up. */
void nl_shutdown(void);
/* For assertions, in a build with -DNL_COUNT_LOCKS: how many locks of the core the calling thread holds. Else 0. */
unsigned nl_locks_held(void);

#ifdef __cplusplus
}
#endif
#endif
