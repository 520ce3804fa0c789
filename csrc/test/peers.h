/* The other end of a dialer or a listener, in tests: plain sockets, peers that only know a script, and what dialing
 * brought.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A script is a thread at the other end of a socket: "> hex" sends, "< n" waits for n bytes, "$" for the end of the
 * stream, "x" resets; then it closes. Whatever a test waits for has a deadline of SOON_NS, which no passing test
 * reaches.
 */
#ifndef NL_TEST_PEERS_H
#define NL_TEST_PEERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#include "neolink.h"

#define SOON_NS INT64_C(20000000000)

static inline int64_t soon(void) { return nl_now_ns() + SOON_NS; }

struct sockaddr_in loopback(void);                          /* a free port of 127.0.0.1 */
int    listen_plain(struct sockaddr_in *address);
int    connect_to(nl_listener *l);
void   send_hex(int fd, const char *hex);
/* Reads until the end of the stream or n bytes; returns their number. Gives up after SOON_NS. */
size_t read_up_to(int fd, uint8_t *p, size_t n);

typedef struct peer {
    struct sockaddr_in address;
    int         fd;                     /* listens */
    const char *scripts[4];             /* one per connection, NULL behind the last */
    uint8_t     heard[4][256];
    size_t      heard_len[4];
    int64_t     since;                  /* when it began */
    atomic_int  accepted, begun;        /* connections; those whose script is past its first word */
    atomic_llong lag_ns;                /* the longest from when one could be served to its first byte or its end */
    pthread_t   thread;
} peer;

void peer_start(peer *p, const char *first, const char *second, const char *third);
void peer_run(peer *p);                 /* once more, when it was stopped */
void peer_stop(peer *p);
void peer_heard(const peer *p, int connection, const char *hex);

typedef struct dialed {
    nl_err       err;
    nl_link     *link;
    nl_fault     why;
    nl_hs_report report;
} dialed;

dialed dial_with(const struct sockaddr *address, socklen_t len, const nl_dial_config *config, int64_t deadline);
void   failed(const dialed *d, const char *ours, const char *theirs);      /* the handshake did */

#endif
