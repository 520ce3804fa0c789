/* Handshake: the opening of a stream. The contract, and who drives this, is in hs.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Both ends of N and M say which wire and protocol they speak, and go on only if the two are equal. That would be two
 * lines, if every end spoke first. It is longer for two reasons, and both are about who is silent:
 *
 *   dialer on auto     It does not know what to say, so it listens. NEO/py's listeners speak at once and tell. After
 *                      QUIET_NS of silence the peer is another listener on auto, a node program of NEO/go, or no NEO
 *                      node; so it offers M. NEO/go takes that for the start of an HTTP request and stays silent: after
 *                      OFFER_NS more (or at a close, or an N word) this socket is lost, and the driver dials once
 *                      more with N, which NEO/go answers.
 *   listener on auto   It listens until the first bytes tell the wire, then answers in that dialect.
 *
 *      dialer, auto    QUIET -- peer's opening --> answer it                      --> DONE | FAILED
 *                        `-- silence --> OFFERED -- M opening                     --> DONE | FAILED
 *                                           `-- N word, close, silence            --> REDIAL
 *      listener, auto  ATTENTIVE -- first bytes --> answer in their dialect       --> DONE | FAILED
 *      wire given      (our opening) SPOKEN -- peer's opening                     --> DONE | FAILED
 *      M given, dialer (our opening) SPOKEN -- peer's in the other form, close    --> REDIAL, to hear first
 *                      QUIET -- peer's opening --> answer in its form             --> DONE | FAILED
 *                        `-- silence --> SPOKEN
 *      wire 2016       has no opening                                             --> DONE at once
 *
 * M has two forms: Python 2 nodes pack "NEO" as bytes, and hang up on who does not. A dialer that was told M says the
 * usual form at once, because most nodes take it and some wait for it. A peer that answers in the other form is lost
 * then, and so may be one that closes without a word (it compared before it spoke): the driver dials once more and
 * listens first.
 *
 * A mismatch never hides our side: our opening is in the output before the verdict, so that both ends can say in their
 * logs what met what. Garbage is not told what a NEO node says, only that it met one: see turn_away().
 */
#include "hs.h"

#include <stdio.h>
#include <string.h>

/* NEO/py's opening leaves at accept, so it takes one round trip; 100 ms is a long one, and short for a person. */
#define QUIET_NS INT64_C(100000000)
/* The answer to our offer takes one more; more generous, for a redial costs a connection. */
#define OFFER_NS INT64_C(500000000)

#define WORD_LEN      4             /* N: 00 00 00 vv */
#define ARRAY_LEN     6             /* M: 92 a3 "NEO" vv */
#define BIN_ARRAY_LEN 7             /* M of Python 2 nodes: 92 c4 03 "NEO" vv */

enum stage { QUIET, OFFERED, ATTENTIVE, SPOKEN };

static const uint8_t ARRAY_MAGIC[ARRAY_LEN - 1] = { 0x92, 0xa3, 'N', 'E', 'O' };
static const uint8_t BIN_ARRAY_MAGIC[BIN_ARRAY_LEN - 1] = { 0x92, 0xc4, 0x03, 'N', 'E', 'O' };

/* Alert record of TLS 1.0's framing, which every version reads: fatal, handshake_failure. */
static const uint8_t TLS_ALERT[] = { 0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28 };
static const char HTTP_ANSWER[] = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n"
                                  "This is a NEO node: it does not speak HTTP.\n";

/* ---- what the first bytes are -------------------------------------------------------------------------------- */

enum sight_kind { MORE, NEO, TLS, HTTP, GARBAGE };

typedef struct sight {
    enum sight_kind kind;
    nl_wire wire;           /* NEO: which generation */
    int     version;        /* N, M: protocol number; M: above 127 it is not a number of one byte */
    size_t  len;            /* length of the opening */
} sight;

static int our_version(const nl_hs *hs, nl_wire wire)
{
    return hs->version >= 0 ? hs->version : nl_wire_version_default(wire);
}

/* 0: p differs from `magic`; 1: p is a beginning of it; 2: p begins with it. */
static int match(const uint8_t *p, size_t n, const void *magic, size_t magic_len)
{
    if (memcmp(p, magic, n < magic_len ? n : magic_len) != 0)
        return 0;
    return n < magic_len ? 1 : 2;
}

static sight look_at_array(const uint8_t *p, size_t n, const uint8_t *magic, size_t magic_len)
{
    switch (match(p, n, magic, magic_len)) {
    case 0:
        return (sight){ .kind = GARBAGE };
    case 1:
        return (sight){ .kind = MORE };
    default:
        if (n == magic_len)
            return (sight){ .kind = MORE };
        return (sight){ .kind = NEO, .wire = NL_WIRE_M, .version = p[magic_len], .len = magic_len + 1 };
    }
}

/* A word of N, or a header of 2016: both begin with zeros. A 2016 dialer's first message id is 0 or 1 and its first
 * code is 1, where N has the upper half of a message id, 0. So a word of 2 or more needs no second look, and it must
 * not get one, for NEO/go says nothing more until it is answered. Neither does a word that cannot be 2016: a listener
 * of 2016 never speaks first, and who was told to speak N 1 takes the peer by that word. */
static sight look_at_zeros(const nl_hs *hs, const uint8_t *p, size_t n)
{
    static const uint8_t zeros[5];
    if (!match(p, n < 3 ? n : 3, zeros, 3))
        return (sight){ .kind = GARBAGE };
    if (n < WORD_LEN)
        return (sight){ .kind = MORE };
    int version = p[3];
    sight word = { .kind = NEO, .wire = NL_WIRE_N, .version = version, .len = WORD_LEN };
    if (version >= 2 || hs->role == NL_CLIENT)
        return word;
    if (hs->asked == NL_WIRE_N && version == our_version(hs, NL_WIRE_N))
        return word;
    if (n == 4 || (n == 5 && p[4] == 0))
        return (sight){ .kind = MORE };
    if (p[4] == 0 && p[5] == 0)
        return word;
    if (p[4] == 0 && p[5] == 1)
        return (sight){ .kind = NEO, .wire = NL_WIRE_2016, .version = -1 };
    return (sight){ .kind = GARBAGE };
}

/* Requests at a listener, an answer at a dialer: four bytes tell. */
static sight look_at_letters(const uint8_t *p, size_t n)
{
    static const char starts[][5] = { "GET ", "HEAD", "POST", "PUT ", "DELE", "CONN", "OPTI", "TRAC", "PATC", "PRI ",
                                      "HTTP" };
    sight found = { .kind = GARBAGE };
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        int how = match(p, n, starts[i], 4);
        if (how == 2)
            return (sight){ .kind = HTTP };
        if (how == 1)
            found.kind = MORE;
    }
    return found;
}

/* A hello is a handshake record (16); what a TLS listener sends to bytes it does not like is an alert record (15). */
static sight look_at_record(const uint8_t *p, size_t n)
{
    if (p[0] == 0x16)
        return (sight){ .kind = TLS };
    if (n == 1)
        return (sight){ .kind = MORE };
    return (sight){ .kind = p[1] == 0x03 ? TLS : GARBAGE };
}

static sight look(const nl_hs *hs, const uint8_t *p, size_t n)
{
    if (n == 0)
        return (sight){ .kind = MORE };
    if (p[0] == 0x00)
        return look_at_zeros(hs, p, n);
    if (p[0] == 0x92 && n > 1 && p[1] == 0xc4)
        return look_at_array(p, n, BIN_ARRAY_MAGIC, sizeof BIN_ARRAY_MAGIC);
    if (p[0] == 0x92)
        return look_at_array(p, n, ARRAY_MAGIC, sizeof ARRAY_MAGIC);
    if ((p[0] == 0x15 || p[0] == 0x16) && !hs->tls)
        return look_at_record(p, n);
    return look_at_letters(p, n);
}

/* ---- what we say --------------------------------------------------------------------------------------------- */

static void put(nl_hs *hs, const void *bytes, size_t n)
{
    memcpy(hs->out + hs->out_len, bytes, n);
    hs->out_len += n;
}

/* `bin`: in the form of Python 2 nodes, which refuse the other one. */
static void put_opening(nl_hs *hs, nl_wire wire, bool bin)
{
    uint8_t version = (uint8_t)our_version(hs, wire);
    if (wire == NL_WIRE_N)
        put(hs, "\0\0", 3);
    else if (bin)
        put(hs, BIN_ARRAY_MAGIC, sizeof BIN_ARRAY_MAGIC);
    else
        put(hs, ARRAY_MAGIC, sizeof ARRAY_MAGIC);
    put(hs, &version, 1);
}

/* A listener's last word to who is in the wrong place. Only as its first word: behind an opening it would be noise. */
static void turn_away(nl_hs *hs, enum sight_kind kind)
{
    if (hs->stage != ATTENTIVE)
        return;
    if (kind == TLS)
        put(hs, TLS_ALERT, sizeof TLS_ALERT);
    else if (kind == HTTP)
        put(hs, HTTP_ANSWER, sizeof HTTP_ANSWER - 1);
}

/* ---- verdicts ------------------------------------------------------------------------------------------------ */

static void describe_ours(nl_hs *hs)
{
    nl_wire wire = hs->stage == OFFERED ? NL_WIRE_M : hs->asked;
    if (wire == NL_WIRE_AUTO && hs->peer_wire != NL_WIRE_AUTO)
        wire = hs->peer_wire;
    char *text = hs->report.ours;
    size_t cap = sizeof hs->report.ours;
    if (wire == NL_WIRE_AUTO)
        snprintf(text, cap, "NEO M protocol %d or NEO N protocol %d", our_version(hs, NL_WIRE_M),
                 our_version(hs, NL_WIRE_N));
    else
        snprintf(text, cap, "NEO %s protocol %d", nl_wire_name(wire), our_version(hs, wire));
}

/* "bytes 05 41 42", or "nothing" */
static void describe_bytes(nl_hs *hs, size_t n)
{
    char *text = hs->report.theirs;
    size_t cap = sizeof hs->report.theirs;
    if (hs->got_len == 0) {
        snprintf(text, cap, "nothing");
        return;
    }
    size_t at = (size_t)snprintf(text, cap, "bytes");
    for (size_t i = 0; i < hs->got_len; i++)
        at += (size_t)snprintf(text + at, cap - at, " %02x", hs->got[i]);
    if (n > hs->got_len)
        snprintf(text + at, cap - at, " ...");
}

static void describe_theirs(nl_hs *hs, const sight *s, size_t n)
{
    char *text = hs->report.theirs;
    size_t cap = sizeof hs->report.theirs;
    if (s->kind == TLS)
        snprintf(text, cap, "TLS");
    else if (s->kind == HTTP)
        snprintf(text, cap, "HTTP");
    else if (s->kind != NEO)
        describe_bytes(hs, n);
    else if (s->wire == NL_WIRE_2016)
        snprintf(text, cap, "NEO 2016");
    else if (s->wire == NL_WIRE_M && s->version > 127)      /* not a msgpack integer of one byte */
        snprintf(text, cap, "NEO M, protocol number beginning with byte %02x", (unsigned)s->version);
    else
        snprintf(text, cap, "NEO %s protocol %d", nl_wire_name(s->wire), s->version);
}

static void fail(nl_hs *hs, const sight *s, size_t n)
{
    describe_ours(hs);
    describe_theirs(hs, s, n);
    hs->state = NL_HS_FAILED;
}

static void redial(nl_hs *hs, const sight *s, size_t n, nl_wire wire)
{
    describe_ours(hs);
    describe_theirs(hs, s, n);
    hs->redial_wire = wire;
    hs->state = NL_HS_REDIAL;
}

static void agree(nl_hs *hs, nl_wire wire, int version)
{
    hs->wire = wire;
    hs->version = version;
    hs->state = NL_HS_DONE;
}

/* A dialer that said M in the usual form, and has not been told yet to hear first: see above. */
static bool may_have_said_the_other_form(const nl_hs *hs)
{
    return hs->role == NL_CLIENT && hs->stage == SPOKEN && hs->asked == NL_WIRE_M && !hs->heard_first;
}

/* The peer is a NEO node, and we know of which generation. */
static void meet(nl_hs *hs, const sight *s, size_t n)
{
    hs->peer_wire = s->wire;
    if (s->len == BIN_ARRAY_LEN && s->version == our_version(hs, NL_WIRE_M) && may_have_said_the_other_form(hs)) {
        redial(hs, s, n, NL_WIRE_M);
        return;
    }
    if (s->wire == NL_WIRE_2016 && hs->asked == NL_WIRE_AUTO) {
        agree(hs, NL_WIRE_2016, -1);
        return;
    }
    if (hs->stage == OFFERED && s->wire == NL_WIRE_N) {
        redial(hs, s, n, NL_WIRE_N);
        return;
    }
    if (hs->stage == QUIET || hs->stage == ATTENTIVE)
        put_opening(hs, hs->asked == NL_WIRE_AUTO ? s->wire : hs->asked, s->len == BIN_ARRAY_LEN);
    if ((hs->asked != NL_WIRE_AUTO && hs->asked != s->wire) || s->version != our_version(hs, s->wire))
        fail(hs, s, n);
    else
        agree(hs, s->wire, s->version);
}

/* ---- the driver's calls -------------------------------------------------------------------------------------- */

void nl_hs_init(nl_hs *hs, nl_role role, nl_wire wire, int version, bool tls)
{
    memset(hs, 0, sizeof *hs);
    hs->state = NL_HS_GOING;
    hs->role = role;
    hs->asked = wire;
    hs->wire = hs->peer_wire = hs->redial_wire = NL_WIRE_AUTO;
    hs->version = version;
    hs->tls = tls;
    hs->patience_ns = NL_FOREVER;
    if (wire == NL_WIRE_2016) {
        agree(hs, NL_WIRE_2016, -1);
    } else if (wire != NL_WIRE_AUTO) {
        hs->stage = SPOKEN;
        put_opening(hs, wire, false);
    } else if (role == NL_SERVER) {
        hs->stage = ATTENTIVE;
    } else {
        hs->stage = QUIET;
        hs->patience_ns = QUIET_NS;
    }
}

void nl_hs_hear_first(nl_hs *hs)
{
    hs->out_len = 0;
    hs->heard_first = true;
    hs->stage = QUIET;
    hs->patience_ns = QUIET_NS;
}

size_t nl_hs_feed(nl_hs *hs, const uint8_t *all, size_t n)
{
    if (hs->state != NL_HS_GOING || n == 0)
        return 0;
    hs->got_len = n < sizeof hs->got ? n : sizeof hs->got;
    memcpy(hs->got, all, hs->got_len);
    hs->patience_ns = NL_FOREVER;               /* it speaks: whatever it is, let it finish */
    sight s = look(hs, all, n);
    if (s.kind == MORE)
        return 0;
    if (s.kind == NEO) {
        meet(hs, &s, n);
        return s.len;
    }
    turn_away(hs, s.kind);
    fail(hs, &s, n);
    return 0;
}

void nl_hs_eof(nl_hs *hs)
{
    sight nothing_more = { .kind = GARBAGE };
    if (hs->state != NL_HS_GOING)
        return;
    if (hs->stage == OFFERED && hs->got_len == 0)
        redial(hs, &nothing_more, hs->got_len, NL_WIRE_N);
    else if (hs->got_len == 0 && may_have_said_the_other_form(hs))
        redial(hs, &nothing_more, hs->got_len, NL_WIRE_M);
    else
        fail(hs, &nothing_more, hs->got_len);
}

void nl_hs_silence(nl_hs *hs)
{
    if (hs->state != NL_HS_GOING || hs->patience_ns == NL_FOREVER)
        return;
    if (hs->stage == QUIET) {
        hs->stage = hs->heard_first ? SPOKEN : OFFERED;
        hs->patience_ns = hs->heard_first ? NL_FOREVER : OFFER_NS;
        put_opening(hs, NL_WIRE_M, false);
    } else {
        sight nothing = { .kind = GARBAGE };
        redial(hs, &nothing, 0, NL_WIRE_N);
    }
}

void nl_hs_give_up(nl_hs *hs)
{
    sight nothing_more = { .kind = GARBAGE };
    /* On wire 2016 all is said before the driver's own handshake, TLS, begins. */
    if (hs->state != NL_HS_FAILED)
        fail(hs, &nothing_more, hs->got_len);
}

size_t nl_hs_output(nl_hs *hs, uint8_t *out, size_t cap)
{
    size_t n = hs->out_len < cap ? hs->out_len : cap;
    memcpy(out, hs->out, n);
    memmove(hs->out, hs->out + n, hs->out_len - n);
    hs->out_len -= n;
    return n;
}
