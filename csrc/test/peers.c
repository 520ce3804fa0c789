/* See peers.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peers.h"

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

struct sockaddr_in loopback(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    return a;
}

int listen_plain(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address = loopback();
    assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)address, &len);
    return fd;
}

int connect_to(nl_listener *l)
{
    socklen_t len;
    const struct sockaddr *address = nl_listener_address(l, &len);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, address, len), 0);
    return fd;
}

void send_hex(int fd, const char *hex)
{
    unsigned byte;
    int used;
    while (sscanf(hex, " %2x%n", &byte, &used) == 1) {
        uint8_t b = (uint8_t)byte;
        if (send(fd, &b, 1, MSG_NOSIGNAL) != 1)
            return;
        hex += used;
    }
}

size_t read_up_to(int fd, uint8_t *p, size_t n)
{
    size_t have = 0;
    struct pollfd ready = { .fd = fd, .events = POLLIN };
    while (have < n && poll(&ready, 1, (int)(SOON_NS / 1000000)) == 1) {
        ssize_t k = recv(fd, p + have, n - have, 0);
        if (k <= 0)
            break;
        have += (size_t)k;
    }
    return have;
}

/* ---- scripted peers ---------------------------------------------------------------------------------------------- */

static void follow(int fd, const char *script, uint8_t *heard, size_t *heard_len)
{
    for (const char *word = script; word; word = strchr(word, ';') ? strchr(word, ';') + 1 : NULL) {
        word += strspn(word, " ");
        if (*word == '>') {
            send_hex(fd, word + 1);
        } else if (*word == '<') {
            *heard_len += read_up_to(fd, heard + *heard_len, (size_t)atoi(word + 1));
        } else if (*word == '$') {
            *heard_len += read_up_to(fd, heard + *heard_len, 256 - *heard_len);
        } else if (*word == 'x') {
            struct linger hard = { 1, 0 };
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
    }
}

/* The first word. Its time counts if it is one that the peer says, or is that it says nothing and hangs up. */
static const char *follow_first(peer *p, int fd, const char *script, int64_t since)
{
    bool speaks = script[0] == '>';

    if (speaks)
        send_hex(fd, script + 1);
    else if (!script[0])
        shutdown(fd, SHUT_RDWR);
    if ((speaks || !script[0]) && nl_now_ns() - since > atomic_load(&p->lag_ns))
        atomic_store(&p->lag_ns, nl_now_ns() - since);
    atomic_fetch_add(&p->begun, 1);
    return !speaks ? script : strchr(script, ';') ? strchr(script, ';') + 1 : "";
}

static void *run_peer(void *arg)
{
    peer *p = arg;
    int64_t since = p->since;
    for (int i = 0; i < 4 && p->scripts[i]; i++) {
        int fd = accept(p->fd, NULL, NULL);
        if (fd < 0)
            break;
        atomic_fetch_add(&p->accepted, 1);
        follow(fd, follow_first(p, fd, p->scripts[i], since), p->heard[i], &p->heard_len[i]);
        since = nl_now_ns();
        close(fd);
    }
    return NULL;
}

void peer_run(peer *p)
{
    memset(p->heard_len, 0, sizeof p->heard_len);
    atomic_store(&p->accepted, 0);
    atomic_store(&p->begun, 0);
    atomic_store(&p->lag_ns, 0);
    p->since = nl_now_ns();
    p->fd = listen_plain(&p->address);
    assert_int_equal(pthread_create(&p->thread, NULL, run_peer, p), 0);
}

void peer_start(peer *p, const char *first, const char *second, const char *third)
{
    memset(p, 0, sizeof *p);
    p->scripts[0] = first;
    p->scripts[1] = second;
    p->scripts[2] = third;
    peer_run(p);
}

void peer_stop(peer *p)
{
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->fd);
}

void peer_heard(const peer *p, int connection, const char *hex)
{
    char got[513] = "";
    for (size_t i = 0; i < p->heard_len[connection]; i++)
        sprintf(got + 2 * i, "%02x", p->heard[connection][i]);
    assert_string_equal(got, hex);
}

/* ---- dialing ----------------------------------------------------------------------------------------------------- */

dialed dial_with(const struct sockaddr *address, socklen_t len, const nl_dial_config *config, int64_t deadline)
{
    dialed d = { 0 };
    nl_dialer *dialer;
    assert_int_equal(nl_dialer_new(address, len, config, &dialer), NL_OK);
    do
        d.err = nl_dialer_wait(dialer, deadline, &d.link, &d.why, &d.report);
    while (d.err == NL_EINTR);
    nl_dialer_free(dialer);
    return d;
}

void failed(const dialed *d, const char *ours, const char *theirs)
{
    assert_int_equal(d->err, NL_EHANDSHAKE);
    assert_int_equal(d->why.code, NL_EHANDSHAKE);
    assert_null(d->link);
    assert_string_equal(d->report.ours, ours);
    assert_string_equal(d->report.theirs, theirs);
}
