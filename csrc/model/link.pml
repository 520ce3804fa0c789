/* The token protocol of a link, for spin: who reads, who writes, who sleeps, and who wakes whom.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Processes, variables and inlines bear the names of the code (rx.c, tx.c, waiter.c, conn.c, ask.c, link.c, poller.c);
 * where a name has a dot or an arrow there, it has an underscore here. docs/model.rst says which is which, what is left
 * out and why it may be, and what was checked. check.py runs it, whole and with each line that bears a mark taken out.
 *
 * The lock is a variable. `atomic` only bundles steps that nobody could tell apart: what is between two steps of a thread
 * that holds no lock is never in one `atomic`. Sleepers on a futex are collected under the lock and woken after it, one by one.
 *
 * A line that ends in a comment of the form "knock NAME" hands a token on or wakes somebody. The name is that of the
 * HAND_ON() in the code (csrc/core/hand_on.h).
 */

/* ---- bounds: check.py overrides them with -D -------------------------------------------------------------------- */

#ifndef ASKERS
#define ASKERS 2            /* threads that ask */
#endif
#ifndef ASKS
#define ASKS 1              /* asks of each */
#endif
#ifndef RECEIVERS
#define RECEIVERS 0         /* threads that receive from one Conn */
#endif
#ifndef RECVS
#define RECVS 1             /* packets each of them wants */
#endif
#ifndef NOTIFIERS
#define NOTIFIERS 0         /* threads that notify */
#endif
#ifndef NOTES
#define NOTES 1             /* notifications of each */
#endif
#ifndef ENDERS
#define ENDERS 0            /* threads that close or abort */
#endif
#ifndef STRAYS
#define STRAYS 0            /* packets of the peer that call for a reply of the core */
#endif
#ifndef PEER_MAY_END
#define PEER_MAY_END 0      /* the peer may close its socket at any time */
#endif
#ifndef MUTE
#define MUTE 0              /* the peer may stop reading and answering at any time, with its socket open; the flush does not wait for it */
#endif
#ifndef PUSHES
#define PUSHES (RECEIVERS * RECVS)  /* packets of the peer for the Conn of the receivers */
#endif
#ifndef FAILS
#define FAILS 0             /* any write may fail, with the peer there: memory is short */
#endif
#ifndef LEAVER
#define LEAVER 0            /* the first closer may leave when a signal comes; then the others are patient */
#endif
#ifndef IMPATIENT
#define IMPATIENT 0         /* a call may have a deadline, or meet a signal */
#endif
#ifndef CROWD
#define CROWD 0             /* any packet may wait for others, as that of a notification in a burst */
#endif
#ifndef IN_TURN
#define IN_TURN 0           /* of those that are woken together one is called at a time, by the one before it; or two */
#endif
#ifndef UNIX
#define UNIX 0              /* close cannot free a sleeping reader by shutting the socket down */
#endif
#ifndef SOCKET
#define SOCKET 1            /* packets in the kernel, each way */
#endif
#ifndef TX_LIMIT
#define TX_LIMIT 2          /* limits.link_tx_bytes, in packets */
#endif
#ifndef RX_LIMIT
#define RX_LIMIT 1          /* limits.link_rx_bytes, in packets */
#endif
#ifndef TURN
#define TURN 1              /* packets a holder of the write token writes for others: TURN_BYTES */
#endif
#ifndef POLLER_READS
#define POLLER_READS 2
#endif

#define RECEIVER0 ASKERS
#define NOTIFIER0 (ASKERS + RECEIVERS)
#define ENDER0    (ASKERS + RECEIVERS + NOTIFIERS)
#define THREADS   (ASKERS + RECEIVERS + NOTIFIERS + ENDERS)
#define QUEUE     (ASKERS + NOTIFIERS * NOTES + STRAYS + 1)

/* Packets: an ask and its answer are the ask's number; these are the others. */
#define PUSH  200           /* for the Conn of the receivers */
#define STRAY 201           /* for a Conn that is gone: answered "connection closed" */
#define REPLY 202           /* that answer */
#define NOTE  203           /* a notification of ours */

mtype = { OPEN, DOWN, CLOSING, CLOSED };
mtype = { NONE, THREAD, POLLER, ARMED };
mtype = { NOWHERE, TX_WAITERS, CONN_WAITERS, CLOSE_WAITERS };
mtype = { OK, EAGAIN, EINTR, ETIMEDOUT, EPIPE, ELINK };

/* ---- the link --------------------------------------------------------------------------------------------------- */

typedef nl_waiter {
    bool all;               /* in rx_waiters */
    mtype on;               /* which list */
    bool ready, leader, asleep;
    bool stays;             /* only the link's end frees it */
    bool wake_fd, eventfd;  /* it polls an eventfd; that is written */
    bool word, futex;       /* posted; the kernel has it asleep on the word */
    bool called             /* FUTEX_WAKE was made for it, and it has not had the lock since; kept if IN_TURN */
}

bool  mu;
mtype link_state = OPEN;
bool  tx_fault, aborted, closer, read_shut;
byte  inside;
bool  watching_in, watching_out;

mtype rx_holder = NONE;
bool  paused, throttled, ending, sweeping, watched, more;
bool  strayed;                      /* a packet was turned away since the reader last looked at what they took */
bool  used;                         /* rx.turns != rx.swept_turns */
byte  rx_bytes;
chan  block = [SOCKET] of { byte }; /* read and not decoded */

mtype tx_holder = NONE;
chan  tx_first = [QUEUE] of { byte };
byte  tx_bytes;
bool  corked;

nl_waiter w[THREADS];
byte  posted;                       /* sleepers that nl_link_unlock has to wake, as bits */
byte  called;
byte  ask_conn[THREADS];            /* the ask that is in the table, plus one; 0: none */
bool  ask_answer[THREADS];
bool  ask_waiter[THREADS];
byte  inbox;                        /* of the receivers' Conn */

/* ---- the kernel, the peer and the poller's lists ------------------------------------------------------------------ */

chan  in_socket  = [SOCKET] of { byte };
chan  out_socket = [SOCKET] of { byte };
bool  peer_ended, shut_rd, shut_wr;
bool  epoll_in, epoll_out;          /* one-shot: armed for these */
bool  sweeps, timers, deleted;

byte  readers, writers, done;       /* for the assertions: */
bool  owed;                         /* an abort found bytes that nobody writes, and room for them in the socket */
bool  was_paused;                   /* the link was over its budget when a write failed */
bool  error_told;                   /* a write failed: the socket tells its error once */
bool  left_alone;                   /* the one closer left for a signal */

#define HAS_ENDED   (peer_ended || shut_rd)
#define IS_READABLE (len(in_socket) > 0 || HAS_ENDED)
#define IS_BROKEN   (peer_ended || shut_wr)
#define IS_WRITABLE (len(out_socket) < SOCKET || IS_BROKEN)
#define RX_MAY_READ (link_state == OPEN && !paused && !throttled && !ending)
#define RX_HAS_LEFT more
#define TX_PENDING  (len(tx_first) > 0)

#if ASKERS + RECEIVERS == 1
#define NO_WAITERS (!w[0].all)
#elif ASKERS + RECEIVERS == 2
#define NO_WAITERS (!w[0].all && !w[1].all)
#elif ASKERS + RECEIVERS == 3
#define NO_WAITERS (!w[0].all && !w[1].all && !w[2].all)
#else
#define NO_WAITERS true
#endif

/* ---- the lock, posts, waiters ------------------------------------------------------------------------------------- */

/* What each process needs. */
#define LOCALS byte posts, at, x, spent, reads, packet, told; mtype n, e, te, r; bool slept, impatient, late, left_over, left, again, whole

inline nl_link_lock()
{
    atomic { !mu -> mu = true }
}

inline nl_waiter_post_locked(i)
{
    w[i].word = true;
    if
    :: w[i].wake_fd -> w[i].eventfd = true                      /* knock post_eventfd */
    :: !w[i].wake_fd && w[i].asleep -> posted = posted | (1 << (i))     /* knock post_futex */
    :: else
    fi
}

inline sys_futex_wake()         /* for the first of `posts` */
{
    d_step {
        x = 0;
        do
        :: !(posts & (1 << x)) -> x++
        :: else -> break
        od;
        posts = posts - (1 << x);
        w[x].futex = false;                 /* knock unlock_wake */
        x = 0
    }
}

/* Takes with it whom it wakes, the next leader first; where they come in turn, of the others until so many are called. */
inline unlock_and_call(ahead)
{
    d_step {
        x = 0;
        do
        :: x < 2 * THREADS ->
            if
            :: (posted & (1 << (x % THREADS))) && (x < THREADS -> w[x % THREADS].leader : !IN_TURN || called < ahead) ->
                posted = posted - (1 << (x % THREADS));
                posts = posts | (1 << (x % THREADS));
                if
                :: IN_TURN && !w[x % THREADS].called -> w[x % THREADS].called = true; called++
                :: else
                fi
            :: else
            fi;
            x++
        :: else -> break
        od;
        x = 0;
        mu = false
    }
    do
    :: posts -> sys_futex_wake()
    :: else -> break
    od
}

inline nl_link_unlock()
{
    unlock_and_call(1)
}

inline nl_waiter_init(i)
{
    w[i].on = NOWHERE;
    w[i].ready = false;
    w[i].leader = false;
    w[i].stays = false;
    w[i].word = false
}

inline nl_waiter_wake_locked(i)
{
    w[i].on = NOWHERE;
    if
    :: !w[i].ready ->
        w[i].ready = true;
        nl_waiter_post_locked(i)               /* knock waiter_wake */
    :: else
    fi
}

inline nl_waiters_wake_locked(list)
{
    d_step {
        at = 0;
        do
        :: at < THREADS ->
            if
            :: w[at].on == list -> nl_waiter_wake_locked(at)
            :: else
            fi;
            at++
        :: else -> break
        od;
        at = 0
    }
}

/* Whoever is in a call may lose patience at any point of it, if this call is one of an impatient caller. */
inline nl_waiter_sleep_locked(i)
{
    w[i].asleep = true;
    if
    :: unlock_and_call(1)
    :: IN_TURN -> unlock_and_call(2)        /* link.ahead has learnt it */
    fi;
    atomic {
        if
        :: w[i].word                        /* futex_wait returns at once */
        :: else -> w[i].futex = true
        fi
    }
    if
    :: atomic { !w[i].futex -> r = OK }
    :: atomic { impatient && w[i].futex -> w[i].futex = false; r = EINTR }
    :: atomic { impatient && w[i].futex -> w[i].futex = false; r = ETIMEDOUT; late = true }
    fi;
    atomic {
        nl_link_lock();
        w[i].asleep = false;
        w[i].word = false;
        posted = posted & ~(1 << (i));
        if
        :: w[i].called ->
            w[i].called = false;
            called--                        /* knock waiter_came */
        :: else
        fi
    }
}

/* ---- the poller's lists ------------------------------------------------------------------------------------------- */

inline nl_poller_watch()
{
    if
    :: !deleted -> epoll_in = watching_in; epoll_out = watching_out
    :: else
    fi
}

inline nl_poller_sweep()
{
    if
    :: !deleted -> sweeps = true
    :: else
    fi
}

inline nl_poller_timer()
{
    if
    :: !deleted -> timers = true
    :: else
    fi
}

inline nl_poller_del()
{
    deleted = true;
    sweeps = false;
    timers = false;
    epoll_in = false;
    epoll_out = false
}

/* ---- the end of a link: link.c ------------------------------------------------------------------------------------ */

/* Bytes of the queue will never leave. */
inline nl_tx_drop_locked()
{
    do
    :: tx_first ? _
    :: len(tx_first) == 0 -> break
    od;
    tx_bytes = 0
}

inline drop_queue_locked()
{
    if
    :: tx_holder == ARMED -> tx_holder = NONE
    :: else
    fi;
    if
    :: tx_holder == NONE -> nl_tx_drop_locked()
    :: else
    fi
}

inline wake_all_locked()
{
    d_step {
        at = 0;
        do
        :: at < THREADS ->
            if
            :: w[at].all -> nl_waiter_wake_locked(at)       /* knock end_wake_rx */
            :: else
            fi;
            at++
        :: else -> break
        od;
        at = 0
    }
    nl_waiters_wake_locked(TX_WAITERS)      /* knock end_wake_tx */
}

inline shutdown_both()
{
    shut_rd = true;
    shut_wr = true
}

inline nl_link_fail_locked()
{
    if
    :: link_state == OPEN ->
        link_state = DOWN;
        throttled = false;
        shutdown_both();
        drop_queue_locked();
        wake_all_locked()
    :: else
    fi
}

inline nl_link_watch_locked()
{
    if
    :: ((watched && !watching_in) || (tx_holder == ARMED && !watching_out)) && link_state != CLOSED ->
        watching_in = watched;
        watching_out = (tx_holder == ARMED);
        nl_poller_watch()                   /* knock link_watch */
    :: else
    fi
}

#define IS_QUIET (inside == 0 && rx_holder == NONE && (tx_holder == NONE || tx_holder == ARMED))

inline finish_locked()
{
    assert(link_state == CLOSING);
    assert(IS_QUIET);
    tx_holder = NONE;
    nl_tx_drop_locked();
    nl_poller_del();
    link_state = CLOSED;
    nl_waiters_wake_locked(CLOSE_WAITERS)   /* knock finish_wake */
}

inline nl_link_quiet_locked()
{
    if
    :: link_state == CLOSING && IS_QUIET && closer ->
        nl_waiters_wake_locked(CLOSE_WAITERS)       /* knock quiet_wake */
    :: link_state == CLOSING && IS_QUIET && !closer && aborted ->
        finish_locked()                     /* knock quiet_finish */
    :: else
    fi
}

inline nl_link_enter()
{
    nl_link_lock();
    inside++
}

inline nl_link_leave()
{
    atomic {
        inside--;
        nl_link_quiet_locked()              /* knock leave_quiet */
    }
    nl_link_unlock()
}

/* ---- reading: rx.c ------------------------------------------------------------------------------------------------ */

inline rx_take_locked(who)
{
    rx_holder = who;
    used = true
}

inline rx_watch_locked()
{
    watched = true;
    nl_link_watch_locked()
}

/* To any waiter that still needs it: the code takes the youngest. */
inline rx_hand_over_locked()
{
    if
    :: ASKERS + RECEIVERS > 0 && w[0].all && !w[0].ready -> told = 1
    :: ASKERS + RECEIVERS > 1 && w[1 % THREADS].all && !w[1 % THREADS].ready -> told = 2
    :: ASKERS + RECEIVERS > 2 && w[2 % THREADS].all && !w[2 % THREADS].ready -> told = 3
    :: else -> told = 0
    fi;
    if
    :: told ->
        w[told - 1].leader = true;
        rx_take_locked(THREAD);
        nl_waiter_post_locked(told - 1)        /* knock rx_hand_over_post */
    :: else
    fi
}

inline nl_rx_idle_locked()
{
    if
    :: RX_MAY_READ && rx_holder == NONE && !sweeping ->
        sweeping = true;
        used = false;
        nl_poller_sweep()                   /* knock rx_idle_sweep */
    :: else
    fi
}

inline rx_give_locked()
{
    again = (rx_holder == POLLER && !RX_HAS_LEFT);
    rx_holder = NONE;
    told = 0;
    if
    :: RX_MAY_READ ->
        rx_hand_over_locked();              /* knock rx_give_hand_over */
        if
        :: !told && again -> rx_watch_locked()
        :: else
        fi;
        if
        :: !told -> nl_rx_idle_locked()     /* knock rx_give_idle */
        :: else
        fi
    :: else
    fi;
    again = false;
    told = 0;
    nl_link_quiet_locked()                  /* knock rx_give_quiet */
}

inline nl_rx_unpause_locked()
{
    if
    :: paused && rx_bytes <= RX_LIMIT / 2 ->
        paused = false;
        if
        :: rx_holder == NONE -> rx_give_locked()    /* knock rx_unpause_give */
        :: else
        fi
    :: else
    fi
}

/* Everything that is in the socket. n: OK some came, ELINK the end, EAGAIN. */
inline rx_read()
{
    atomic {
        assert(readers == 1 && !more);
        if
        :: len(in_socket) > 0 ->
            do
            :: in_socket ? packet -> block ! packet
            :: len(in_socket) == 0 -> break
            od;
            packet = 0;
            more = true;
            n = OK
        :: len(in_socket) == 0 && HAS_ENDED -> n = ELINK
        :: else -> n = EAGAIN
        fi
    }
}

/* A thread waits for bytes as the leader: first in a read that nobody can interrupt, but for the timeout that it has if the
 * thread may be called away, then in poll. */
inline rx_fill(i)
{
    if
    :: !slept ->
        slept = true;
        if
        :: IS_READABLE -> rx_read()
        :: !w[i].stays || impatient -> n = EAGAIN           /* SO_RCVTIMEO */
        :: impatient -> n = EINTR
        fi
    :: else ->
        atomic {
            nl_link_lock();
            w[i].wake_fd = true;
            w[i].eventfd = false;
            left = w[i].word                /* knock poll_look */
        }
        nl_link_unlock();
        if                                  /* sys_poll */
        :: IS_READABLE -> n = OK
        :: w[i].eventfd || left -> n = EAGAIN
        :: impatient -> n = EINTR
        :: impatient -> n = EAGAIN; late = true
        fi;
        atomic {
            left = false;
            nl_link_lock();
            w[i].wake_fd = false;
            w[i].eventfd = false
        }
        nl_link_unlock();
        if
        :: n == OK -> rx_read()
        :: else
        fi
    fi
}

/* Cuts one packet out of the block: BATCH is 1 here. */
inline rx_cut()
{
    block ? packet;
    more = (len(block) > 0)
}

inline nl_ask_deliver_locked(i)
{
    ask_answer[i] = true;
    ask_conn[i] = 0;
    if
    :: ask_waiter[i] -> nl_waiter_wake_locked(i)    /* knock ask_deliver_wake */
    :: else
    fi
}

/* One packet, one waiter: any that waits; the code takes the oldest. */
inline nl_conn_push_locked()
{
    inbox++;
    rx_bytes++;
    if
    :: RECEIVERS > 0 && w[RECEIVER0 % THREADS].on == CONN_WAITERS ->
        nl_waiter_wake_locked(RECEIVER0 % THREADS)          /* knock conn_push_wake */
    :: RECEIVERS > 1 && w[(RECEIVER0 + 1) % THREADS].on == CONN_WAITERS ->
        nl_waiter_wake_locked((RECEIVER0 + 1) % THREADS)    /* knock conn_push_wake */
    :: RECEIVERS > 2 && w[(RECEIVER0 + 2) % THREADS].on == CONN_WAITERS ->
        nl_waiter_wake_locked((RECEIVER0 + 2) % THREADS)    /* knock conn_push_wake */
    :: else
    fi
}

inline nl_route_locked()
{
    if
    :: link_state != OPEN
    :: link_state == OPEN && packet < PUSH && ask_conn[packet / ASKS] == packet + 1 -> nl_ask_deliver_locked(packet / ASKS)
    :: link_state == OPEN && packet < PUSH && ask_conn[packet / ASKS] != packet + 1        /* late */
    :: link_state == OPEN && packet == PUSH -> nl_conn_push_locked()
    :: link_state == OPEN && packet == STRAY -> nl_tx_reply_locked(); strayed = true
    fi;
    packet = 0
}

/* Whether they took more than their share is for the clock to say: here it may be so. */
inline rx_throttle_locked()
{
    if
    :: strayed && RX_MAY_READ ->
        throttled = true;
        nl_poller_timer()                   /* knock rx_throttle_timer */
    :: true
    fi;
    strayed = false
}

inline rx_route_locked()
{
    do
    :: true ->
        atomic {
            if
            :: packet -> packet--; nl_route_locked()
            :: else
            fi;
            if
            :: rx_bytes > RX_LIMIT -> paused = true
            :: else
            fi;
            rx_throttle_locked();
            if
            :: !more || !RX_MAY_READ -> break
            :: else
            fi
        }
        nl_link_unlock();
        atomic {
            rx_cut();
            packet++
        }
        nl_link_lock()
    od;
    if
    :: TX_PENDING -> nl_tx_kick_locked()    /* knock rx_route_kick */
    :: else
    fi
}

/* i: the thread's number; or THREADS, the poller, who does not wait. */
inline rx_turn_locked(i)
{
    atomic {
        left_over = more;
        readers++;
        assert(readers == 1)
    }
    nl_link_unlock();
    n = OK;
    if
    :: !left_over && i < THREADS -> rx_fill(i % THREADS)
    :: !left_over && i >= THREADS -> rx_read()
    :: else
    fi;
    atomic {
        if
        :: more -> rx_cut(); packet++
        :: else
        fi
    }
    nl_link_lock();
    if
    :: atomic { n == OK || left_over -> slept = false; left_over = false }
        rx_route_locked();
        n = OK
    :: atomic { n == ELINK && !left_over ->
            if
            :: tx_holder == THREAD || tx_holder == POLLER -> ending = true
            :: else ->
                assert(link_state != OPEN || !error_told || tx_fault);
                nl_link_fail_locked()       /* rx_ended_locked */
            fi;
            n = OK
        }
    :: else
    fi;
    readers--
}

inline nl_rx_wait_locked(i)
{
    atomic {
        w[i].all = true;
        slept = false;
        late = false;
        e = OK
    }
    if
    :: TX_PENDING -> nl_tx_kick_locked()
    :: CROWD && TX_PENDING                  /* the crowd is still coming */
    :: else
    fi;
    do
    :: w[i].ready || e != OK -> break
    :: else ->
        atomic {
            if
            :: rx_holder == NONE && RX_MAY_READ ->
                rx_take_locked(THREAD);
                w[i].leader = true
            :: else
            fi
        }
        if
        :: w[i].leader && !RX_MAY_READ ->
            atomic {
                w[i].leader = false;
                rx_give_locked()            /* knock rx_wait_give_paused */
            }
        :: w[i].leader && RX_MAY_READ ->
            assert(rx_holder == THREAD);
            rx_turn_locked(i);
            atomic {
                w[i].word = false;
                if
                :: n == EINTR -> e = EINTR
                :: n == EAGAIN && late -> e = ETIMEDOUT
                :: impatient && n == OK -> e = EINTR        /* leads_for_long, LATE_TURNS */
                :: impatient && n == OK -> e = ETIMEDOUT
                :: n == OK || (n == EAGAIN && !late)
                fi
            }
        :: else ->
            nl_waiter_sleep_locked(i);
            atomic {
                if
                :: r == EINTR -> e = EINTR
                :: r == ETIMEDOUT && !w[i].leader -> e = ETIMEDOUT
                :: else
                fi
            }
        fi
    od;
    atomic {
        w[i].all = false;
        w[i].on = NOWHERE;
        if
        :: w[i].leader ->
            w[i].leader = false;
            rx_give_locked()                /* knock rx_wait_give */
        :: else
        fi;
        if
        :: w[i].ready && e != EINTR -> e = OK
        :: else
        fi;
        slept = false;
        late = false
    }
}

inline rx_poller_turn_locked()
{
    atomic {
        rx_take_locked(POLLER);
        reads = 0;
        n = OK
    }
    do
    :: reads < POLLER_READS && n == OK && RX_MAY_READ && (reads == 0 || NO_WAITERS) ->
        reads++;
        rx_turn_locked(THREADS)
    :: else -> break
    od;
    atomic {
        reads = 0;
        n = OK;
        rx_give_locked()                    /* knock rx_poller_give */
    }
}

inline nl_rx_event()
{
    atomic {
        nl_link_lock();
        watched = false
    }
    if
    :: rx_holder == NONE && RX_MAY_READ -> rx_poller_turn_locked()      /* knock rx_event_turn */
    :: else
    fi;
    nl_link_unlock()
}

inline nl_rx_sweep()
{
    atomic {
        nl_link_lock();
        again = (RX_MAY_READ && used);
        used = false;
        sweeping = again
    }
    if
    :: !again && RX_MAY_READ && rx_holder == NONE && RX_HAS_LEFT -> rx_poller_turn_locked()     /* knock rx_sweep_turn */
    :: !again && RX_MAY_READ && rx_holder == NONE && !RX_HAS_LEFT && !watched ->
        atomic { rx_watch_locked() }        /* knock rx_sweep_watch */
    :: else
    fi;
    nl_link_unlock()
}

/* The timer may have been for what was corked, and the throttling not be over. */
inline nl_rx_timer()
{
    nl_link_lock();
    if
    :: throttled && was_corked ->
        nl_poller_timer()                   /* knock rx_timer_again */
    :: throttled ->
        throttled = false;
        if
        :: rx_holder == NONE && RX_MAY_READ -> rx_poller_turn_locked()      /* knock rx_timer_turn */
        :: else
        fi
    :: else
    fi;
    was_corked = false;
    nl_link_unlock()
}

/* ---- writing: tx.c ------------------------------------------------------------------------------------------------ */

inline tx_failed_locked()
{
    if
    :: link_state == CLOSING -> aborted = true
    :: else
    fi;
    if
    :: !tx_fault && link_state == OPEN ->
        tx_fault = true;
        was_paused = paused;
        shut_rd = true;                     /* knock tx_failed_shutdown */
        shut_wr = true;
        nl_waiters_wake_locked(TX_WAITERS); /* knock tx_failed_wake */
        if
        :: paused -> nl_link_fail_locked()  /* knock tx_failed_fail */
        :: else
        fi
    :: else
    fi
}

inline nl_rx_tell_end_locked()
{
    ending = false;
    nl_link_fail_locked()
}

inline tx_give_locked()
{
    if
    :: ending && link_state == OPEN -> nl_rx_tell_end_locked()  /* knock tx_give_end */
    :: else
    fi;
    if
    :: TX_PENDING && (link_state == OPEN || link_state == CLOSING) && !aborted && !tx_fault ->
        tx_holder = ARMED;
        nl_link_watch_locked()              /* knock tx_give_watch */
    :: else ->
        tx_holder = NONE;
        if
        :: TX_PENDING -> nl_tx_drop_locked()        /* knock tx_give_drop */
        :: else
        fi
    fi;
    nl_link_quiet_locked()                  /* knock tx_give_quiet */
}

inline tx_wake_for_room_locked()
{
    if
    :: tx_bytes <= TX_LIMIT / 2 -> nl_waiters_wake_locked(TX_WAITERS)   /* knock tx_wake_for_room */
    :: else
    fi
}

/* Begun with `te` OK. One packet a write. */
inline tx_run_locked()
{
    spent = 0;
    do
    :: te == OK && TX_PENDING && spent < TURN && link_state != DOWN && !aborted ->
        atomic {
            writers++;
            assert(writers == 1)
        }
        nl_link_unlock();
        atomic {
            if
            :: IS_BROKEN || FAILS -> te = EPIPE; error_told = true
            :: !IS_BROKEN && len(out_socket) < SOCKET ->
                tx_first ? <packet>;
                out_socket ! packet;
                packet = 0;
                owed = false
            :: !IS_BROKEN && len(out_socket) == SOCKET -> te = EAGAIN
            fi
        }
        atomic {
            nl_link_lock();
            writers--;
            if
            :: te == OK -> tx_first ? _; tx_bytes--; spent++        /* queue_consume */
            :: te == EPIPE -> tx_failed_locked()
            :: else
            fi;
            tx_wake_for_room_locked()
        }
    :: else -> break
    od;
    atomic {
        te = OK;
        spent = 0;
        tx_give_locked()                    /* knock tx_run_give */
    }
}

inline nl_tx_kick_locked()
{
    if
    :: tx_holder == NONE && TX_PENDING && link_state == OPEN ->
        tx_holder = THREAD;
        te = OK;
        tx_run_locked()
    :: else
    fi
}

inline nl_tx_event()
{
    nl_link_lock();
    if
    :: tx_holder == ARMED ->
        tx_holder = POLLER;
        te = OK;
        tx_run_locked()                     /* knock tx_event_run */
    :: else
    fi;
    nl_link_unlock()
}

#define SEND_ERROR (tx_fault || link_state != OPEN)

inline nl_tx_room_locked(i)
{
    e = OK;
    do
    :: SEND_ERROR -> e = ELINK; break
    :: !SEND_ERROR && tx_bytes < TX_LIMIT -> break
    :: else ->
        atomic {
            nl_waiter_init(i);
            w[i].on = TX_WAITERS
        }
        nl_waiter_sleep_locked(i);
        atomic {
            w[i].on = NOWHERE;
            late = false;
            if
            :: !SEND_ERROR && r == EINTR -> e = EINTR; break
            :: !SEND_ERROR && r == ETIMEDOUT && !w[i].ready -> e = ETIMEDOUT; break
            :: else
            fi
        }
    od
}

inline nl_tx_queue_locked(p)
{
    assert(len(tx_first) < QUEUE);
    tx_first ! p;
    tx_bytes++
}

inline nl_tx_reply_locked()
{
    if
    :: !tx_fault && link_state == OPEN -> nl_tx_queue_locked(REPLY)
    :: else
    fi
}

/* The token is free: what the socket does not take goes to the queue. The code puts it to its head; the order of packets
 * is not of this model. */
inline send_now_locked(p)
{
    atomic {
        tx_holder = THREAD;
        tx_bytes++;
        writers++;
        assert(writers == 1)
    }
    nl_link_unlock();
    atomic {
        if
        :: IS_BROKEN || FAILS -> te = EPIPE; error_told = true
        :: !IS_BROKEN && len(out_socket) < SOCKET -> out_socket ! p; te = OK
        :: !IS_BROKEN && len(out_socket) == SOCKET -> te = EAGAIN
        fi
    }
    atomic {
        nl_link_lock();
        writers--;
        whole = (te == OK);
        if
        :: te == OK -> tx_bytes--; tx_wake_for_room_locked()
        :: te == EAGAIN -> tx_first ! p
        :: te == EPIPE -> tx_bytes--; tx_failed_locked()
        fi
    }
    if
    :: te != OK || !TX_PENDING -> atomic { te = OK; tx_give_locked() }      /* knock send_now_give */
    :: te == OK && TX_PENDING -> tx_run_locked()                            /* knock send_now_run */
    fi;
    atomic {
        e = (!whole && SEND_ERROR -> ELINK : OK);
        whole = false
    }
}

inline cork_locked()
{
    if
    :: !corked ->
        corked = true;
        nl_poller_timer()                   /* knock tx_cork_timer */
    :: else
    fi
}

/* A packet may join a crowd: when it may is not of this model, nor that the crowd is let go before its time. */
/* Then te is EAGAIN when nothing was written; else e is what the caller is told. */
inline write_alone_locked(p)
{
    atomic {
        if
        :: IS_BROKEN || FAILS ->
            error_told = true;
            tx_failed_locked();
            e = (SEND_ERROR -> ELINK : OK)
        :: !IS_BROKEN && len(out_socket) < SOCKET -> out_socket ! p
        :: !IS_BROKEN && len(out_socket) == SOCKET -> te = EAGAIN
        fi
    }
}

inline send_first_locked(p)
{
    te = OK;
    if
    :: inside == 1 -> write_alone_locked(p)
    :: te = EAGAIN                      /* others are inside, or it is not small */
    fi;
    if
    :: te == EAGAIN -> te = OK; send_now_locked(p)
    :: else
    fi
}

inline nl_tx_send_locked(i, p)
{
    nl_tx_room_locked(i);
    if
    :: CROWD && e == OK && tx_holder == NONE -> atomic { nl_tx_queue_locked(p); cork_locked() }
    :: e == OK && (tx_holder != NONE || TX_PENDING) ->
        nl_tx_queue_locked(p);
        nl_tx_kick_locked()
    :: e == OK && tx_holder == NONE && !TX_PENDING ->
        send_first_locked(p)
    :: else
    fi
}

/* In a burst, or not. CORK_BYTES is TX_LIMIT here. */
inline nl_tx_notify_locked(i)
{
    if
    :: tx_holder != NONE -> nl_tx_send_locked(i, NOTE)
    :: tx_holder == NONE -> nl_tx_send_locked(i, NOTE)
    :: tx_holder == NONE ->
        nl_tx_queue_locked(NOTE);
        if
        :: tx_bytes >= TX_LIMIT -> nl_tx_kick_locked()
        :: else -> atomic { cork_locked() }
        fi
    fi
}

inline nl_tx_uncork()
{
    atomic {
        nl_link_lock();
        was_corked = corked;
        corked = false
    }
    nl_tx_kick_locked();                    /* knock tx_uncork_kick */
    nl_link_unlock()
}

/* ---- the calls of the API ----------------------------------------------------------------------------------------- */

inline choose_patience()
{
    if
    :: impatient = false
    :: IMPATIENT -> impatient = true
    fi
}

/* nl_ask_begin, nl_ask_wait, nl_ask_end. */
proctype asker(byte i)
{
    LOCALS;
    byte k;

    do
    :: k < ASKS ->
        atomic {
            choose_patience();
            nl_link_enter()
        }
        nl_tx_room_locked(i);               /* ask_locked */
        if
        :: e == OK ->
            ask_conn[i] = i * ASKS + k + 1;
            nl_tx_send_locked(i, i * ASKS + k);
            if
            :: e != OK -> ask_answer[i] = false; ask_conn[i] = 0
            :: else
            fi
        :: else
        fi;
        nl_link_leave();
        if
        :: e == OK ->
            nl_link_enter();
            if
            :: !ask_answer[i] && link_state == OPEN ->
                atomic {
                    nl_waiter_init(i);
                    w[i].stays = !UNIX;
                    ask_waiter[i] = true
                }
                nl_rx_wait_locked(i);
                ask_waiter[i] = false
            :: else
            fi;
            atomic {
                assert(ask_answer[i] || link_state != OPEN || e != OK);
                ask_answer[i] = false;
                ask_conn[i] = 0             /* nl_ask_end: given up */
            }
            nl_link_leave()
        :: else
        fi;
        atomic {
            e = OK;
            k++
        }
    :: else -> break
    od;
    done++
}

/* nl_conn_recv. */
proctype receiver(byte i)
{
    LOCALS;
    byte k;
    bool got;

    do
    :: k < RECVS ->
        atomic {
            choose_patience();
            nl_link_enter();
            e = OK
        }
        do
        :: inbox || e != OK || link_state != OPEN ->
            atomic {
                if
                :: inbox ->
                    inbox--;
                    rx_bytes--;
                    nl_rx_unpause_locked()  /* knock pop_unpause */
                :: else
                fi
            }
            break
        :: else ->
            atomic {
                nl_waiter_init(i);
                w[i].on = CONN_WAITERS
            }
            nl_rx_wait_locked(i)
        od;
        nl_link_leave();
        atomic {
            e = OK;
            k++
        }
    :: else -> break
    od;
    done++
}

/* nl_link_notify. */
proctype notifier(byte i)
{
    LOCALS;
    byte k;

    do
    :: k < NOTES ->
        atomic {
            choose_patience();
            nl_link_enter()
        }
        nl_tx_room_locked(i);
        if
        :: e == OK -> nl_tx_notify_locked(i)
        :: else
        fi;
        nl_link_leave();
        atomic {
            e = OK;
            k++
        }
    :: else -> break
    od;
    done++
}

/* The kick it begins with stands before its calls. */
inline shut_locked()
{
    if
    :: link_state == OPEN || link_state == DOWN ->
        aborted = (aborted || link_state == DOWN);
        link_state = CLOSING;
        throttled = false;
        wake_all_locked();
        inbox = 0;
        rx_bytes = 0;
        nl_rx_unpause_locked();
        if
        :: rx_holder == THREAD && !UNIX -> shut_rd = true           /* knock shut_read */
        :: else
        fi
    :: else
    fi
}

inline abort_locked()
{
    shut_locked();
    if
    :: link_state != CLOSED ->
        aborted = true;
        shutdown_both();
        drop_queue_locked();
        nl_link_quiet_locked()              /* knock abort_quiet */
    :: else
    fi
}

inline close_wait_locked(i)
{
    atomic {
        nl_waiter_init(i);
        w[i].on = CLOSE_WAITERS
    }
    nl_waiter_sleep_locked(i);
    atomic {
        w[i].on = NOWHERE;
        late = false;
        if
        :: w[i].ready -> r = OK
        :: else
        fi
    }
}

/* Writes what is queued; throws away what comes, for a peer that is stuck writing would not read. */
inline flush()
{
    do
    :: atomic { IS_BROKEN -> break }
    :: atomic { !IS_BROKEN && TX_PENDING && len(out_socket) < SOCKET ->
            tx_first ? packet;
            out_socket ! packet;
            packet = 0;
            tx_bytes-- }
    :: !TX_PENDING -> break
    :: len(in_socket) > 0 -> in_socket ? _
    :: aborted -> e = ETIMEDOUT; break
    :: impatient || MUTE || FAILS -> e = ETIMEDOUT; break
    :: impatient -> e = EINTR; break
    od
}

/* Steps 2 to 5, by the one closer. */
inline close_locked(i)
{
    e = OK;
    do
    :: !IS_QUIET && r == OK -> close_wait_locked(i)
    :: else -> break
    od;
    if
    :: r != OK -> e = r
    :: r == OK && !aborted ->
        atomic {
            assert(rx_holder == NONE && (tx_holder == NONE || tx_holder == ARMED));
            rx_holder = THREAD;
            tx_holder = THREAD
        }
        nl_link_unlock();
        flush();
        if
        :: e != EINTR -> shut_wr = true     /* linger */
        :: else
        fi;
        atomic {
            nl_link_lock();
            rx_holder = NONE;               /* nl_tx_flushed_locked */
            if
            :: e == EINTR -> tx_give_locked()       /* knock tx_flushed_give */
            :: else -> tx_holder = NONE
            fi;
            if
            :: e != EINTR -> finish_locked()        /* knock close_finish */
            :: else
            fi
        }
    :: r == OK && aborted -> atomic { finish_locked() }     /* knock close_finish */
    fi
}

inline nl_link_close(i)
{
    nl_link_lock();
    nl_tx_kick_locked();                    /* knock shut_kick */
    atomic {
        shut_locked();
        r = OK
    }
    do
    :: closer && link_state != CLOSED && r == OK -> close_wait_locked(i)
    :: else -> break
    od;
    if
    :: link_state != CLOSED && r == OK ->
        closer = true;
        close_locked(i);
        atomic {
            closer = false;
            if
            :: e == ETIMEDOUT -> abort_locked()     /* knock close_abort */
            :: else -> nl_link_quiet_locked()
            fi;
            if
            :: link_state != CLOSED -> nl_waiters_wake_locked(CLOSE_WAITERS)        /* knock close_next */
            :: else
            fi
        }
    :: else
    fi;
    nl_link_unlock()
}

inline nl_link_abort()
{
    nl_link_lock();
    owed = (tx_holder == NONE && TX_PENDING && link_state == OPEN && !tx_fault && !IS_BROKEN && IS_WRITABLE);
    nl_tx_kick_locked();                    /* knock shut_kick */
    atomic {
        assert(!owed || aborted || IS_BROKEN);
        owed = false;
        abort_locked()
    }
    nl_link_unlock()
}

/* nl_link_close and what its callers do when a signal cut it short; or nl_link_abort. */
proctype ender(byte i)
{
    LOCALS;

    atomic {
        choose_patience();
        impatient = (impatient && (!LEAVER || i == ENDER0));
        if
        :: told = 0
        :: told = 1
        fi
    }
    if
    :: told == 0 ->
        nl_link_close(i);
        if
        :: e == EINTR || r == EINTR -> told = 1
        :: LEAVER && i == ENDER0 && (e == EINTR || r == EINTR) -> left_alone = (ENDERS == 1)
        :: else
        fi
    :: else
    fi;
    if
    :: told -> told = 0; nl_link_abort()
    :: else
    fi;
    done++
}

/* ---- the others --------------------------------------------------------------------------------------------------- */

proctype poller()
{
    LOCALS;
    bool in, out, ended, was_corked;

    do
    :: atomic { (epoll_in && IS_READABLE) || (epoll_out && IS_WRITABLE) || ((epoll_in || epoll_out) && IS_BROKEN) ->
            ended = IS_BROKEN;
            in = (ended || (epoll_in && IS_READABLE));
            out = (ended || (epoll_out && IS_WRITABLE));
            epoll_in = false;
            epoll_out = false }
        atomic {                            /* link_event */
            nl_link_lock();
            watching_in = false;
            watching_out = false
        }
        nl_link_unlock();
        if
        :: out -> nl_tx_event()             /* knock event_tx */
        :: else
        fi;
        if
        :: in -> nl_rx_event()              /* knock event_rx */
        :: else
        fi;
        atomic {
            ended = false;
            in = false;
            out = false;
            nl_link_lock();
            nl_link_watch_locked()          /* knock event_watch */
        }
        nl_link_unlock()
    :: atomic { sweeps -> sweeps = false }
        nl_rx_sweep();
        atomic {
            if
            :: again -> nl_poller_sweep()   /* knock sweep_again */
            :: else
            fi;
            again = false
        }
    :: atomic { timers -> timers = false }  /* link_timer */
        nl_tx_uncork();                     /* knock timer_tx */
        nl_rx_timer()                       /* knock timer_rx */
    od
}

/* Answers each ask, and reads no other before its answer is in the socket; sends what the receivers want, and strays. */
proctype peer()
{
    byte p, pushes = PUSHES, strays = STRAYS;

    do
    :: out_socket ? p ->
        if
        :: p < PUSH ->
            if
            :: in_socket ! p
            :: shut_rd || link_state == CLOSED
            fi
        :: else
        fi
    :: atomic { pushes -> in_socket ! PUSH; pushes-- }
    :: atomic { strays -> in_socket ! STRAY; strays-- }
    :: PEER_MAY_END -> peer_ended = true; break
    :: MUTE -> break
    :: link_state == CLOSED -> break
    od
}

/* Starts them, and looks when nothing moves any more. */
init {
    byte i;

    atomic {
        sweeping = true;                    /* nl_link_new_open: nl_rx_idle_locked */
        sweeps = true;
        run poller();
        run peer();
        do
        :: i < THREADS ->
            if
            :: i < RECEIVER0 -> run asker(i)
            :: i >= RECEIVER0 && i < NOTIFIER0 -> run receiver(i)
            :: i >= NOTIFIER0 && i < ENDER0 -> run notifier(i)
            :: i >= ENDER0 -> run ender(i)
            fi;
            i++
        :: else -> break
        od
    }
    timeout ->
        assert(!mu && readers == 0 && writers == 0);
        /* Nobody sleeps for ever, but on a link that is over its budget; and then not for a packet that is here. */
        assert(done == THREADS || (paused && inbox));
        i = 0;
        do
        :: i < THREADS -> assert(!(w[i].on == CONN_WAITERS && inbox)); assert(w[i].on != TX_WAITERS || tx_bytes); i++
        :: else -> break
        od;
        assert(!paused || rx_bytes > RX_LIMIT / 2);
        assert(!throttled);
        /* A live link is watched or over its budget. */
        assert(link_state != OPEN || paused || (rx_holder == NONE && watched && epoll_in && !more));
        /* One that cannot write ends, but for packets that came before and nobody takes; then nobody waits for room. */
        assert(!tx_fault || link_state != OPEN || (paused && inbox && !was_paused));
        i = 0;
        do
        :: i < THREADS -> assert(w[i].on != TX_WAITERS || !tx_fault); i++
        :: else -> break
        od;
        /* Queued bytes have somebody who writes them: the poller, when the socket takes more. */
        assert(!TX_PENDING || (tx_holder == ARMED && epoll_out && !IS_WRITABLE));
        assert(link_state == CLOSED || ENDERS == 0 || left_alone)
}
