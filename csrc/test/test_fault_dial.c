/* Fault injection from an address to a link and back: dialing, listening, the handshake of every pair of wires, TLS.
 * faults.h tells how; test_fault_link.c has what happens on a link.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One thread plays both ends, and the poller is the listener's. Whatever failed, the listener must serve the next peer:
 * so each run ends with a dial during which nothing fails.
 *
 * The second half is TLS: its files, its handshake, its sessions, with OpenSSL's own allocations failing, too. What
 * OpenSSL says about that is EPROTO or a handshake that failed, as often as not, and that is what it is then.
 */
#include "faults.h"

#include <netinet/in.h>
#include <sys/un.h>

#ifndef NL_NO_TLS
#include <openssl/crypto.h>
#include "certs.h"
#endif

static bool ok(nl_err e)        { return fault_ok(e, NL_EHANDSHAKE); }

/* ---- dialing a listener ------------------------------------------------------------------------------------------ */

typedef struct scene {
    nl_wire     ours, theirs;
    nl_tls_ctx *tls;
    bool        local;                  /* over a Unix socket */
    bool        mismatch;
} scene;

static nl_listener *try_listener(const scene *s)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    nl_listen_config c;
    nl_listener *l = NULL;
    nl_fault why = { 0 };
    socklen_t n = sizeof in;

    nl_listen_config_default(&c);
    c.link.wire = s->theirs;
    c.link.tls = s->tls;
    if (s->local)                       /* an abstract name: of this process, and gone with the socket */
        n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                        (size_t)snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "neolink-faults-%d", (int)getpid()));
    if (ok(nl_listener_new(s->local ? (struct sockaddr *)&un : (struct sockaddr *)&in, n, &c, &l, &why)))
        return l;
    must(why.code != NL_OK && why.text[0]);
    return NULL;
}

static nl_link *try_dial(const scene *s, nl_listener *l)
{
    nl_dialer *d = NULL;
    nl_dial_config c;
    nl_link *link = NULL;
    nl_fault why;
    socklen_t n;
    const struct sockaddr *a = nl_listener_address(l, &n);
    nl_err e;

    nl_dial_config_default(&c);
    c.link.wire = s->ours;
    c.link.tls = s->tls;
    if (!ok(nl_dialer_new(a, n, &c, &d)))
        return NULL;
    while ((e = nl_dialer_wait(d, in_ms(PATIENCE_MS), &link, &why, NULL)) == NL_EINTR) ;
    nl_dialer_free(d);
    if (s->mismatch)
        must(e != NL_OK && why.text[0]);
    if (s->mismatch && e == NL_EHANDSHAKE)
        return NULL;
    if (ok(e))
        return link;
    must(why.code == e && why.text[0]);
    return NULL;
}

/* Are they the two ends of one connection? A dial may have made another one before. */
static bool belong_together(nl_link *client, nl_link *server)
{
    socklen_t n, m;
    const struct sockaddr *a = nl_link_local(client, &n), *b = nl_link_peer(server, &m);

    return a->sa_family != AF_INET || (n == m && memcmp(a, b, n) == 0);
}

/* The listener's end of `link`, unless the handshake failed on that side: then there is a reason, or, for want of
 * memory, only an end of the connection. */
static nl_link *try_accept(nl_listener *l, nl_link *link)
{
    struct sockaddr_storage peer;
    socklen_t n;
    nl_hs_report report;
    nl_fault why;
    nl_link *got;
    int64_t end = in_ms(PATIENCE_MS);
    nl_err e;

    for (;;) {
        e = nl_listener_accept(l, in_ms(2), &got, &why, &report, &peer, &n);
        if (e == NL_OK && belong_together(link, got))
            return got;
        if (e == NL_OK)
            link_free(got);
        must(e == NL_OK || e == NL_ETIMEOUT || e == NL_EINTR || (e == NL_EHANDSHAKE && why.text[0]));
        if (nl_link_is_closed(link))
            return NULL;
        must(nl_now_ns() < end);
    }
}

/* One question and its answer, and a notification, from one thread. */
static void talk(nl_link *client, nl_link *server)
{
    nl_packet *request = NULL, *answer = NULL;
    nl_conn *conn = NULL;
    nl_wire wire = nl_link_wire(client);
    nl_ask ask;
    nl_err e;

    must(nl_link_wire(server) == wire);
    if (!fault_ok(nl_ask_begin(client, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL), NL_EPROTO))
        return;
    while ((e = nl_link_recv1(server, fault_patience(), &conn, &request)) == NL_EINTR) ;
    if (fault_ok(fault_again(e), NL_EPROTO) && conn) {
        e = nl_conn_send(conn, ANSWER, NULL, 0, in_ms(PATIENCE_MS), NULL);
        if (fault_ok(e, NL_EPROTO)) {
            while ((e = nl_ask_wait(&ask, fault_patience(), &answer)) == NL_EINTR) ;
            fault_ok(fault_again(e), NL_EPROTO);
        }
    }
    nl_ask_end(&ask);
    fault_ok(nl_link_notify(server, notification(wire), NULL, 0, in_ms(PATIENCE_MS), NULL), NL_EPROTO);
    nl_packet_free(request);
    nl_packet_free(answer);
    nl_conn_rele(conn);
}

static void part(nl_link *client, nl_link *server)
{
    nl_err e;

    if (client) {
        while ((e = nl_link_close(client, fault_patience())) == NL_EINTR) ;
        must(e == NL_OK || e == NL_ETIMEOUT);
    }
    fault_none();
    link_free(client);
    link_free(server);
}

static void visit(const scene *s, nl_listener *l)
{
    nl_link *client = try_dial(s, l), *server = NULL;

    if (client && (server = try_accept(l, client)))
        talk(client, server);
    part(client, server);
}

static void play(const scene *s)
{
    nl_listener *l = try_listener(s);
    scene again = *s;

    if (again.ours == NL_WIRE_AUTO && again.theirs == NL_WIRE_AUTO)
        again.ours = NL_WIRE_M;         /* it is awaited with less patience */
    if (l) {
        visit(s, l);
        visit(&again, l);               /* and here nothing fails */
        nl_listener_close(l);
        nl_listener_rele(l);
    }
}

#define SCENE(name, a, b, ...) static void name(void) { play(&(scene){ .ours = (a), .theirs = (b), __VA_ARGS__ }); }
SCENE(dial_2016, NL_WIRE_2016, NL_WIRE_2016, .local = true)
SCENE(dial_n, NL_WIRE_N, NL_WIRE_N, .local = true)
SCENE(dial_m, NL_WIRE_M, NL_WIRE_M, .local = false)
SCENE(dial_auto, NL_WIRE_AUTO, NL_WIRE_AUTO, .local = false)
SCENE(dial_auto_n, NL_WIRE_AUTO, NL_WIRE_N, .local = false)
SCENE(dial_auto_m, NL_WIRE_AUTO, NL_WIRE_M, .local = false)
SCENE(dial_n_auto, NL_WIRE_N, NL_WIRE_AUTO, .local = false)
SCENE(dial_m_auto, NL_WIRE_M, NL_WIRE_AUTO, .local = false)
SCENE(dial_wrong, NL_WIRE_N, NL_WIRE_M, .mismatch = true)

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

#ifndef NL_NO_TLS

#define HOUR 3600L

static folder      files;
static nl_tls_ctx *ctx;

static bool try_ctx(nl_tls_ctx **out)
{
    nl_fault why = { 0 };
    /* a file that could not be taken in for want of memory is unusable, says OpenSSL */
    bool made = fault_ok(nl_tls_ctx_new(folder_file(&files, "ca"), folder_file(&files, "crt"),
                                        folder_file(&files, "key"), NULL, "node", out, &why), NL_EINVAL);

    must(made || (why.code != NL_OK && why.text[0]));
    return made;
}

static void read_files(void)
{
    nl_tls_ctx *made = NULL;

    if (try_ctx(&made))
        nl_tls_ctx_rele(made);
}

SCENE(tls_2016, NL_WIRE_2016, NL_WIRE_2016, .tls = ctx, .local = true)
SCENE(tls_m, NL_WIRE_M, NL_WIRE_M, .tls = ctx, .local = true)
SCENE(tls_auto, NL_WIRE_AUTO, NL_WIRE_AUTO, .tls = ctx)

/* nl_link_new over a socket: both ends have to take part. */
static void job_adopt(job *j)
{
    nl_link_config c = config_of(NL_SERVER, KIND_2016);
    nl_fault why;
    int fd = (int)(intptr_t)j->arg;

    c.tls = ctx;
    j->result = nl_link_new(fd, &c, in_ms(PATIENCE_MS), &j->link, &why);
    if (j->result != NL_OK)
        close(fd);
}

static void tls_adopt(void)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job server = { 0 };
    nl_link *client = NULL;
    nl_fault why;
    int fd[2];

    sockets_unix(fd);
    server.arg = (void *)(intptr_t)fd[1];
    job_start(&server, job_adopt);
    c.tls = ctx;
    if (!ok(nl_link_new(fd[0], &c, in_ms(PATIENCE_MS), &client, &why)))
        close(fd[0]);
    job_join(&server);
    ok(server.result);
    if (client && server.link)
        talk(client, server.link);
    part(client, server.link);
}

/* ---- OpenSSL's allocations --------------------------------------------------------------------------------------- */

static void *ssl_malloc(size_t n, const char *file, int line)
{
    void *p;

    (void)file, (void)line;
    if (!n || fault_openssl() || !(p = malloc(n)))
        return NULL;
    atomic_fetch_add(&fault_openssl_live, 1);
    return p;
}

static void ssl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    atomic_fetch_sub(&fault_openssl_live, p != NULL);
    free(p);
}

static void *ssl_realloc(void *p, size_t n, const char *file, int line)
{
    if (!p)
        return ssl_malloc(n, file, line);
    if (!n) {
        ssl_free(p, file, line);
        return NULL;
    }
    return fault_openssl() ? NULL : realloc(p, n);
}

static void prepare(void)
{
    identity ca, node;

    files = folder_new();
    ca = identity_new(NULL, &(cert_request){ "test CA", NULL, -HOUR, HOUR });
    node = identity_new(&ca, &(cert_request){ "node", "DNS:node", -HOUR, HOUR });
    pem_certificate(folder_file(&files, "ca"), ca.cert);
    pem_certificate(folder_file(&files, "crt"), node.cert);
    pem_key(folder_file(&files, "key"), node.key, NULL);
    identity_free(&ca);
    identity_free(&node);
    must(try_ctx(&ctx));
}

static void tidy(void)
{
    nl_tls_ctx_rele(ctx);
    folder_remove(&files);
}

#else
#define prepare NULL
#define tidy NULL
#endif

#define MEMORY FAULT_ONLY(SC_MALLOC)

/* S60 */
int main(void)
{
    static const fault_scenario scenarios[] = {
        { "dial_2016", dial_2016, false, 0 },
        { "dial_n", dial_n, false, 0 },
        { "dial_m", dial_m, false, 0 },
        { "dial_auto", dial_auto, false, MEMORY },      /* two silences of 100 ms in each run */
        { "dial_auto_n", dial_auto_n, false, MEMORY },
        { "dial_auto_m", dial_auto_m, false, MEMORY },
        { "dial_n_auto", dial_n_auto, false, MEMORY },
        { "dial_m_auto", dial_m_auto, false, MEMORY },
        { "dial_wrong", dial_wrong, false, MEMORY },
#ifndef NL_NO_TLS
        { "read_files", read_files, true, 0 },
        { "tls_2016", tls_2016, false, 0 },
        { "tls_m", tls_m, true, 0 },
        { "tls_auto", tls_auto, false, MEMORY },
        { "tls_adopt", tls_adopt, true, 0 },
#endif
    };

#ifndef NL_NO_TLS
    if (!CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free))   /* before OpenSSL allocates at all */
        return 1;
#endif
    return fault_main(scenarios, sizeof scenarios / sizeof *scenarios, prepare, tidy);
}
