/* The inside of a link: what link.c, conn.c, ask.c, route.c, rx.c and tx.c share. Openings include it for the making of a
 * link and the setting of faults only.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Locks. One mutex per link, `mu`, guards everything tagged [mu]. Order: listener, link.mu, then the leaves (poller,
 * tls session, block cache, trace). No lock is held across a call that can sleep, and nothing outside the core is called
 * at all.
 *
 * Tokens. Reading the socket and decoding belong to whoever holds the read token (`rx.holder`), writing to it and the
 * order of bytes to whoever holds the write token (`tx.holder`). A token is taken and given under mu, and used without
 * it. Fields tagged [rx] and [tx] belong to the holder. rx.c and tx.c have an essay each.
 *
 * Life of a link. One enum, changed by link_set_state() only:
 *
 *   state     what may happen                                       moves on when
 *   OPEN      everything                                            a fault -> DOWN; close, abort, shut -> CLOSING
 *   DOWN      a fault is kept; queued packets and Conns may still   close, abort -> CLOSING
 *             be taken; nothing is sent, nobody reads
 *   CLOSING   ops fail; queued bytes leave (unless aborted);        quiet: nobody inside, both tokens free -> CLOSED
 *             inboxes are gone
 *   CLOSED    the descriptor is closed, the poller has let go       -
 *
 * References. `users` are the references of the API; the last one aborts the link. `refs` keep the memory: one for all
 * users together, one for the poller while it watches, one for each Conn. `inside` counts calls that are in the link now:
 * close waits for it, which is more than memory needs, and what its callers expect: no byte and no wake-up after close.
 */
#ifndef NL_LINK_H
#define NL_LINK_H

#include "buf.h"
#include "list.h"
#include "poller.h"
#include "sys.h"
#include "table.h"
#include "tls.h"
#include "wire.h"

#define NL_RCVTIMEO_NS   INT64_C(20000000)  /* longest blocking read; see rx.c */
#define NL_SNDTIMEO_NS   INT64_C(5000000)   /* longest blocking write; see tx.c */
#define NL_CTL_BYTES     ((size_t)256 << 10) /* "refused" and "closed" replies that may wait unsent: then it is a flood */
#define NL_CORK_NS       INT64_C(2000000)   /* longest wait of a notification in a burst; see tx.c */
#define NL_CONNS_KEPT    64u                /* free Conns a link keeps for reuse */

/* A thread that waits for something the reader brings, on that thread's stack. */
typedef struct nl_waiter {
    nl_list     all;            /* [mu] in link.rx.waiters while it waits */
    nl_list     on;             /* [mu] in the list of what it waits for, until woken */
    nl_list     posted;         /* [mu] in link.posted, from its post until the lock is let go of */
    bool        ready;          /* [mu] woken for its own sake */
    bool        leader;         /* [mu] holds, or was handed, the read token */
    bool        asleep;         /* [mu] on the futex; a leader is not, and costs its waker no system call */
    int         wake_fd;        /* [mu] >= 0: it sleeps in poll and this wakes it */
    atomic_uint word;           /* futex: 1 when posted */
} nl_waiter;

typedef enum nl_link_state { NL_LINK_OPEN, NL_LINK_DOWN, NL_LINK_CLOSING, NL_LINK_CLOSED } nl_link_state;
typedef enum nl_rx_holder { NL_RX_NONE, NL_RX_THREAD, NL_RX_POLLER } nl_rx_holder;
typedef enum nl_tx_holder {
    NL_TX_NONE,                 /* queue empty (or corked: see tx.c) */
    NL_TX_THREAD, NL_TX_POLLER, /* writing now */
    NL_TX_ARMED                 /* the turn waits for the socket to take more: the poller will, or a closer does */
} nl_tx_holder;

/* A Conn.
 *
 *   state         recv                         send        later packets from the peer
 *   OPEN          inbox, then waits            yes         to the inbox
 *   RECV_CLOSED   NL_ECONNCLOSED               yes         request: "connection closed"; else counted
 *   OVERFLOWN     NL_ETOOBIG                   no          as CLOSED
 *   CLOSED        NL_ECONNCLOSED               no          as RECV_CLOSED, by the tomb it left, for a time
 *
 * In the table exactly while OPEN or RECV_CLOSED and its link is not CLOSING. The link's end is the link's state, not a
 * Conn's. */
typedef enum nl_conn_state { NL_CONN_OPEN, NL_CONN_RECV_CLOSED, NL_CONN_OVERFLOWN, NL_CONN_CLOSED } nl_conn_state;

struct nl_conn {
    nl_link      *link;         /* [const] */
    nl_pkt       *in_first;     /* [mu] inbox */
    nl_pkt      **in_last;      /* [mu] */
    size_t        in_bytes;     /* [mu] charge of the inbox */
    nl_list       waiters;      /* [mu] threads in recv, first come first woken */
    nl_list       item;         /* [mu] in link.backlog until accepted; in a batch's list while asked */
    struct nl_ask      *ask;    /* [mu] this Conn is one ask: its answer goes there */
    struct nl_ask_many *batch;  /* [mu] or one of many */
    size_t        index;        /* [mu] which one */
    atomic_uint   refs;
    uint32_t      id;           /* [const] while in use */
    bool          ours;         /* [const] while in use */
    uint8_t       state;        /* [mu] nl_conn_state */
};

typedef struct nl_rx {
    nl_rx_holder holder;        /* [mu] */
    nl_list      waiters;       /* [mu] every nl_waiter.all */
    bool         paused;        /* [mu] over link_rx_bytes: nobody reads until somebody takes */
    size_t       bytes;         /* [mu] charge of all inboxes */
    uint64_t     turns;         /* [mu] grows with every take: the sweep sees whether the link is in use */
    uint64_t     swept_turns;   /* [mu] */
    bool         sweeping;      /* [mu] on the poller's sweep list */
    bool         watched;       /* [mu] the poller watches for input */

    nl_block    *block;         /* [rx] bytes received */
    size_t       at, end;       /* [rx] undecoded ones are data[at .. end) */
    uint64_t     offset;        /* [rx] of `at` in the stream */
    size_t       large;         /* [rx] size of the last packet when it was larger than a block: the next may be, too */
    bool         more;          /* [rx] data[at .. end) may hold a whole packet */
    bool         held;          /* [rx] the TLS session may hold plaintext: no event of the socket tells of it */
    nl_scan      scan;          /* [rx] */
    int64_t      spin_ns;       /* [rx] adaptive try: see rx.c */
    unsigned     spin_skip, spin_backoff;   /* [rx] */
    unsigned     spun;          /* [rx] this turn: 1 tried, 2 and something came */
} nl_rx;

typedef struct nl_tx {
    nl_tx_holder holder;        /* [mu] */
    nl_block    *first, **last; /* [mu] queue; the bytes of `first` are read by the holder without mu, never changed */
    size_t       bytes;         /* [mu] taken from senders, not yet by the kernel */
    size_t       ctl_bytes;     /* [mu] of them, the core's own replies, at the most: it goes down in two steps ... */
    size_t       ctl_mark;      /* [mu] ... of which the next is when so many bytes have left; 0: there are no replies ... */
    size_t       ctl_behind;    /* [mu] ... and these replies, queued behind the mark, remain */
    nl_list      waiters;       /* [mu] senders that wait for room */
    int64_t      notified_ns;   /* [mu] when the last notification came */
    bool         corked;        /* [mu] the poller's timer is set, to write what a burst left behind */
} nl_tx;

struct nl_link {
    atomic_uint  users, refs;
    pthread_mutex_t mu;
    nl_link_state state;        /* [mu] */
    nl_fault     fault;         /* [mu] the first one */
    nl_fault     tx_fault;      /* [mu] writing failed; what is still readable is read before the link goes down */
    unsigned     inside;        /* [mu] calls in the link */
    bool         aborted;       /* [mu] CLOSING: deliver nothing */
    bool         closer;        /* [mu] a thread is in close; it finishes, nobody else does */
    bool         read_shut;     /* [mu] SHUT_RD was said, to free a sleeping reader: the socket looks ended */
    uint32_t     watching;      /* [mu] the events the poller watches for now */
    nl_list      close_waiters; /* [mu] threads in close */
    nl_list      posted;        /* [mu] sleepers that nl_link_unlock has to wake */

    nl_rx        rx;
    nl_tx        tx;
    nl_table     table;         /* [mu] */
    uint32_t     next_id;       /* [mu] */
    nl_conn     *free_conns;    /* [mu] linked through in_last */
    unsigned     free_count;    /* [mu] */
    nl_list      backlog;       /* [mu] Conns the peer opened and nobody took */
    size_t       backlog_len;   /* [mu] */
    nl_list      acceptors;     /* [mu] threads in accept, recv1, recv_packet */
    bool         accept_closed; /* [mu] */
    unsigned     accept_wakes;  /* [mu] counts nl_link_wake_accept */
    nl_pkt      *raw_first, **raw_last;     /* [mu] raw links: what came */
    nl_stats     stats;         /* [mu] */

    nl_pollee    pollee;
    nl_pool     *pool;          /* [const] */
    nl_tls      *tls;           /* [const] */
    nl_limits    limits;        /* [const] ... to the end */
    int          fd;            /* -1 once CLOSED, which [mu] guards */
    int          version;
    unsigned     fork_generation;
    uint64_t     serial;
    nl_role      role;
    nl_wire      wire;
    nl_routing   routing;
    nl_accept    accept;
    bool         raw;
    struct sockaddr *local, *peer;          /* one allocation each, of local_len and peer_len bytes */
    socklen_t    local_len, peer_len;
};

/* The one way to take mu, and the one way to let go of it: what was posted under it is woken then, see rx.c. */
static inline void nl_link_lock(nl_link *link) { pthread_mutex_lock(&link->mu); }
void nl_waiters_unlock(nl_link *link);                  /* in rx.c */
static inline void nl_link_unlock(nl_link *link)
{
    if (nl_list_empty(&link->posted))
        pthread_mutex_unlock(&link->mu);
    else
        nl_waiters_unlock(link);
}

/* ---- link.c */

/* As nl_link_new for a stream whose opening is done; takes fd and tls on success. */
nl_err nl_link_new_open(int fd, const nl_link_config *config, nl_tls *tls, const uint8_t *early, size_t early_len,
                        nl_link **out, nl_fault *why);
void nl_link_hold_memory(nl_link *link);
void nl_link_rele_memory(nl_link *link);
/* Every call that works on a link begins and ends with these. enter returns NL_EFORKED, with mu not taken, or NL_OK with mu
 * held and the call counted. */
nl_err nl_link_enter(nl_link *link);
void   nl_link_leave(nl_link *link);                    /* unlocks */
nl_err nl_link_error_locked(const nl_link *link);       /* NL_OK while OPEN, else what ops on it return */
void   nl_link_fail_locked(nl_link *link, const nl_fault *why);     /* OPEN -> DOWN: keeps the fault, wakes everyone */
void   nl_link_quiet_locked(nl_link *link);             /* a token came free: CLOSING may have become CLOSED */
void   nl_link_watch_locked(nl_link *link);             /* tells the poller what rx.watched and tx.holder ask for */
void   nl_fault_set(nl_fault *f, nl_err code, int sys_errno, const char *format, ...)
       __attribute__((format(printf, 4, 5)));

/* ---- rx.c */

void   nl_waiter_init(nl_waiter *w);
/* Sleeps on the futex until posted. 0, EINTR, ETIMEDOUT (at once for NL_NOW). mu dropped meanwhile. */
int    nl_waiter_sleep_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns);
void   nl_waiter_wake_locked(nl_link *link, nl_waiter *w);          /* ready; off its list; posted */
void   nl_waiters_wake_locked(nl_link *link, nl_list *on);          /* all of a list of nl_waiter.on */
/* Sleeps, or reads the socket for all, until `w` is ready. Its `on` is linked where its waker looks. NL_OK ready;
 * NL_ETIMEOUT: not ready. NL_EINTR: a signal came, ready or not; the caller looks once more at what it waited for, and
 * does not wait again before the signal was told. Off its list in any case, and whatever it held it has passed on. */
nl_err nl_rx_wait_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns);
void   nl_rx_unpause_locked(nl_link *link);             /* after rx.bytes went down */
void   nl_rx_idle_locked(nl_link *link);                /* the token is free and nobody waits: see that the poller looks */
void   nl_rx_event(nl_link *link);                      /* poller: there is something to read. mu not held */
bool   nl_rx_sweep(nl_link *link);                      /* poller */
void   nl_rx_fini(nl_link *link);

/* ---- tx.c */

/* Sends one packet. `conn` (may be NULL) is whose closing interrupts the wait for room. Returns with mu held; may have
 * dropped it. */
nl_err nl_tx_send_locked(nl_link *link, nl_conn *conn, uint32_t id, uint16_t code, const void *payload, size_t len,
                         int64_t deadline_ns, bool *maybe_sent);
/* The same for a notification: one close behind another may wait up to NL_CORK_NS to be written with those that follow. */
nl_err nl_tx_notify_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len,
                           int64_t deadline_ns, bool *maybe_sent);
void   nl_tx_uncork(nl_link *link);                     /* poller: the timer. mu not held */
/* Checks that need no lock: size, and that the payload is what the wire wants. */
nl_err nl_tx_check(const nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len);
nl_err nl_tx_room_locked(nl_link *link, nl_conn *conn, size_t total, int64_t deadline_ns);
nl_err nl_tx_queue_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len);
void   nl_tx_kick_locked(nl_link *link);                /* see that the queue is being written; may drop mu meanwhile */
void   nl_tx_reply_locked(nl_link *link, uint32_t id, const char *text);        /* queue a "refused" or "closed" */
void   nl_tx_relieve_locked(nl_link *link);             /* kick, when many replies wait; may drop mu meanwhile */
void   nl_tx_event(nl_link *link);                      /* poller: there is room. mu not held */
void   nl_tx_drop_locked(nl_link *link);                /* the queue will never leave */
void   nl_tx_last_words_locked(nl_link *link);          /* the reader has come to the end: what TLS says to that */
/* For close, which holds both tokens and not mu: writes what the socket takes. 0 all gone, EAGAIN, or an errno. */
int    nl_tx_flush(nl_link *link);

/* ---- route.c */

/* Gives a decoded packet to whom it belongs. Takes it. mu held. */
void   nl_route_locked(nl_link *link, nl_pkt *p);

/* ---- conn.c, ask.c */

nl_conn *nl_conn_make_locked(nl_link *link, bool ours, uint32_t id);            /* in the table. NULL: no memory */
nl_err   nl_conn_open_locked(nl_link *link, nl_conn **out);         /* one of ours, with the next id; one reference */
uint32_t nl_id_next_locked(nl_link *link);
void     nl_conn_unref_locked(nl_conn *conn);           /* drops a reference; the last one ends the Conn */
void     nl_conn_end_locked(nl_conn *conn, nl_conn_state state);    /* out of the table, inbox dropped, all woken */
void     nl_conn_drop_inbox_locked(nl_conn *conn, bool answer);
void     nl_conn_trim_locked(nl_link *link);            /* frees the Conns kept for reuse */
void     nl_conn_push_locked(nl_conn *conn, nl_pkt *p);
void     nl_ask_deliver_locked(nl_conn *conn, nl_pkt *p);           /* the answer of conn->ask or conn->batch */

/* ---- trace.c */

extern atomic_bool nl_trace_on;
void nl_trace_add(const nl_link *link, nl_trace_kind kind, uint32_t id, uint16_t code, size_t len);
static inline void nl_trace(const nl_link *link, nl_trace_kind kind, uint32_t id, uint16_t code, size_t len)
{
    if (__builtin_expect(atomic_load_explicit(&nl_trace_on, memory_order_relaxed), 0))
        nl_trace_add(link, kind, id, code, len);
}

#endif
