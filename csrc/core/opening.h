/* Opening: a connected socket on its way to becoming a link. TLS if there is any, then the handshake, then the link; or
 * a reason, and a gentle close. What the dialer and the listener have in common; neither waits in here.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The owner calls nl_opening_step() whenever the socket is ready for `want` or the time `until` has come, as long as it
 * answers NL_OPENING_GOING. One thread at a time.
 */
#ifndef NL_OPENING_H
#define NL_OPENING_H

#include "hs.h"
#include "tls.h"

typedef enum nl_opening_state {
    NL_OPENING_GOING,           /* wait for `want` or `until`, then step */
    NL_OPENING_DONE,            /* call nl_opening_link */
    NL_OPENING_REDIAL,          /* see hs.redial_wire */
    NL_OPENING_FAILED           /* `why` and `report` tell; the peer has been told, too */
} nl_opening_state;

typedef struct nl_opening {
    int       fd;               /* nonblocking; closed by nl_opening_fini */
    nl_tls   *tls;              /* NULL: plain */
    nl_role   role;
    uint8_t   stage;            /* private */
    nl_hs     hs;
    short     want;             /* POLLIN, POLLOUT */
    int64_t   until;            /* NL_FOREVER: no matter how long */
    nl_fault  why;              /* FAILED */
    nl_hs_report report;        /* FAILED, and after nl_opening_look */

    uint8_t   in[64];           /* private: plaintext received; a handshake needs no more than 16 bytes of it */
    size_t    in_len, used;
    uint8_t   out[128];         /* private: plaintext to send */
    size_t    out_len;
    uint8_t   first[16];        /* private: the very first bytes at a TLS end, to name a peer that is not TLS */
    size_t    first_len;
    size_t    drained;
    int       mute;             /* private: the errno with which the socket takes nothing any more */
} nl_opening;

/* Takes `fd` in any case. wire: as in nl_hs_init; config gives version and tls. NL_ENOMEM. */
nl_err nl_opening_init(nl_opening *o, int fd, nl_role role, nl_wire wire, const nl_link_config *config);
void   nl_opening_hear_first(nl_opening *o);            /* right after init: see nl_hs_hear_first */
void   nl_opening_fini(nl_opening *o);

nl_opening_state nl_opening_step(nl_opening *o);
/* Has the peer sent anything? */
static inline bool nl_opening_has_heard(const nl_opening *o)    { return o->in_len || o->first_len; }
/* The time is over. Fills `why` and `report`: NL_ETIMEOUT and how far it came, unless the handshake has failed already
 * and only the peer has not closed yet. Look at a copy if the opening may go on. */
void   nl_opening_look(nl_opening *o);
/* DONE: makes the link; the socket and the session are its then. The opening has left the poller. */
nl_err nl_opening_link(nl_opening *o, const nl_link_config *config, nl_link **out, nl_fault *why);

/* ---- sockets: what both ends set and say */

/* TCP_NODELAY, and keepalive as configured; nothing on sockets other than inet. 0 or -1 with errno. */
int    nl_socket_options(int fd, const nl_keepalive *keepalive);
#define NL_ADDRESS_TEXT 128
/* "127.0.0.1:24210", "[::1]:24210", "unix:/path" (abstract: "unix:@name"). Returns `text`. */
const char *nl_address_text(const struct sockaddr *address, socklen_t len, char text[NL_ADDRESS_TEXT]);
/* Can a protocol number be said on this wire? */
bool   nl_version_fits(nl_wire wire, int version);

#endif
