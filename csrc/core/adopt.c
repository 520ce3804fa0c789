/* Taking over an established socket: nl_takeover, nl_link_new. No opening is sent or expected; with TLS, its handshake
 * is.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The session of a handshake under way is the caller's nl_takeover's, so a wait that a signal ends loses nothing: the
 * next one goes on where it was, as with a dialer.
 */
#include "link.h"
#include "opening.h"

int64_t nl_now_ns(void) { return sys_now_ns(); }

static nl_err check_stream(int fd, nl_fault *why)
{
    int type = 0;
    socklen_t n = sizeof type;
    bool known = sys_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0;

    if (known && type == SOCK_STREAM)
        return NL_OK;
    if (known || errno == ENOTSOCK || errno == EBADF)
        nl_fault_set(why, NL_EINVAL, 0, "descriptor %d is not a stream socket", fd);
    else
        nl_fault_set(why, NL_ESYS, errno, "the socket cannot be used: %s", strerror(errno));
    return why->code;
}

static int send_cipher(int fd, nl_tls *tls)
{
    const uint8_t *cipher;
    size_t n;

    while ((n = nl_tls_output(tls, &cipher))) {
        struct iovec iov = { (void *)(uintptr_t)cipher, n };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t done = sys_sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno != EINTR)
            return errno;
        nl_tls_sent(tls, done < 0 ? 0 : (size_t)done);
    }
    return 0;
}

/* One step of the handshake: sends what is due, reads what is there, or sleeps until something can be done. */
static nl_err tls_step(int fd, nl_tls *tls, int64_t deadline_ns, nl_fault *why)
{
    uint8_t cipher[4096];
    int e = send_cipher(fd, tls);
    ssize_t n = sys_recv(fd, cipher, sizeof cipher, MSG_DONTWAIT);

    if (n > 0 && nl_tls_input(tls, cipher, (size_t)n) != NL_OK) {
        nl_fault_set(why, NL_ENOMEM, 0, "no memory for the TLS handshake");
        return NL_ENOMEM;
    }
    if (n > 0)
        return NL_OK;
    if (n == 0) {
        nl_fault_set(why, NL_EHANDSHAKE, 0, "the peer closed the socket in the TLS handshake");
        return NL_EHANDSHAKE;
    }
    if (errno == EINTR)
        return NL_EINTR;
    if (errno == EAGAIN && (e == 0 || e == EAGAIN)) {
        struct pollfd p = { .fd = fd, .events = (short)(POLLIN | (e ? POLLOUT : 0)) };
        int64_t left = deadline_ns == NL_FOREVER ? -1 : deadline_ns - sys_now_ns();
        if (deadline_ns != NL_FOREVER && left <= 0)
            return NL_ETIMEOUT;
        if (sys_poll(&p, 1, left) >= 0)
            return NL_OK;
        if (errno == EINTR)
            return NL_EINTR;
    }
    nl_fault_set(why, NL_ESYS, errno, "the socket failed in the TLS handshake: %s", strerror(errno));
    return NL_ESYS;
}

static nl_err tls_handshake(int fd, nl_tls *tls, int64_t deadline_ns, nl_fault *why)
{
    bool done = false;
    nl_err e = NL_OK;

    while (e == NL_OK && !done) {
        if (nl_tls_handshake(tls, &done, why) != NL_TLS_OK) {
            send_cipher(fd, tls);
            return why->code = NL_EHANDSHAKE;   /* to a session without a link it was a broken protocol */
        }
        if (!done)
            e = tls_step(fd, tls, deadline_ns, why);
    }
    if (e == NL_ETIMEOUT)
        nl_fault_set(why, e, 0, "the TLS handshake did not end in time");
    return e;
}

nl_err nl_takeover_begin(nl_takeover *t, int fd, const nl_link_config *config, nl_fault *why)
{
    nl_err e;

    *t = (nl_takeover){ .config = config, .fd = fd, .fork_generation = nl_fork_generation() };
    *why = (nl_fault){ 0 };
    if (config->wire == NL_WIRE_AUTO) {
        nl_fault_set(why, NL_EINVAL, 0, "a link over a bare socket needs a wire, not auto");
        return NL_EINVAL;
    }
    if ((e = check_stream(fd, why)) != NL_OK)
        return e;
    if (config->tls && (e = nl_tls_new(config->tls, config->role, &t->tls)) != NL_OK)
        nl_fault_set(why, e, 0, "no memory for a TLS session");
    return e;
}

nl_err nl_takeover_wait(nl_takeover *t, int64_t deadline_ns, nl_link **out, nl_fault *why)
{
    *why = (nl_fault){ 0 };
    if (t->fork_generation != nl_fork_generation())
        return NL_EFORKED;
    nl_err e = t->tls ? tls_handshake(t->fd, t->tls, deadline_ns, why) : NL_OK;
    if (e == NL_OK && nl_socket_options(t->fd, &t->config->keepalive) < 0) {
        nl_fault_set(why, NL_ESYS, errno, "keepalive cannot be set: %s", strerror(errno));
        e = NL_ESYS;
    }
    if (e == NL_OK)
        e = nl_link_new_open(t->fd, t->config, t->tls, NULL, 0, out, why);
    if (e == NL_OK)
        t->tls = NULL;                  /* the link's now */
    return e;
}

void nl_takeover_end(nl_takeover *t)
{
    nl_tls_free(t->tls);
    t->tls = NULL;
}

nl_err nl_link_new(int fd, const nl_link_config *config, int64_t deadline_ns, nl_link **out, nl_fault *why)
{
    nl_takeover t;
    nl_err e = nl_takeover_begin(&t, fd, config, why);

    if (e != NL_OK)
        return e;
    do
        e = nl_takeover_wait(&t, deadline_ns, out, why);
    while (e == NL_EINTR);
    nl_takeover_end(&t);
    return e;
}
