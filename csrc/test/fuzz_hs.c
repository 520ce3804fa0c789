/* Fuzzing the openings: any bytes, silences and ends, at both roles on every wire. Bytes one by one must give the
 * verdict that the same bytes give at once.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first byte of an input picks role, wire, TLS and whether a dialer hears first; the second says after how many
 * bytes the peer falls silent or ends; the rest are the peer's first bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hs.h"

#define MUST(what) do { if (!(what)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static nl_hs begun(uint8_t how)
{
    static const nl_wire WIRES[] = { NL_WIRE_AUTO, NL_WIRE_2016, NL_WIRE_N, NL_WIRE_M };
    nl_hs hs;

    nl_hs_init(&hs, how & 1 ? NL_CLIENT : NL_SERVER, WIRES[how >> 1 & 3], -1, how & 8);
    if (how & 16 && how & 1 && WIRES[how >> 1 & 3] == NL_WIRE_M)
        nl_hs_hear_first(&hs);
    return hs;
}

/* What holds at any time. */
static void consistent(nl_hs *hs, size_t used, size_t n)
{
    uint8_t out[sizeof hs->out];

    MUST(hs->state <= NL_HS_FAILED && used <= n && hs->got_len <= sizeof hs->got && hs->out_len <= sizeof hs->out);
    MUST(nl_hs_output(hs, out, sizeof out) <= sizeof out && nl_hs_output(hs, out, sizeof out) == 0);
    if (hs->state == NL_HS_DONE)
        MUST(hs->wire != NL_WIRE_AUTO && (hs->asked == NL_WIRE_AUTO || hs->asked == hs->wire));
    if (hs->state == NL_HS_REDIAL)
        MUST(hs->role == NL_CLIENT);
}

/* All that a driver is given, in copies of exactly that size. */
static size_t feed(nl_hs *hs, const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    size_t used;

    MUST(exact);
    if (n)
        memcpy(exact, p, n);
    used = nl_hs_feed(hs, exact, n);
    free(exact);
    consistent(hs, used, n);
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    nl_hs whole, single;
    const uint8_t *p = data + 2;
    size_t n, used = 0, at_once;

    if (size < 2)
        return 0;
    n = size - 2 < 200 ? size - 2 : 200;
    whole = begun(data[0]);
    consistent(&whole, 0, 0);
    at_once = feed(&whole, p, n);
    single = begun(data[0]);
    for (size_t i = 1; i <= n && single.state == NL_HS_GOING; i++)
        used = feed(&single, p, i);
    MUST(n == 0 || single.state == whole.state);
    if (whole.state == NL_HS_DONE && n)
        MUST(single.wire == whole.wire && single.version == whole.version && used == at_once);

    single = begun(data[0]);                    /* and once with a pause, and an end */
    for (size_t i = 0; i <= n && single.state == NL_HS_GOING; i++) {
        if (i == data[1] % 32u && single.patience_ns != NL_FOREVER)
            nl_hs_silence(&single);
        consistent(&single, 0, 0);
        if (single.state == NL_HS_GOING && i)
            feed(&single, p, i);
    }
    if (single.state == NL_HS_GOING) {
        if (data[1] & 32)
            nl_hs_eof(&single);
        else
            nl_hs_give_up(&single);
        consistent(&single, 0, 0);
        MUST(single.state == NL_HS_FAILED || single.state == NL_HS_REDIAL);
    }
    return 0;
}
