/* Listener: a listening socket, the handshakes on it, and the links that came of them. The poller runs it.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The listening socket is one pollee, each handshake (a `shake`) another, so a peer that is slow or silent costs nobody
 * else anything. What a handshake came to, a link or a reason, is its outcome; outcomes queue for nl_listener_accept().
 *
 *   poller: connection --> shake --> outcome --> queue --> nl_listener_accept
 *
 * Three things bound it: at most SHAKES_MAX handshakes, at most `backlog` links that nobody took (with what is under
 * way on top), and at most REPORTS_MAX failures. Over the second the socket is not watched, and peers wait in the
 * kernel's backlog; over the third, failures are only counted. When the process is out of descriptors, accept would
 * fail again at once, and the socket would be readable at once: so it rests for REST_NS.
 *
 * Who gives way. Over the first bound one who has just come would wait for the deadlines of a thousand who may never
 * say a word. So the oldest gives way: at once if it is silent, for who is honest speaks first and is heard within a
 * round trip; after GRACE_NS if it has said something.
 *
 * Who touches what. A shake belongs to the poller's thread alone, but for its place in a list; even close does
 * not touch it, but sets its timer off, and the thread then finds the listener closed. No link function is called under
 * mu.
 *
 * References. `users` are the API's; the last one closes. `refs` keep the memory: one for all users, one for the
 * poller, one for each shake.
 */
#include "link.h"
#include "opening.h"
#include "sys.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#define TAKEN_AT_ONCE 64      /* peers taken between two looks at other links: a flood of connects holds up nobody */
#define SHAKES_MAX  1024u               /* some 3 MB of them; more than one storm of reconnecting clients */
#define REPORTS_MAX 64u                 /* enough to see what is going on; a flood of strangers fills no memory */
#define REST_NS     INT64_C(100000000)  /* short for who waits, long for a processor */
#define GRACE_NS    INT64_C(1000000000) /* some round trips of a far peer, and what TLS computes */

extern nl_lock_class listener_mu;
#define NL_LISTENER NL_GUARDED_BY(listener_mu)

typedef struct outcome {
    nl_list      item NL_LISTENER;      /* in listener.outcomes */
    nl_link     *link;                  /* NULL: failed, and the rest tells */
    nl_fault     why;
    nl_hs_report report;
    struct sockaddr_storage peer;
    socklen_t    peer_len;
} outcome;

typedef struct shake {
    nl_pollee    pollee;
    nl_list      item NL_LISTENER;      /* in listener.silent, then in listener.spoken */
    nl_listener *listener;              /* [const] */
    nl_opening   opening;               /* [poller's thread] */
    int64_t      begun_ns, deadline_ns; /* [const] */
    bool         heard;                 /* [poller's thread] it has spoken */
    bool         over;                  /* [poller's thread] */
    unsigned     refs;                  /* [poller's thread] its own until it is over, and the poller's */
    outcome     *outcome;               /* made beforehand, so that its end needs no memory */
} shake;

struct nl_listener {
    atomic_uint     users, refs;
    pthread_mutex_t mu;                 /* before the poller's */
    bool            closed NL_LISTENER;
    /* The socket is watched; or was left alone for a while. */
    bool            watching NL_LISTENER, resting NL_LISTENER;
    int             fd NL_LISTENER;     /* -1 once closed */
    nl_list         silent NL_LISTENER, spoken NL_LISTENER; /* handshakes: has the peer sent anything? Oldest first */
    unsigned        shake_count NL_LISTENER; /* in both */
    nl_list         outcomes NL_LISTENER; /* first come, first taken */
    unsigned        links NL_LISTENER, reports NL_LISTENER; /* of each kind in it */
    uint64_t        dropped NL_LISTENER; /* failures not reported since the last that was */
    atomic_uint     turn;               /* futex: bumped under mu whenever an accept should look again */

    nl_pollee        pollee;
    nl_listen_config config;            /* [const] holds a reference to config.link.tls */
    unsigned         fork_generation;   /* [const] */
    struct sockaddr_storage address;    /* [const] as bound */
    socklen_t        address_len;
};

static void listener_lock(nl_listener *l) NL_ACQUIRE(listener_mu) NL_UNCHECKED      { pthread_mutex_lock(&l->mu); }
static void listener_unlock(nl_listener *l) NL_RELEASE(listener_mu) NL_UNCHECKED    { pthread_mutex_unlock(&l->mu); }

void nl_listen_config_default(nl_listen_config *config)
{
    memset(config, 0, sizeof *config);
    nl_link_config_default(&config->link);
    config->link.role = NL_SERVER;
    config->link.wire = NL_WIRE_AUTO;
    config->link.version = -1;
    config->backlog = 128;
    config->handshake_ns = INT64_C(10000000000);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void hold_memory(nl_listener *l)
{
    atomic_fetch_add(&l->refs, 1);
}

static void rele_memory(nl_listener *l)
{
    if (atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&l->mu);
    nl_tls_ctx_rele(l->config.link.tls);
    sys_free(l);
}

static void outcome_free(outcome *o)
{
    if (o && o->link) {
        nl_link_abort(o->link);
        nl_link_rele(o->link);
    }
    sys_free(o);
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

static shake *first_locked(const nl_list *shakes) NL_REQUIRES(listener_mu)
{
    return nl_list_empty(shakes) ? NULL : NL_ITEM(shakes->next, shake, item);
}

/* The handshake that gives way to the next one, or NULL. Not the one who has just come: it is silent, too, but there was
 * another before it was let in. */
static shake *oldest_locked(const nl_listener *l) NL_REQUIRES(listener_mu)
{
    shake *silent = first_locked(&l->silent), *spoken = first_locked(&l->spoken);
    int64_t grace_ends_ns = nl_now_ns() - GRACE_NS;

    if (spoken && spoken->begun_ns <= grace_ends_ns && !(silent && silent->begun_ns <= grace_ends_ns))
        return spoken;
    return silent;
}

static bool has_room_locked(const nl_listener *l) NL_REQUIRES(listener_mu)
{
    return l->links < (unsigned)l->config.backlog && (l->shake_count < SHAKES_MAX || oldest_locked(l));
}

static void rest_locked(nl_listener *l) NL_REQUIRES(listener_mu)
{
    l->resting = true;
    nl_poller_timer(&l->pollee, nl_now_ns() + REST_NS);
}

/* Watches the socket if it should be watched and is not. */
static void watch_locked(nl_listener *l) NL_REQUIRES(listener_mu)
{
    if (l->closed || l->watching || l->resting || l->links >= (unsigned)l->config.backlog)
        return;
    if (has_room_locked(l) && nl_poller_watch(&l->pollee, EPOLLIN) == NL_OK)
        l->watching = true;
    else
        rest_locked(l);
}

/* ---- outcomes ---------------------------------------------------------------------------------------------------- */

/* Takes `o`; returns what nobody will take, to be freed without mu. */
static outcome *queue_locked(nl_listener *l, outcome *o) NL_REQUIRES(listener_mu)
{
    if (l->closed)
        return o;
    if (!o->link && l->reports == REPORTS_MAX) {
        l->dropped++;
        return o;
    }
    if (o->link)
        l->links++;
    else
        l->reports++;
    nl_list_push(&l->outcomes, &o->item);
    atomic_fetch_add(&l->turn, 1);
    sys_futex_wake(&l->turn, 1);
    return NULL;
}

static outcome *take_locked(nl_listener *l) NL_REQUIRES(listener_mu)
{
    if (nl_list_empty(&l->outcomes))
        return NULL;
    outcome *o = NL_ITEM(l->outcomes.next, outcome, item);
    nl_list_del(&o->item);
    if (o->link) {
        l->links--;
        watch_locked(l);
        return o;
    }
    l->reports--;
    if (l->dropped) {
        size_t at = strlen(o->why.text);
        o->why.others = l->dropped;
        snprintf(o->why.text + at, sizeof o->why.text - at, " (and %llu more failed)", (unsigned long long)l->dropped);
        l->dropped = 0;
    }
    return o;
}

/* ---- a handshake; on the poller's thread ------------------------------------------------------------------------- */

static void shake_rele(shake *s)
{
    nl_listener *l = s->listener;
    if (--s->refs)
        return;
    nl_opening_fini(&s->opening);
    sys_free(s);
    rele_memory(l);
}

static void shake_released(nl_pollee *p)
{
    shake_rele(NL_ITEM(p, shake, pollee));
}

static void name_peer(outcome *o)
{
    char name[NL_ADDRESS_TEXT];
    nl_fault why = o->why;
    nl_address_text((struct sockaddr *)&o->peer, o->peer_len, name);
    nl_fault_set(&o->why, NL_EHANDSHAKE, why.sys_errno, "peer %s: %s", name, why.text);
}

/* The end of it: leaves the poller, then becomes a link if it can. In this order, for the link will ask the poller to
 * watch the same descriptor. */
static void shake_end(shake *s, bool good)
{
    nl_listener *l = s->listener;
    outcome *o = s->outcome;

    s->over = true;
    s->outcome = NULL;
    nl_poller_del(&s->pollee);
    if (good && nl_opening_link(&s->opening, &l->config.link, &o->link, &o->why) != NL_OK)
        o->link = NULL;
    if (!o->link)
        name_peer(o);
    nl_opening_fini(&s->opening);
    listener_lock(l);
    nl_list_del(&s->item);
    l->shake_count--;
    o = queue_locked(l, o);
    watch_locked(l);
    listener_unlock(l);
    outcome_free(o);
    shake_rele(s);
}

static void shake_fail(shake *s)
{
    s->outcome->why = s->opening.why;
    s->outcome->report = s->opening.report;
    shake_end(s, false);
}

static bool is_closed(nl_listener *l)
{
    listener_lock(l);
    bool closed = l->closed;
    listener_unlock(l);
    return closed;
}

static void shake_wait(shake *s)
{
    nl_opening *o = &s->opening;
    if (!s->heard && nl_opening_has_heard(o)) {
        s->heard = true;
        listener_lock(s->listener);
        nl_list_del(&s->item);
        nl_list_push(&s->listener->spoken, &s->item);
        listener_unlock(s->listener);
    }
    nl_poller_timer(&s->pollee, o->until < s->deadline_ns ? o->until : s->deadline_ns);
    if (is_closed(s->listener))
        nl_poller_timer(&s->pollee, NL_NOW);    /* close set it, and we may have set it back */
    if (nl_poller_watch(&s->pollee, (uint32_t)o->want) != NL_OK) {
        nl_fault_set(&o->why, NL_EHANDSHAKE, errno, "epoll: %s", strerror(errno));
        shake_fail(s);
    }
}

static void shake_run(shake *s)
{
    if (s->over)
        return;
    if (is_closed(s->listener)) {
        shake_end(s, false);                    /* the outcome goes nowhere */
        return;
    }
    nl_opening_state state = nl_opening_step(&s->opening);
    if (state == NL_OPENING_DONE) {
        shake_end(s, true);
    } else if (state != NL_OPENING_GOING) {
        shake_fail(s);
    } else if (nl_now_ns() >= s->deadline_ns) {
        nl_opening_look(&s->opening);
        shake_fail(s);
    } else {
        shake_wait(s);
    }
}

/* Over the bound by one, who has just come and is not done yet: the oldest ends. */
static void give_way(nl_listener *l)
{
    listener_lock(l);
    shake *s = l->shake_count > SHAKES_MAX ? oldest_locked(l) : NULL;
    listener_unlock(l);
    if (!s)
        return;
    nl_opening_look(&s->opening);
    if (s->opening.why.code == NL_ETIMEOUT)     /* else it has failed already, and lingers */
        nl_fault_set(&s->opening.why, NL_EHANDSHAKE, 0, "gave way to newer peers, as %u were shaking hands",
                     SHAKES_MAX);
    shake_fail(s);
}

static void shake_event(nl_pollee *p, uint32_t events)
{
    (void)events;
    shake_run(NL_ITEM(p, shake, pollee));
}

static void shake_timer(nl_pollee *p)
{
    shake_run(NL_ITEM(p, shake, pollee));
}

static const nl_pollee_ops shake_ops = { .event = shake_event, .timer = shake_timer, .released = shake_released };

/* Memory for one; nothing of it is known to anybody yet. */
static shake *shake_alloc(void)
{
    shake *s = sys_calloc(1, sizeof *s);
    outcome *o = sys_calloc(1, sizeof *o);
    if (!s || !o) {
        sys_free(s);
        sys_free(o);
        return NULL;
    }
    s->outcome = o;
    s->pollee.ops = &shake_ops;
    return s;
}

static void shake_free_unused(shake *s)
{
    sys_free(s->outcome);
    sys_free(s);
}

/* Makes `fd` a handshake of the listener. False: the peer is turned away, for want of memory. */
static bool shake_begin_locked(nl_listener *l, shake *s, int fd) NL_REQUIRES(listener_mu)
{
    if (nl_socket_options(fd, &l->config.link.keepalive) < 0) {
        close(fd);
        return false;
    }
    if (nl_opening_init(&s->opening, fd, NL_SERVER, l->config.link.wire, &l->config.link) != NL_OK)
        return false;
    s->listener = l;
    s->pollee.fd = fd;
    int64_t now = nl_now_ns();
    s->begun_ns = now;
    s->deadline_ns = l->config.handshake_ns < NL_FOREVER - now ? now + l->config.handshake_ns : NL_FOREVER;
    if (nl_poller_add(&s->pollee) != NL_OK) {
        nl_opening_fini(&s->opening);
        return false;
    }
    s->refs = 2;
    hold_memory(l);
    nl_list_push(&l->silent, &s->item);
    l->shake_count++;
    return true;
}

/* ---- the listening socket; on the poller's thread ---------------------------------------------------------------- */

/* Errors of one connection that died while it waited; the next one may be fine. */
static bool is_one_peers(int error)
{
    return error == ECONNABORTED || error == EPROTO || error == EINTR || error == EPERM || error == ENETDOWN ||
           error == ENOPROTOOPT || error == EHOSTDOWN || error == EHOSTUNREACH || error == ENETUNREACH;
}

/* The next peer, or NULL: nobody is there, or there is no room, or the listener is closed or rests. */
static shake *take_peer(nl_listener *l)
{
    shake *s = NULL;
    bool taken = false;

    listener_lock(l);
    while (!taken && !l->closed && !l->resting && has_room_locked(l)) {
        if (!s && !(s = shake_alloc())) {
            rest_locked(l);
            break;
        }
        s->outcome->peer_len = sizeof s->outcome->peer;
        int fd = sys_accept(l->fd, (struct sockaddr *)&s->outcome->peer, &s->outcome->peer_len);
        if (fd >= 0)
            taken = shake_begin_locked(l, s, fd);
        else if (errno == EAGAIN)
            break;
        else if (!is_one_peers(errno))
            rest_locked(l);
    }
    listener_unlock(l);
    if (s && !taken) {
        shake_free_unused(s);
        s = NULL;
    }
    return s;
}

static void listener_event(nl_pollee *p, uint32_t events)
{
    nl_listener *l = NL_ITEM(p, nl_listener, pollee);
    shake *s;
    int taken = 0;

    (void)events;
    listener_lock(l);
    l->watching = false;
    listener_unlock(l);
    while (taken++ < TAKEN_AT_ONCE && (s = take_peer(l))) {
        shake_run(s);
        give_way(l);
    }
    listener_lock(l);
    watch_locked(l);
    listener_unlock(l);
}

static void listener_timer(nl_pollee *p)
{
    nl_listener *l = NL_ITEM(p, nl_listener, pollee);
    listener_lock(l);
    l->resting = false;
    watch_locked(l);
    listener_unlock(l);
}

static void listener_released(nl_pollee *p)
{
    rele_memory(NL_ITEM(p, nl_listener, pollee));
}

static const nl_pollee_ops listener_ops = { .event = listener_event, .timer = listener_timer,
                                            .released = listener_released };

/* ---- making one -------------------------------------------------------------------------------------------------- */

static nl_err fail_sys(nl_fault *why, const char *what, const struct sockaddr *address, socklen_t len)
{
    int error = errno;
    char name[NL_ADDRESS_TEXT];
    nl_fault_set(why, NL_ESYS, error, "%s %s: %s", what, nl_address_text(address, len, name), strerror(error));
    return NL_ESYS;
}

/* A listening socket, or -1 with the fault set. */
static int open_socket(const struct sockaddr *address, socklen_t len, int backlog, nl_fault *why)
{
    const int on = 1;
    bool inet = address->sa_family == AF_INET || address->sa_family == AF_INET6;
    int fd = sys_socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK);

    if (fd < 0) {
        fail_sys(why, "socket for", address, len);
        return -1;
    }
    if ((inet && sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) || sys_bind(fd, address, len) < 0) {
        fail_sys(why, "listening on", address, len);
        close(fd);
        return -1;
    }
    if (sys_listen(fd, backlog) < 0) {
        fail_sys(why, "listening on", address, len);
        close(fd);
        return -1;
    }
    return fd;
}

/* Removes the name of a unix socket of ours; abstract names go by themselves. */
static void unlink_path(const nl_listener *l)
{
    const struct sockaddr_un *un = (const void *)&l->address;
    char path[sizeof un->sun_path + 1] = "";

    if (un->sun_family != AF_UNIX || l->address_len <= offsetof(struct sockaddr_un, sun_path))
        return;
    memcpy(path, un->sun_path, l->address_len - offsetof(struct sockaddr_un, sun_path));
    if (path[0])
        unlink(path);
}

static nl_listener *listener_alloc(const nl_listen_config *config)
{
    nl_listener *l = sys_calloc(1, sizeof *l);
    if (!l)
        return NULL;
    atomic_init(&l->users, 1);
    atomic_init(&l->refs, 1);                   /* the users' */
    pthread_mutex_init(&l->mu, NULL);
    nl_list_init(&l->silent);
    nl_list_init(&l->spoken);
    nl_list_init(&l->outcomes);
    atomic_init(&l->turn, 0);
    l->config = *config;
    if (config->link.tls)
        nl_tls_ctx_hold(config->link.tls);
    l->fork_generation = nl_fork_generation();
    l->pollee.ops = &listener_ops;
    return l;
}

/* Asks the poller to run it. */
static nl_err start(nl_listener *l, nl_fault *why)
{
    nl_err e = nl_poller_add(&l->pollee);
    if (e != NL_OK) {
        nl_fault_set(why, e, e == NL_ESYS ? errno : 0, "starting the background thread: %s",
                     e == NL_ESYS ? strerror(errno) : "out of memory");
        unlink_path(l);
        close(l->pollee.fd);
        rele_memory(l);
        return e;
    }
    hold_memory(l);                             /* the poller's */
    listener_lock(l);
    l->fd = l->pollee.fd;
    watch_locked(l);
    listener_unlock(l);
    return NL_OK;
}

nl_err nl_listener_new(const struct sockaddr *address, socklen_t len, const nl_listen_config *config,
                       nl_listener **out, nl_fault *why)
{
    memset(why, 0, sizeof *why);
    if (len < sizeof(sa_family_t) || len > sizeof(struct sockaddr_storage)) {
        nl_fault_set(why, NL_EINVAL, 0, "a socket address of %u bytes", (unsigned)len);
        return NL_EINVAL;
    }
    if (!nl_version_fits(config->link.wire, config->link.version)) {
        nl_fault_set(why, NL_EINVAL, 0, "protocol number %d cannot be said on wire %s: it is one byte, on M up to 127",
                     config->link.version, nl_wire_name(config->link.wire));
        return NL_EINVAL;
    }
    nl_listener *l = listener_alloc(config);
    if (!l) {
        nl_fault_set(why, NL_ENOMEM, 0, "out of memory");
        return NL_ENOMEM;
    }
    if (l->config.backlog < 1)
        l->config.backlog = 1;
    l->pollee.fd = open_socket(address, len, l->config.backlog, why);
    if (l->pollee.fd < 0) {
        rele_memory(l);
        return why->code;
    }
    l->address_len = sizeof l->address;
    if (sys_getsockname(l->pollee.fd, (struct sockaddr *)&l->address, &l->address_len) < 0) {
        fail_sys(why, "asking for the address of", address, len);
        close(l->pollee.fd);                    /* a unix socket's name stays: whose it is was not to be learnt */
        rele_memory(l);
        return NL_ESYS;
    }
    nl_err e = start(l, why);
    *out = e == NL_OK ? l : NULL;
    return e;
}

/* ---- accept ------------------------------------------------------------------------------------------------------ */

/* Hands over what is in `o`, and frees it. */
static nl_err deliver(outcome *o, nl_link **out, nl_fault *why, nl_hs_report *report, struct sockaddr_storage *peer,
                      socklen_t *peer_len)
{
    nl_err e = o->link ? NL_OK : NL_EHANDSHAKE;
    *out = o->link;
    *why = o->why;
    *report = o->report;
    *peer = o->peer;
    *peer_len = o->peer_len;
    sys_free(o);
    return e;
}

nl_err nl_listener_accept(nl_listener *l, int64_t deadline_ns, nl_link **out, nl_fault *why,
                          nl_hs_report *report, struct sockaddr_storage *peer, socklen_t *peer_len)
{
    int slept = 0;

    *out = NULL;
    memset(why, 0, sizeof *why);
    memset(report, 0, sizeof *report);
    if (l->fork_generation != nl_fork_generation())
        return NL_EFORKED;
    for (;;) {
        listener_lock(l);
        bool closed = l->closed;
        unsigned turn = atomic_load(&l->turn);
        outcome *o = closed ? NULL : take_locked(l);
        listener_unlock(l);
        if (o)
            return deliver(o, out, why, report, peer, peer_len);
        if (closed)
            return NL_ELINKCLOSED;
        if (slept == EINTR)
            return NL_EINTR;
        if (slept == ETIMEDOUT || (deadline_ns != NL_FOREVER && nl_now_ns() >= deadline_ns))
            return NL_ETIMEOUT;
        slept = sys_futex_wait(&l->turn, turn, deadline_ns);
    }
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

const struct sockaddr *nl_listener_address(const nl_listener *l, socklen_t *len)
{
    *len = l->address_len;
    return (const struct sockaddr *)&l->address;
}

int nl_listener_fd(const nl_listener *l)
{
    nl_listener *mine = (nl_listener *)(uintptr_t)l;    /* const is the caller's view; the lock is no part of it */
    if (l->fork_generation != nl_fork_generation())
        return -1;
    listener_lock(mine);
    int fd = l->fd;
    listener_unlock(mine);
    return fd;
}

static void end_all_locked(nl_list *shakes) NL_REQUIRES(listener_mu)
{
    for (nl_list *i = shakes->next; i != shakes; i = i->next)
        nl_poller_timer(&NL_ITEM(i, shake, item)->pollee, NL_NOW);
}

/* The sockets of the handshakes are closed by the poller, soon; the listening socket, and with it the address, now. */
void nl_listener_close(nl_listener *l)
{
    nl_list left;

    if (l->fork_generation != nl_fork_generation())
        return;
    nl_list_init(&left);
    listener_lock(l);
    if (!l->closed) {
        l->closed = true;
        nl_poller_del(&l->pollee);
        unlink_path(l);
        close(l->fd);
        l->fd = -1;
        end_all_locked(&l->silent);
        end_all_locked(&l->spoken);
        while (!nl_list_empty(&l->outcomes)) {
            nl_list *first = l->outcomes.next;
            nl_list_del(first);
            nl_list_push(&left, first);
        }
        atomic_fetch_add(&l->turn, 1);
        sys_futex_wake(&l->turn, INT32_MAX);
    }
    listener_unlock(l);
    while (!nl_list_empty(&left)) {
        outcome *o = NL_ITEM(left.next, outcome, item);
        nl_list_del(&o->item);
        outcome_free(o);
    }
    nl_poller_settle();                         /* after nl_shutdown() nobody else ends the handshakes */
}

void nl_listener_hold(nl_listener *l)
{
    atomic_fetch_add(&l->users, 1);
}

/* In a forked child nothing is given back: the poller that holds the other references stayed with the parent. */
void nl_listener_rele(nl_listener *l)
{
    if (!l || atomic_fetch_sub(&l->users, 1) != 1 || l->fork_generation != nl_fork_generation())
        return;
    nl_listener_close(l);
    rele_memory(l);
}
