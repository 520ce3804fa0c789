/* The inside of a link: what link.c, conn.c, ask.c, route.c, rx.c, tx.c and waiter.c share. Openings include it for the
 * making of a link and the setting of faults only.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Locks. One mutex per link, `mu`, guards every field marked NL_MU; a function marked NL_LOCKED, as all named *_locked
 * are, is called with it held (guarded.h: a compiler checks both). Order: listener, link.mu, then the leaves (poller,
 * tls session, block cache, trace). No lock is held across a call that can sleep, and nothing outside the core is
 * called at all.
 *
 * Tokens. Reading the socket and decoding belong to whoever holds the read token (`rx.holder`), writing to it and the
 * order of bytes to whoever holds the write token (`tx.holder`). A token is taken and given under mu, and used without
 * it. Fields marked NL_RX belong to the holder of the read token; the write token has no fields of its own, but the
 * bytes of tx.first and the socket's order. rx.c and tx.c have an essay each.
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
 * users together, one for the poller while it watches, one for all Conns. `inside` counts calls that are in the link
 * now: close waits for it, which is more than memory needs, and what its callers expect: no byte and no wake-up after
 * close.
 */
#ifndef NL_LINK_H
#define NL_LINK_H

#include "buf.h"
#include "hand_on.h"
#include "guarded.h"
#include "list.h"
#include "poller.h"
#include "sys.h"
#include "table.h"
#include "tls.h"
#include "wire.h"

#define NL_AHEAD_ONE     16u
#define NL_RCVTIMEO_NS   INT64_C(20000000)  /* longest blocking read of whoever may be called away; see rx.c */
#define NL_SNDTIMEO_NS   INT64_C(5000000)   /* longest blocking write; see tx.c */
#define NL_CTL_BYTES     ((size_t)256 << 10) /* "refused", "closed" replies that may wait unsent: then it is a flood */
#define NL_CORK_NS       INT64_C(2000000)   /* longest wait of a notification in a burst; see tx.c */
#define NL_CONNS_KEPT    64u                /* free Conns a link keeps for reuse */

extern nl_lock_class nl_link_mu, nl_rx_token;
#define NL_MU       NL_GUARDED_BY(nl_link_mu)
#define NL_RX       NL_GUARDED_BY(nl_rx_token)
#define NL_LOCKED   NL_REQUIRES(nl_link_mu)

/* A thread that waits for something the reader brings, on that thread's stack. */
typedef struct nl_waiter {
    nl_list     all NL_MU;              /* in link.rx.waiters while it waits */
    nl_list     on NL_MU;               /* in the list of what it waits for, until woken */
    nl_list     posted NL_MU;           /* in link.posted, from its post until it is called */
    bool        ready NL_MU;            /* woken for its own sake */
    bool        leader NL_MU;           /* holds, or was handed, the read token */
    bool        asleep NL_MU;           /* on the futex; a leader is not, and costs its waker no system call */
    bool        coming NL_MU;           /* was posted asleep, and has not had the lock since */
    bool        called NL_MU;           /* nor since FUTEX_WAKE was made for it */
    bool        stays;                  /* [const] until ready only the link's end frees it, and that by a shutdown */
    int         wake_fd NL_MU;          /* >= 0: it sleeps in poll and this wakes it */
    atomic_uint word;                   /* futex: 1 when posted */
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
    nl_link      *link;                 /* [const] */
    nl_pkt       *in_first NL_MU;       /* inbox */
    nl_pkt      **in_last NL_MU;
    size_t        in_bytes NL_MU;       /* charge of the inbox */
    nl_list       waiters NL_MU;        /* threads in recv, first come first woken */
    nl_list       item NL_MU;           /* in link.backlog until accepted; in a batch's list while asked */
    struct nl_ask      *ask NL_MU;      /* this Conn is one ask: its answer goes there */
    struct nl_ask_many *batch NL_MU;    /* or one of many */
    size_t        index NL_MU;          /* which one */
    atomic_uint   refs;
    uint32_t      id;                   /* [const] while in use */
    bool          ours;                 /* [const] while in use */
    uint8_t       state NL_MU;          /* nl_conn_state */
};

typedef struct nl_rx {
    nl_rx_holder holder NL_MU;
    nl_list      waiters NL_MU;         /* every nl_waiter.all */
    atomic_bool  waited;                /* are there any; set under mu, read without */
    bool         paused NL_MU;          /* over link_rx_bytes: nobody reads until somebody takes */
    bool         ending NL_MU;          /* the stream has ended; whoever writes now comes back and says how */
    bool         throttled NL_MU;       /* too many strays: nobody reads until ... */
    int64_t      throttled_until_ns NL_MU;
    int64_t      strays_ns NL_MU;       /* what strays took, by estimate, since ... */
    int64_t      strays_since_ns NL_MU;
    size_t       bytes NL_MU;           /* charge of all inboxes */
    uint64_t     turns NL_MU;           /* grows with every take: the sweep sees whether the link is in use */
    uint64_t     swept_turns NL_MU;
    bool         sweeping NL_MU;        /* on the poller's sweep list */
    bool         watched NL_MU;         /* the poller watches for input */

    nl_block    *block NL_RX;           /* bytes received */
    size_t       at NL_RX, end NL_RX;   /* undecoded ones are data[at .. end) */
    uint64_t     offset NL_RX;          /* of `at` in the stream */
    size_t       large NL_RX;           /* size of the last packet if larger than a block: the next may be, too */
    bool         more NL_RX;            /* data[at .. end) may hold a whole packet */
    bool         timed NL_RX;           /* the socket has its receive timeout */
    bool         held NL_RX;            /* the TLS session may hold plaintext: no event of the socket tells of it */
    nl_scan      scan NL_RX;
    int64_t      spin_ns;               /* [const] the adaptive try, 0: none. See rx.c */
    atomic_uint  dear_ns;               /* how long the next NL_TRY may take, as the last sleep was dear; or 0 */
    unsigned     spin_skip NL_RX, spin_backoff NL_RX;
    bool         near NL_RX;            /* the peer runs where we may, when last looked for: nothing is tried ... */
    bool         looks NL_RX;           /* ... and it is looked for when the next sleep ends */
    unsigned     spun NL_RX;            /* this turn: 1 tried, 2 and something came */
} nl_rx;

typedef struct nl_tx {
    nl_tx_holder holder NL_MU;
    nl_block    *first NL_MU, **last NL_MU; /* queue; bytes of `first` are read without mu, never changed */
    size_t       bytes NL_MU;           /* taken from senders, not yet by the kernel */
    size_t       ctl_bytes NL_MU;       /* of them, the core's own replies, at most: it goes down in two steps ... */
    size_t       ctl_mark NL_MU;        /* ... the next when so many bytes have left; 0: there are no replies ... */
    size_t       ctl_behind NL_MU;      /* ... and these replies, queued behind the mark, remain */
    nl_list      waiters NL_MU;         /* senders that wait for room */
    int64_t      notified_ns NL_MU;     /* when the last notification came */
    bool         corked NL_MU;          /* the poller's timer is set, to write what a burst or a crowd left behind */
    unsigned     crowd NL_MU;           /* the queue is written when so many of link.coming have come: see tx.c */
} nl_tx;

struct nl_link {
    atomic_uint  users, refs;
    pthread_mutex_t mu;                 /* taken by nl_link_lock(), nl_link_enter() */
    nl_link_state state NL_MU;
    nl_fault     fault NL_MU;           /* the first one */
    nl_fault     tx_fault NL_MU;        /* writing failed; what is still readable is read before the link goes down */
    unsigned     inside NL_MU;          /* calls in the link */
    bool         aborted NL_MU;         /* CLOSING: deliver nothing */
    bool         closer NL_MU;          /* a thread is in close; it finishes, nobody else does */
    bool         read_shut;             /* SHUT_RD was said, to free a sleeping reader: the socket looks ended. Set
                                         * under mu before CLOSING is seen, const from then on */
    uint32_t     watching NL_MU;        /* the events the poller watches for now */
    nl_list      close_waiters NL_MU;   /* threads in close */
    nl_list      posted NL_MU;          /* sleepers that nl_link_unlock has to wake */
    unsigned     coming NL_MU;          /* waiters that were posted asleep and have not had the lock since */
    unsigned     called NL_MU;          /* of them, those for which FUTEX_WAKE was made */
    unsigned     ahead NL_MU;           /* how many of those may be on their way, in parts of NL_AHEAD_ONE: waiter.c */
    atomic_bool  turn;                  /* somebody has come in turn, and nobody has let go of mu since, but to leave */
    atomic_bool  turn_awaited;          /* somebody spins for it */

    nl_rx        rx;
    nl_tx        tx;
    nl_table     table NL_MU;
    uint32_t     next_id NL_MU;
    nl_conn     *free_conns NL_MU;      /* linked through in_last */
    unsigned     free_count NL_MU;
    size_t       conns_made NL_MU;      /* but for asks; all of them together have one of `refs` */
    nl_list      backlog NL_MU;         /* Conns the peer opened and nobody took */
    size_t       backlog_len NL_MU;
    nl_list      acceptors NL_MU;       /* threads in accept, recv1, recv_packet */
    bool         accept_closed NL_MU;
    unsigned     accept_wakes NL_MU;    /* counts nl_link_wake_accept */
    nl_pkt      *raw_first NL_MU, **raw_last NL_MU; /* raw links: what came */
    nl_stats     stats NL_MU;

    nl_pollee    pollee;
    nl_pool     *pool;                  /* [const] */
    nl_tls      *tls;                   /* [const] */
    nl_limits    limits;                /* [const] ... to the end */
    int          fd;                    /* -1 once CLOSED, which mu guards */
    int          version;
    unsigned     fork_generation;
    uint64_t     serial;
    nl_role      role;
    nl_wire      wire;
    nl_routing   routing;
    nl_accept    accept;
    bool         raw, in_turn;          /* [const] */
    struct sockaddr *local, *peer;      /* one allocation each, of local_len and peer_len bytes */
    socklen_t    local_len, peer_len;
};

/* The one way to take mu, and the two ways to let go of it, to leave the link or not: what was posted under it is woken
 * then, see waiter.c. */
static inline void nl_link_lock(nl_link *link) NL_ACQUIRE(nl_link_mu) NL_UNCHECKED { pthread_mutex_lock(&link->mu); }
void nl_waiters_unlock(nl_link *link, bool leaves) NL_RELEASE(nl_link_mu);      /* in waiter.c */
static inline void nl_link_unlock(nl_link *link) NL_RELEASE(nl_link_mu) NL_UNCHECKED
{
    if (nl_list_empty(&link->posted) && !atomic_load_explicit(&link->turn, memory_order_relaxed))
        pthread_mutex_unlock(&link->mu);
    else
        nl_waiters_unlock(link, false);
}
static inline void nl_link_unlock_and_leave(nl_link *link) NL_RELEASE(nl_link_mu) NL_UNCHECKED
{
    if (nl_list_empty(&link->posted))
        pthread_mutex_unlock(&link->mu);
    else
        nl_waiters_unlock(link, true);
}

/* ---- link.c */

/* As nl_link_new for a stream whose opening is done; takes fd and tls on success. */
nl_err nl_link_new_open(int fd, const nl_link_config *config, nl_tls *tls, const uint8_t *early, size_t early_len,
                        nl_link **out, nl_fault *why);
void nl_link_hold_memory(nl_link *link);
void nl_link_rele_memory(nl_link *link);
/* Every call that works on a link begins and ends with these. enter is false in a forked child, with mu not taken: the
 * call returns NL_EFORKED. True: mu is held, and the call counted. */
bool   nl_link_enter(nl_link *link) NL_TRY_ACQUIRE(nl_link_mu);
void   nl_link_leave(nl_link *link) NL_RELEASE(nl_link_mu);
nl_err nl_link_error_locked(const nl_link *link) NL_LOCKED;     /* NL_OK while OPEN, else what ops on it return */
void   nl_link_fail_locked(nl_link *link, const nl_fault *why) NL_LOCKED; /* OPEN -> DOWN: keeps it, wakes everyone */
void   nl_link_quiet_locked(nl_link *link) NL_LOCKED;           /* a token came free: CLOSING may have become CLOSED */
void   nl_link_watch_locked(nl_link *link) NL_LOCKED;   /* tells the poller what rx.watched and tx.holder ask for */
/* The poller's timer of the link: at at_ns, or at the end of a throttling that is nearer. */
void   nl_link_timer_locked(nl_link *link, int64_t at_ns) NL_LOCKED;
/* Nothing is said yet. The text is not cleared to its end: every round trip has two of these, and seldom a word. */
static inline void nl_fault_init(nl_fault *f)
{
    f->code = NL_OK;
    f->sys_errno = 0;
    f->clean = false;
    f->others = 0;
    f->text[0] = '\0';
}
/* Does closing free a reader that sleeps in the socket, by shutting its reading side? A peer on a Unix socket would
 * feel that as if all were closed. */
static inline bool nl_link_end_frees_reader(const nl_link *link) { return link->local->sa_family != AF_UNIX; }
bool   nl_link_is_local(const nl_link *link);           /* by IP, from this host to itself */
void   nl_fault_set(nl_fault *f, nl_err code, int sys_errno, const char *format, ...)
       __attribute__((format(printf, 4, 5)));

/* ---- waiter.c */

void   nl_waiter_init(nl_waiter *w);
void   nl_waiter_post_locked(nl_link *link, nl_waiter *w) NL_LOCKED;    /* it has to look, for whatever reason */
/* Sleeps on the futex until posted. 0, EINTR, ETIMEDOUT (at once for NL_NOW). mu dropped meanwhile. */
int    nl_waiter_sleep_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns) NL_LOCKED;
void   nl_waiter_wake_locked(nl_link *link, nl_waiter *w) NL_LOCKED;    /* ready; off its list; posted */
void   nl_waiters_wake_locked(nl_link *link, nl_list *on) NL_LOCKED;    /* all of a list of nl_waiter.on */

/* ---- rx.c */

/* Sleeps, or reads the socket for all, until `w` is ready. Its `on` is linked where its waker looks. NL_OK ready;
 * NL_ETIMEOUT: not ready. NL_EINTR: a signal came, ready or not; the caller looks once more at what it waited for, and
 * does not wait again before the signal was told. Off its list in any case, and whatever it held it has passed on. */
nl_err nl_rx_wait_locked(nl_link *link, nl_waiter *w, int64_t deadline_ns) NL_LOCKED;
bool   nl_cpu_is_ours(int cpu);                         /* may the calling thread run on it? */
void   nl_rx_init(nl_link *link) NL_UNSHARED;           /* when it knows its addresses */
void   nl_rx_unpause_locked(nl_link *link) NL_LOCKED;                   /* after rx.bytes went down */
void   nl_rx_tell_end_locked(nl_link *link) NL_LOCKED;  /* back from a write, and tx_fault is set if it failed */
/* A packet was thrown away, which may have been answered. */
void   nl_rx_stray_locked(nl_link *link, size_t bytes, bool answered) NL_LOCKED;
void   nl_rx_unthrottle_locked(nl_link *link) NL_LOCKED;                /* the link is no longer open */
void   nl_rx_timer(nl_link *link);                      /* poller: the timer. mu not held */
void   nl_rx_idle_locked(nl_link *link) NL_LOCKED; /* the token is free and nobody waits: see that the poller looks */
void   nl_rx_event(nl_link *link);                      /* poller: there is something to read. mu not held */
bool   nl_rx_sweep(nl_link *link);                      /* poller */
void   nl_rx_fini(nl_link *link);

/* ---- tx.c */

/* Sends one packet. `conn` (may be NULL) is whose closing interrupts the wait for room. Returns with mu held; may have
 * dropped it. */
nl_err nl_tx_send_locked(nl_link *link, nl_conn *conn, uint32_t id, uint16_t code, const void *payload, size_t len,
                         int64_t deadline_ns, bool *maybe_sent) NL_LOCKED;
/* The same where nl_tx_room_locked() has just said that there is room for NL_HEAD_MAX and the payload. */
nl_err nl_tx_put_locked(nl_link *link, nl_conn *conn, uint32_t id, uint16_t code, const void *payload, size_t len,
                        int64_t deadline_ns, bool *maybe_sent) NL_LOCKED;
/* And for a notification: one close behind another may wait up to NL_CORK_NS to be written with those that follow. */
nl_err nl_tx_notify_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len,
                           int64_t deadline_ns, bool *maybe_sent) NL_LOCKED;
void   nl_tx_uncork(nl_link *link);                     /* poller: the timer. mu not held */
/* Checks that need no lock: size, and that the payload is what the wire wants. */
nl_err nl_tx_check(const nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len);
nl_err nl_tx_error_locked(const nl_link *link, const nl_conn *conn) NL_LOCKED;  /* why nothing can be sent, or NL_OK */
static inline bool nl_tx_has_room_locked(const nl_link *link, size_t total) NL_LOCKED
{
    size_t limit = link->limits.link_tx_bytes;

    return !link->tx.bytes || (total <= limit && link->tx.bytes <= limit - total);
}
static inline bool nl_tx_is_writing_locked(const nl_link *link) NL_LOCKED
{
    return link->tx.holder == NL_TX_THREAD || link->tx.holder == NL_TX_POLLER;
}
nl_err nl_tx_room_locked(nl_link *link, nl_conn *conn, size_t total, int64_t deadline_ns) NL_LOCKED;
nl_err nl_tx_queue_locked(nl_link *link, uint32_t id, uint16_t code, const void *payload, size_t len) NL_LOCKED;
void   nl_tx_kick_locked(nl_link *link) NL_LOCKED;      /* see that the queue is being written; may drop mu meanwhile */
void   nl_tx_reply_locked(nl_link *link, uint32_t id, const char *text) NL_LOCKED; /* queue a "refused" or "closed" */
void   nl_tx_relieve_locked(nl_link *link) NL_LOCKED;   /* kick, when many replies wait; may drop mu meanwhile */
void   nl_tx_event(nl_link *link);                      /* poller: there is room. mu not held */
void   nl_tx_came_locked(nl_link *link) NL_LOCKED;      /* one of link.coming has come; may drop mu meanwhile */
void   nl_tx_drop_locked(nl_link *link) NL_LOCKED;      /* the queue will never leave; whoever waits for room knows */
void   nl_tx_last_words_locked(nl_link *link) NL_LOCKED; /* the reader has come to the end: what TLS says to that */
/* For close, which holds both tokens and not mu: writes what the socket takes. 0 all gone, EAGAIN, or an errno. */
int    nl_tx_flush(nl_link *link);
/* Then it gives the write token back: what is left is dropped, or, when a signal cut the close short, the poller's. */
void   nl_tx_flushed_locked(nl_link *link, bool interrupted) NL_LOCKED;

/* ---- route.c */

/* Gives a decoded packet to whom it belongs. Takes it. mu held. */
void   nl_route_locked(nl_link *link, nl_pkt *p) NL_LOCKED;

/* ---- conn.c, ask.c */

nl_conn *nl_conn_of_peer_locked(nl_link *link, uint32_t id) NL_LOCKED; /* one that the peer opens. NULL: no memory */
nl_err   nl_conn_open_locked(nl_link *link, nl_conn **out) NL_LOCKED; /* an ask's, with the next id; one reference */
uint32_t nl_id_next_locked(nl_link *link) NL_LOCKED;
void     nl_conn_unref_locked(nl_conn *conn) NL_LOCKED;         /* drops a reference; the last one ends the Conn */
void     nl_conn_end_locked(nl_conn *conn, nl_conn_state state) NL_LOCKED; /* out of the table, no inbox, all woken */
size_t   nl_conn_drop_inbox_locked(nl_conn *conn, const char *text) NL_LOCKED;  /* NULL: tells nobody */
void     nl_conn_trim_locked(nl_link *link) NL_LOCKED;                  /* frees the Conns kept for reuse */
void     nl_conn_push_locked(nl_conn *conn, nl_pkt *p) NL_LOCKED;
void     nl_ask_deliver_locked(nl_conn *conn, nl_pkt *p) NL_LOCKED;     /* the answer of conn->ask or conn->batch */

/* ---- trace.c */

extern atomic_bool nl_trace_on;
void nl_trace_add(const nl_link *link, nl_trace_kind kind, uint32_t id, uint16_t code, size_t len);
static inline void nl_trace(const nl_link *link, nl_trace_kind kind, uint32_t id, uint16_t code, size_t len)
{
    if (__builtin_expect(atomic_load_explicit(&nl_trace_on, memory_order_relaxed), 0))
        nl_trace_add(link, kind, id, code, len);
}

#endif
