/* Opening: see opening.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   stage    what happens                                         moves on when
 *   TLS      records go to and fro                                TLS is up -> TALK; it fails -> PART
 *   TALK     bytes go to nl_hs_feed, its output goes out          a verdict -> SAY
 *   SAY      the output that belongs to the verdict goes out      done: OVER, or PART after a failure
 *   PART     our side is shut; what the peer still sends is       it closes too, LINGER_NS pass, or it talks too
 *            read and dropped                                     much -> OVER
 *   OVER     the state is final
 *
 * PART is there because of TCP: to close a socket with unread bytes sends a reset, and a reset makes the peer's kernel
 * drop what the peer has not read yet: our opening, which says what was wrong.
 */
#include "opening.h"

#include "link.h"
#include "sys.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/un.h>

#define LINGER_NS  INT64_C(200000000)   /* one long round trip for the peer to read our word and close */
#define LINGER_MAX ((size_t)64 << 10)   /* what a peer may have had in flight: a socket buffer's worth */
#define CHUNK      4096                 /* ciphertext taken at once; NEO/py reads as much */
/* Plaintext that can come out of it: what was held back of one record of 16 KiB, and the chunk. */
#define EARLY_MAX  ((size_t)24 << 10)

enum stage { ST_TLS, ST_TALK, ST_SAY, ST_PART, ST_OVER };

/* ---- bytes in and out ------------------------------------------------------------------------------------------ */

/* All the socket takes now; the number of bytes taken. A socket that failed takes all: it is shut, and the reading side
 * finds out, behind what the peer said before. */
static size_t push(nl_opening *o, const uint8_t *p, size_t n)
{
    size_t done = 0;
    while (done < n && !o->mute) {
        struct iovec iov = { (void *)(uintptr_t)(p + done), n - done };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t k = sys_sendmsg(o->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k >= 0)
            done += (size_t)k;
        else if (errno == EAGAIN)
            return done;
        else if (errno != EINTR) {
            o->mute = errno;
            shutdown(o->fd, SHUT_RDWR);
        }
    }
    return n;
}

/* True when no ciphertext is left to send. */
static bool flush_records(nl_opening *o)
{
    const uint8_t *cipher;
    size_t n;

    while ((n = nl_tls_output(o->tls, &cipher)) > 0) {
        size_t sent = push(o, cipher, n);
        nl_tls_sent(o->tls, sent);
        if (sent < n)
            return false;
    }
    return true;
}

/* The handshake's words. True when nothing is left to send. */
static bool flush(nl_opening *o)
{
    nl_fault ignored;

    o->out_len += nl_hs_output(&o->hs, o->out + o->out_len, sizeof o->out - o->out_len);
    if (!o->tls) {
        size_t n = push(o, o->out, o->out_len);
        memmove(o->out, o->out + n, o->out_len - n);
        o->out_len -= n;
        return o->out_len == 0;
    }
    if (o->out_len)                             /* a lost session takes no word; reading will find it lost, too */
        nl_tls_write(o->tls, o->out, o->out_len, &ignored);
    o->out_len = 0;
    return flush_records(o);
}

/* The socket: > 0 bytes, 0 nothing now, -1 end of file or error (errno 0: a plain end). */
static ssize_t pull(nl_opening *o, uint8_t *p, size_t cap)
{
    for (;;) {
        ssize_t n = sys_recv(o->fd, p, cap, MSG_DONTWAIT);
        if (n > 0)
            return n;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        errno = n == 0 ? 0 : errno;
        return -1;
    }
}

/* ---- failing --------------------------------------------------------------------------------------------------- */

static void describe_handshake(nl_opening *o, int error)
{
    const nl_hs_report *r = &o->hs.report;
    if (strcmp(r->theirs, "nothing") == 0)
        nl_fault_set(&o->why, NL_EHANDSHAKE, error, "the peer closed without a word%s%s; we speak %s",
                     error ? ": " : "", error ? strerror(error) : "", r->ours);
    else
        nl_fault_set(&o->why, NL_EHANDSHAKE, error, "the peer speaks %s; we speak %s", r->theirs, r->ours);
    o->report = *r;
}

/* What a peer that should speak TLS speaks instead, as nl_hs would have seen it. */
static void describe_plain_peer(nl_opening *o, nl_hs_report *report)
{
    nl_hs plain;
    nl_hs_init(&plain, NL_SERVER, NL_WIRE_AUTO, -1, false);
    nl_hs_feed(&plain, o->first, o->first_len);
    nl_hs_give_up(&plain);
    if (plain.peer_wire != NL_WIRE_AUTO)
        snprintf(report->theirs, sizeof report->theirs, "NEO %s without TLS", nl_wire_name(plain.peer_wire));
    else
        snprintf(report->theirs, sizeof report->theirs, "%s", plain.report.theirs);
}

/* The end of a TLS handshake that `tls_why` explains, or NULL: the stream ended. */
static void fail_tls(nl_opening *o, const nl_fault *tls_why, int error)
{
    nl_hs_report *r = &o->report;
    bool plain = o->first_len && (o->first[0] < 0x14 || o->first[0] > 0x17);

    nl_hs_give_up(&o->hs);
    snprintf(r->ours, sizeof r->ours, "TLS, %.58s", o->hs.report.ours);
    if (plain)
        describe_plain_peer(o, r);
    else
        snprintf(r->theirs, sizeof r->theirs, "%s", o->first_len ? "TLS" : "nothing");
    if (plain)
        nl_fault_set(&o->why, NL_EHANDSHAKE, 0, "the peer speaks %s, where we speak TLS", r->theirs);
    else if (tls_why)
        nl_fault_set(&o->why, NL_EHANDSHAKE, tls_why->sys_errno, "TLS handshake: %s", tls_why->text);
    else
        nl_fault_set(&o->why, NL_EHANDSHAKE, error, "the peer closed %s%s%s",
                     o->first_len ? "during the TLS handshake" : "without a word, where we speak TLS",
                     error ? ": " : "", error ? strerror(error) : "");
    o->hs.out_len = o->out_len = 0;             /* only an alert can be sent now */
    o->until = NL_FOREVER;
    o->stage = ST_SAY;
}

/* ---- stages ---------------------------------------------------------------------------------------------------- */

static void set_patience(nl_opening *o)
{
    o->until = o->hs.patience_ns == NL_FOREVER ? NL_FOREVER : nl_now_ns() + o->hs.patience_ns;
}

static void verdict(nl_opening *o, int error)
{
    if (o->hs.state == NL_HS_GOING)
        return;
    if (o->hs.state == NL_HS_FAILED)
        describe_handshake(o, error);
    o->until = NL_FOREVER;
    o->stage = ST_SAY;
}

static void begin_talk(nl_opening *o)
{
    o->stage = ST_TALK;
    set_patience(o);
    verdict(o, 0);                              /* wire 2016 has nothing to say */
}

/* Ciphertext from the socket to the session. Result as pull(). */
static ssize_t pull_cipher(nl_opening *o)
{
    uint8_t chunk[CHUNK];
    ssize_t n = pull(o, chunk, sizeof chunk);
    if (n <= 0)
        return n;
    if (o->first_len < sizeof o->first) {
        size_t room = sizeof o->first - o->first_len;
        size_t k = (size_t)n < room ? (size_t)n : room;
        memcpy(o->first + o->first_len, chunk, k);
        o->first_len += k;
    }
    if (nl_tls_input(o->tls, chunk, (size_t)n) == NL_OK)
        return n;
    errno = ENOMEM;
    return -1;
}

/* True when there is reason to go round again. */
static bool step_tls(nl_opening *o)
{
    nl_fault why;
    bool done = false;
    nl_tls_status status = nl_tls_handshake(o->tls, &done, &why);

    if (status != NL_TLS_OK) {
        fail_tls(o, &why, 0);
        return true;
    }
    if (done) {
        begin_talk(o);
        return true;
    }
    flush_records(o);
    ssize_t n = pull_cipher(o);
    if (n < 0)
        fail_tls(o, NULL, errno);
    else if (n > 0 && (o->first[0] < 0x14 || o->first[0] > 0x17))
        fail_tls(o, NULL, 0);                   /* not a record: OpenSSL would say so in darker words */
    return n != 0;
}

/* Plaintext, wherever it comes from. Result as pull(), and -2: the TLS session is lost, o->why tells. */
static ssize_t pull_plain(nl_opening *o, uint8_t *p, size_t cap)
{
    if (!o->tls)
        return pull(o, p, cap);
    for (;;) {
        size_t n = 0;
        nl_fault why;
        nl_tls_status status = nl_tls_read(o->tls, p, cap, &n, &why);
        if (n > 0)
            return (ssize_t)n;
        if (status == NL_TLS_BAD) {
            fail_tls(o, &why, 0);
            return -2;
        }
        if (status == NL_TLS_CLEAN_END) {
            errno = 0;
            return -1;
        }
        ssize_t k = pull_cipher(o);
        if (k <= 0)
            return k;
    }
}

/* Nothing has come: is that a silence by now? Who looks late, on a busy machine, finds what came in time. */
static bool is_silence(nl_opening *o)
{
    if (o->until == NL_FOREVER || nl_now_ns() < o->until || o->in_len)
        return false;
    nl_hs_silence(&o->hs);
    set_patience(o);
    verdict(o, 0);
    return true;
}

static bool step_talk(nl_opening *o)
{
    flush(o);
    ssize_t n = pull_plain(o, o->in + o->in_len, sizeof o->in - o->in_len);
    if (n == 0)
        return is_silence(o);
    if (n == -2)
        return true;
    if (n < 0) {
        int error = errno;
        nl_hs_eof(&o->hs);
        verdict(o, error);
        return true;
    }
    o->in_len += (size_t)n;
    o->used = nl_hs_feed(&o->hs, o->in, o->in_len);
    o->until = NL_FOREVER;                      /* it speaks: the handshake's patience is over, and so is ours */
    verdict(o, 0);
    return true;
}

static bool step_say(nl_opening *o)
{
    if (!flush(o))
        return false;
    if (o->hs.state != NL_HS_FAILED || o->mute) {
        o->stage = ST_OVER;
        return true;
    }
    shutdown(o->fd, SHUT_WR);
    o->stage = ST_PART;
    o->until = nl_now_ns() + LINGER_NS;
    return true;
}

static bool step_part(nl_opening *o)
{
    uint8_t scrap[CHUNK];
    ssize_t n = pull(o, scrap, sizeof scrap);
    if (n > 0)
        o->drained += (size_t)n;
    if (n < 0 || o->drained > LINGER_MAX || nl_now_ns() >= o->until)
        o->stage = ST_OVER;
    return n != 0;
}

/* Nothing could be sent, and not because the peer is gone. */
static bool is_cut_off(const nl_opening *o)
{
    return o->mute && o->mute != EPIPE && o->mute != ECONNRESET;
}

nl_opening_state nl_opening_step(nl_opening *o)
{
    static bool (*const steps[])(nl_opening *) = { step_tls, step_talk, step_say, step_part };

    while (o->stage != ST_OVER && steps[o->stage](o))
        ;
    if (o->stage != ST_OVER) {
        bool unsent = o->out_len || (o->tls && nl_tls_has_output(o->tls));
        o->want = unsent ? POLLIN | POLLOUT : POLLIN;
        if (o->stage == ST_SAY)
            o->want = POLLOUT;                  /* the verdict is spoken: what comes in is for later */
        return NL_OPENING_GOING;
    }
    if (is_cut_off(o)) {
        nl_fault_set(&o->why, NL_EHANDSHAKE, o->mute, "the handshake cannot be sent: %s", strerror(o->mute));
        return NL_OPENING_FAILED;
    }
    switch (o->hs.state) {
    case NL_HS_DONE:
        return NL_OPENING_DONE;
    case NL_HS_REDIAL:
        return NL_OPENING_REDIAL;
    default:
        return NL_OPENING_FAILED;
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

nl_err nl_opening_init(nl_opening *o, int fd, nl_role role, nl_wire wire, const nl_link_config *config)
{
    memset(o, 0, sizeof *o);
    o->fd = fd;
    o->role = role;
    o->until = NL_FOREVER;
    nl_hs_init(&o->hs, role, wire, config->version, config->tls != NULL);
    if (config->tls) {
        nl_err e = nl_tls_new(config->tls, role, &o->tls);
        if (e != NL_OK)
            nl_opening_fini(o);
        return e;
    }
    begin_talk(o);
    return NL_OK;
}

void nl_opening_hear_first(nl_opening *o)
{
    nl_hs_hear_first(&o->hs);
    if (o->stage == ST_TALK)
        set_patience(o);
}

void nl_opening_fini(nl_opening *o)
{
    nl_tls_free(o->tls);
    o->tls = NULL;
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
}

void nl_opening_look(nl_opening *o)
{
    nl_hs hs = o->hs;
    const char *hint = "";

    if (o->why.code != NL_OK)                   /* the verdict is known, only the parting was cut short */
        return;
    if (hs.state == NL_HS_GOING || o->stage == ST_TLS) {
        nl_hs_give_up(&hs);
        if (hs.role == NL_CLIENT && hs.got_len == 0 && o->stage == ST_TALK)
            hint = "; NEO up to 1.7 never speaks first: for such a node say wire=\"2016\"";
    }
    if (o->stage == ST_TLS) {
        snprintf(o->report.ours, sizeof o->report.ours, "TLS, %.58s", hs.report.ours);
        snprintf(o->report.theirs, sizeof o->report.theirs, "%s", o->first_len ? "TLS" : "nothing");
    } else if (o->stage == ST_TALK) {
        o->report = hs.report;
    }
    nl_fault_set(&o->why, NL_ETIMEOUT, 0, "timed out while shaking hands%s; the peer has sent %s, we speak %s%s",
                 o->stage == ST_TLS ? " (TLS)" : "", o->report.theirs, o->report.ours, hint);
}

/* The session may hold decrypted bytes that no event of the socket will ever announce: the link gets them now. */
static nl_err collect_early(nl_opening *o, uint8_t **early, size_t *len)
{
    size_t had = o->in_len - o->used;
    nl_fault ignored;

    *early = sys_malloc(had + EARLY_MAX);
    if (!*early)
        return NL_ENOMEM;
    memcpy(*early, o->in + o->used, had);
    *len = had;
    while (o->tls && *len < had + EARLY_MAX) {          /* an end or a fault is seen by the link again */
        size_t n = 0;
        nl_tls_read(o->tls, *early + *len, had + EARLY_MAX - *len, &n, &ignored);
        if (n == 0)
            break;
        *len += n;
    }
    return NL_OK;
}

nl_err nl_opening_link(nl_opening *o, const nl_link_config *config, nl_link **out, nl_fault *why)
{
    nl_link_config mine = *config;
    uint8_t *early = NULL;
    size_t len = 0;
    nl_err e = collect_early(o, &early, &len);

    mine.role = o->role;
    mine.wire = o->hs.wire;
    mine.version = o->hs.version;
    if (e == NL_OK)
        e = nl_link_new_open(o->fd, &mine, o->tls, early, len, out, why);
    else
        nl_fault_set(why, e, 0, "out of memory");
    sys_free(early);
    if (e == NL_OK) {
        o->fd = -1;
        o->tls = NULL;
    }
    return e;
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static int set_int(int fd, int level, int name, int value)
{
    return sys_setsockopt(fd, level, name, &value, sizeof value);
}

int nl_socket_options(int fd, const nl_keepalive *keepalive)
{
    struct sockaddr_storage own = { .ss_family = AF_UNSPEC };
    socklen_t len = sizeof own;

    if (sys_getsockname(fd, (struct sockaddr *)&own, &len) < 0)
        return -1;
    if (own.ss_family != AF_INET && own.ss_family != AF_INET6)
        return 0;
    if (set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1) < 0)
        return -1;
    if (keepalive->idle_s <= 0)
        return 0;
    /* Probes are sent only while nothing is in flight. The user timeout is for the rest: a send that nobody
     * acknowledges ends as soon as a silence would have. */
    int64_t patience_ms = 1000 * (keepalive->idle_s + (int64_t)keepalive->interval_s * keepalive->probes);
    if (set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1) < 0 ||
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive->idle_s) < 0 ||
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive->interval_s) < 0 ||
        set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, keepalive->probes) < 0 ||
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, patience_ms > INT_MAX ? INT_MAX : (int)patience_ms) < 0)
        return -1;
    return 0;
}

const char *nl_address_text(const struct sockaddr *address, socklen_t len, char text[NL_ADDRESS_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const void *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(text, NL_ADDRESS_TEXT, "%s:%u", host, (unsigned)ntohs(in->sin_port));
    } else if (address->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        snprintf(text, NL_ADDRESS_TEXT, "[%s]:%u", host, (unsigned)ntohs(in6->sin6_port));
    } else if (address->sa_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path)) {
        const char *path = ((const struct sockaddr_un *)(const void *)address)->sun_path;
        size_t n = len - offsetof(struct sockaddr_un, sun_path);
        if (path[0] == '\0')
            snprintf(text, NL_ADDRESS_TEXT, "unix:@%.*s", (int)(n - 1), path + 1);
        else
            snprintf(text, NL_ADDRESS_TEXT, "unix:%.*s", (int)n, path);
    } else {
        snprintf(text, NL_ADDRESS_TEXT, "%s", address->sa_family == AF_UNIX ? "unix:" : "an unknown address");
    }
    return text;
}

bool nl_version_fits(nl_wire wire, int version)
{
    if (version == -1 || wire == NL_WIRE_2016)
        return true;
    return version >= 0 && version <= (wire == NL_WIRE_N ? 255 : 127);
}
