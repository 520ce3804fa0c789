/* Handshake: the opening of a stream, both roles, every wire. Pure: bytes and the passing of time in, bytes and a
 * verdict out; no socket, no clock, no allocation.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Who drives it: the dialer (dial.c) from the thread that dials, the listener (listen.c) from the poller. The driver
 *   1. calls nl_hs_init;
 *   2. sends what nl_hs_output gives, whenever it gives something, *before* it acts on a verdict;
 *   3. hands received bytes to nl_hs_feed; tells it of an end of file (nl_hs_eof) and of a silence that lasted
 *      nl_hs_patience_ns (nl_hs_silence);
 *   4. stops at a verdict. Bytes from `used` on of the last feed belong to the link.
 */
#ifndef NL_HS_H
#define NL_HS_H

#include "wire.h"

typedef enum nl_hs_state {
    NL_HS_GOING,            /* feed me, or wait */
    NL_HS_DONE,             /* wire and version are agreed */
    NL_HS_REDIAL,           /* dialer on auto or M: this socket is lost; dial once more, offering redial_wire, and
                             * if that is M, nl_hs_hear_first */
    NL_HS_FAILED            /* report says why; what the output holds must still be sent */
} nl_hs_state;

typedef struct nl_hs {
    nl_hs_state state;
    nl_role  role;
    nl_wire  asked;         /* as configured: may be AUTO */
    nl_wire  wire;          /* as agreed, valid when DONE */
    int      version;       /* as configured (-1: default of the wire), as agreed when DONE (-1 on 2016) */
    bool     tls;           /* the stream below is TLS: bytes are never taken for a ClientHello */
    uint8_t  stage;         /* private: what was said and what is awaited */
    bool     heard_first;   /* private: nl_hs_hear_first was called */
    uint8_t  got[16];       /* private: the peer's first bytes */
    size_t   got_len;
    uint8_t  out[128];      /* to be sent */
    size_t   out_len;
    int64_t  patience_ns;   /* NL_FOREVER: silence means nothing now */
    nl_wire  redial_wire;   /* with NL_HS_REDIAL: offer this one */
    nl_wire  peer_wire;     /* what the peer's opening said, agreed or not; AUTO: not known */
    nl_hs_report report;    /* filled at FAILED and REDIAL */
} nl_hs;

void nl_hs_init(nl_hs *hs, nl_role role, nl_wire wire, int version, bool tls);
/* A dialer on M, right after nl_hs_init: not to speak before the peer, whose form of the opening decides ours. */
void nl_hs_hear_first(nl_hs *hs);
/* How many of the n bytes were used; the rest belongs to the link (2016: a link gets all of them, so 0 is used and the
 * caller must have kept what it fed before: nl_hs_feed is always given all bytes since the start). */
size_t nl_hs_feed(nl_hs *hs, const uint8_t *all, size_t n);
void nl_hs_eof(nl_hs *hs);                              /* the peer closed: FAILED or REDIAL */
void nl_hs_silence(nl_hs *hs);                          /* patience_ns passed without a byte */
void nl_hs_give_up(nl_hs *hs);                          /* the driver's time is over, or its TLS: FAILED, as it is */
/* Takes what is to be sent: copies at most cap bytes, returns their number, and forgets them. */
size_t nl_hs_output(nl_hs *hs, uint8_t *out, size_t cap);

#endif
