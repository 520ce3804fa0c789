/* Dialer: from an address to a link, on the thread that waits for it.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The dialer owns everything a dial has under way, so a wait that a signal ends loses nothing: the next one goes on
 * where it was. A wait sleeps in poll on two descriptors, the socket and an eventfd that cancels.
 *
 *   CONNECT      start connecting                                     -> CONNECTING, SHAKING
 *   CONNECTING   the kernel connects; a full unix backlog has no      -> SHAKING, OVER
 *                event, so such a connect is tried again a little later
 *   SHAKING      opening.c                                            -> OVER, CONNECT (a redial)
 *   OVER         the result stays
 *
 * A dial on auto may connect more than once. The second time it offers N, when the peer kept silent to M or closed (see
 * hs.c). If the peer then says M, it was no node of NEO/go, only slow: there is nothing left to guess, and the third
 * time speaks M. A dial that speaks M first connects once more, to listen first, when the peer may have wanted the
 * other form of its opening. No order is tried twice, so it ends.
 */
#include "link.h"
#include "opening.h"
#include "sys.h"

#include <stdio.h>

#define RETRY_NS INT64_C(10000000)      /* a full unix backlog: the listener needs a moment, nobody tells when */

enum stage { CONNECT, CONNECTING, SHAKING, OVER };

struct nl_dialer {
    struct sockaddr_storage address;
    socklen_t      len;
    nl_dial_config config;              /* holds a reference to config.link.tls */
    char           name[NL_ADDRESS_TEXT];
    unsigned       fork_generation;
    int            wake;                /* eventfd: readable once cancelled */
    atomic_bool    cancelled;

    enum stage     stage;
    int            fd;                  /* CONNECTING; then the opening's */
    int64_t        retry_at;            /* CONNECT: not before */
    nl_wire        offer;               /* as configured, then as the redial wants it */
    bool           hear_first;          /* so does this */
    nl_opening     opening;             /* SHAKING */
    nl_err         err;                 /* OVER: the result, and its story */
    nl_fault       why;
    nl_hs_report   report;
};

void nl_dial_config_default(nl_dial_config *config)
{
    memset(config, 0, sizeof *config);
    nl_link_config_default(&config->link);
    config->link.role = NL_CLIENT;
    config->link.wire = NL_WIRE_AUTO;
    config->link.version = -1;
}

/* ---- verdicts ---------------------------------------------------------------------------------------------------- */

static void over(nl_dialer *d, nl_err err)
{
    d->err = err;
    d->stage = OVER;
}

static void fail_sys(nl_dialer *d, const char *what, int error)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
    nl_fault_set(&d->why, NL_ESYS, error, "%s %s: %s", what, d->name, strerror(error));
    over(d, NL_ESYS);
}

static void fail_memory(nl_dialer *d)
{
    nl_fault_set(&d->why, NL_ENOMEM, 0, "dialing %s: out of memory", d->name);
    over(d, NL_ENOMEM);
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

/* A dial to a free port of the range that local ports are taken from can connect a socket to itself. */
static bool met_itself(int fd)
{
    struct sockaddr_storage own, peer;
    socklen_t own_len = sizeof own, peer_len = sizeof peer;

    memset(&own, 0, sizeof own);
    memset(&peer, 0, sizeof peer);
    if (sys_getsockname(fd, (struct sockaddr *)&own, &own_len) < 0 || own.ss_family == AF_UNIX ||
        sys_getpeername(fd, (struct sockaddr *)&peer, &peer_len) < 0)
        return false;
    return own_len == peer_len && memcmp(&own, &peer, own_len) == 0;
}

static void connected(nl_dialer *d)
{
    if (met_itself(d->fd)) {
        fail_sys(d, "connecting to", ECONNREFUSED);
        return;
    }
    if (nl_socket_options(d->fd, &d->config.link.keepalive) < 0) {
        fail_sys(d, "setting socket options for", errno);
        return;
    }
    int fd = d->fd;
    d->fd = -1;
    if (nl_opening_init(&d->opening, fd, NL_CLIENT, d->offer, &d->config.link) != NL_OK) {
        fail_memory(d);
        return;
    }
    if (d->hear_first)
        nl_opening_hear_first(&d->opening);
    d->stage = SHAKING;
}

/* True: go on. False: sleep first. */
static bool step_connect(nl_dialer *d)
{
    if (nl_now_ns() < d->retry_at)
        return false;
    d->fd = sys_socket(d->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK);
    if (d->fd < 0) {
        fail_sys(d, "socket for", errno);
        return true;
    }
    if (sys_connect(d->fd, (const struct sockaddr *)&d->address, d->len) == 0) {
        connected(d);
    } else if (errno == EINPROGRESS || errno == EINTR) {
        d->stage = CONNECTING;
    } else if (errno == EAGAIN && d->address.ss_family == AF_UNIX) {
        close(d->fd);
        d->fd = -1;
        d->retry_at = nl_now_ns() + RETRY_NS;
    } else {
        fail_sys(d, "connecting to", errno);
    }
    return true;
}

static bool step_connecting(nl_dialer *d)
{
    struct pollfd ready = { .fd = d->fd, .events = POLLOUT };
    int error = 0;
    socklen_t len = sizeof error;

    int n = sys_poll(&ready, 1, 0);
    if (n < 0 && errno != EINTR) {
        fail_sys(d, "polling for", errno);
        return true;
    }
    if (n <= 0)
        return false;
    if (sys_getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    /* Reset: it had taken the connection; the handshake finds out that it is over. */
    if (error && error != ECONNRESET)
        fail_sys(d, "connecting to", error);
    else
        connected(d);
    return true;
}

/* ---- shaking hands ----------------------------------------------------------------------------------------------- */

/* The wire to dial again with, AUTO if there is none. */
static nl_wire redial_wire(const nl_dialer *d, nl_opening_state state)
{
    if (state == NL_OPENING_REDIAL)
        return d->opening.hs.redial_wire;
    if (d->config.link.wire == NL_WIRE_AUTO && state == NL_OPENING_FAILED && d->offer == NL_WIRE_N &&
        d->opening.hs.peer_wire == NL_WIRE_M)
        return NL_WIRE_M;
    return NL_WIRE_AUTO;
}

static bool step_shaking(nl_dialer *d, nl_link **link)
{
    nl_opening_state state = nl_opening_step(&d->opening);
    if (state == NL_OPENING_GOING)
        return false;
    nl_wire again = redial_wire(d, state);
    if (again != NL_WIRE_AUTO) {
        d->offer = again;
        d->hear_first = state == NL_OPENING_REDIAL && again == NL_WIRE_M;
        d->stage = CONNECT;
    } else if (state == NL_OPENING_DONE) {
        over(d, nl_opening_link(&d->opening, &d->config.link, link, &d->why));
    } else {
        d->report = d->opening.report;
        nl_fault_set(&d->why, NL_EHANDSHAKE, d->opening.why.sys_errno, "dialing %s: %s", d->name, d->opening.why.text);
        over(d, NL_EHANDSHAKE);
    }
    nl_opening_fini(&d->opening);
    return true;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* As far as it goes without sleeping. */
static void run(nl_dialer *d, nl_link **link)
{
    bool going = true;
    while (going && d->stage != OVER) {
        switch (d->stage) {
        case CONNECT:
            going = step_connect(d);
            break;
        case CONNECTING:
            going = step_connecting(d);
            break;
        default:
            going = step_shaking(d, link);
        }
    }
}

/* 0, or EINTR, or another errno of poll. */
static int sleep_until(nl_dialer *d, int64_t deadline_ns)
{
    struct pollfd fds[2] = { { .fd = d->wake, .events = POLLIN }, { .fd = -1 } };
    int64_t until = deadline_ns;

    if (d->stage == CONNECT && d->retry_at < until)
        until = d->retry_at;
    if (d->stage == CONNECTING) {
        fds[1].fd = d->fd;
        fds[1].events = POLLOUT;
    } else if (d->stage == SHAKING) {
        fds[1].fd = d->opening.fd;
        fds[1].events = d->opening.want;
        if (d->opening.until < until)
            until = d->opening.until;
    }
    int64_t left = until == NL_FOREVER ? -1 : until - nl_now_ns();
    if (until != NL_FOREVER && left < 0)
        left = 0;
    return sys_poll(fds, 2, left) < 0 ? errno : 0;
}

static nl_err out_of_time(nl_dialer *d, nl_fault *why, nl_hs_report *report)
{
    if (d->stage == SHAKING) {
        nl_opening seen = d->opening;   /* a copy: a later wait may have more time */
        nl_opening_look(&seen);
        *report = seen.report;
        nl_fault_set(why, seen.why.code, seen.why.sys_errno, "dialing %s: %s", d->name, seen.why.text);
    } else {
        nl_fault_set(why, NL_ETIMEOUT, 0, "dialing %s: timed out while connecting", d->name);
    }
    return why->code;
}

static nl_err result(nl_dialer *d, nl_fault *why, nl_hs_report *report)
{
    *why = d->why;
    *report = d->report;
    return d->err;
}

static nl_err cancelled(nl_dialer *d, nl_fault *why)
{
    nl_fault_set(why, NL_ECANCELLED, 0, "dialing %s: cancelled", d->name);
    return NL_ECANCELLED;
}

nl_err nl_dialer_wait(nl_dialer *d, int64_t deadline_ns, nl_link **out, nl_fault *why, nl_hs_report *report)
{
    nl_fault no_why = { 0 };
    nl_hs_report no_report = { 0 };
    why = why ? why : &no_why;
    report = report ? report : &no_report;
    *out = NULL;
    memset(why, 0, sizeof *why);
    memset(report, 0, sizeof *report);
    if (d->fork_generation != nl_fork_generation())
        return NL_EFORKED;
    for (;;) {
        if (d->stage != OVER && atomic_load(&d->cancelled))
            return cancelled(d, why);
        run(d, out);
        if (d->stage == OVER) {
            nl_err e = result(d, why, report);
            if (e == NL_OK)             /* the link is given away: there is no second one */
                d->err = NL_EINVAL;
            return e;
        }
        if (deadline_ns != NL_FOREVER && nl_now_ns() >= deadline_ns)
            return out_of_time(d, why, report);
        int error = sleep_until(d, deadline_ns);
        if (error == EINTR)
            return NL_EINTR;
        if (error) {
            nl_fault_set(why, NL_ESYS, error, "poll: %s", strerror(error));
            return NL_ESYS;
        }
    }
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

nl_err nl_dialer_new(const struct sockaddr *address, socklen_t len, const nl_dial_config *config, nl_dialer **out)
{
    if (len < sizeof(sa_family_t) || len > sizeof(struct sockaddr_storage) ||
        !nl_version_fits(config->link.wire, config->link.version))
        return NL_EINVAL;
    nl_dialer *d = sys_calloc(1, sizeof *d);
    if (!d)
        return NL_ENOMEM;
    d->wake = sys_eventfd();
    if (d->wake < 0) {
        sys_free(d);
        return NL_ESYS;
    }
    memcpy(&d->address, address, len);
    d->len = len;
    nl_address_text((const struct sockaddr *)&d->address, len, d->name);
    d->config = *config;
    if (config->link.tls)
        nl_tls_ctx_hold(config->link.tls);
    d->fork_generation = nl_fork_generation();
    atomic_init(&d->cancelled, false);
    d->stage = CONNECT;
    d->fd = d->opening.fd = -1;
    d->offer = config->link.wire;
    *out = d;
    return NL_OK;
}

void nl_dialer_cancel(nl_dialer *d)
{
    if (d->fork_generation != nl_fork_generation())
        return;
    atomic_store(&d->cancelled, true);
    eventfd_write(d->wake, 1);          /* never read: who waits later finds it, too */
}

void nl_dialer_free(nl_dialer *d)
{
    if (!d)
        return;
    nl_opening_fini(&d->opening);
    if (d->fd >= 0)
        close(d->fd);
    close(d->wake);
    nl_tls_ctx_rele(d->config.link.tls);
    sys_free(d);
}
