/* Links that come and go leave nothing, however many: what is allocated after them is counted while the background
 * thread runs on, for a link that is only let go at nl_shutdown() would make a process of many links grow.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The core's own allocations come back to the very number from before the first link. OpenSSL keeps some things for
 * later, once or per thread; what it keeps must not grow with the links, so it is compared after N of them and after
 * 2 N more.
 */
#include "kit.h"

#include "buf.h"
#include "peers.h"
#include "sys.h"

#include <netinet/in.h>
#include <sys/socket.h>

#ifndef NL_NO_TLS
#include <openssl/crypto.h>

#include "certs.h"
#include "tls.h"
#endif

#define LIVES  30                       /* links, each with its peer */
#define SILENT 3                        /* peers in the middle of a handshake */

int sys_fault(sys_call call, size_t *len)
{
    (void)call, (void)len;
    return 0;
}

/* ---- one life ---------------------------------------------------------------------------------------------------- */

typedef enum ending { CLOSED, ABORTED, CUT, ENDINGS } ending;

typedef struct maker {
    job            job;
    int            fd;
    nl_link_config config;
} maker;

static void job_make(job *j)
{
    maker *m = j->arg;

    j->link = link_over(m->fd, &m->config);
}

/* A TLS handshake takes both ends at once, so the server's is made by a thread. */
static pair make_pair(kind k, nl_tls_ctx *tls, int fd[2])
{
    maker m = { .config = config_of(NL_SERVER, k) };
    nl_link_config client = config_of(NL_CLIENT, k);

    m.config.tls = client.tls = tls;
    sockets_tcp(fd);
    m.fd = fd[1];
    m.job.arg = &m;
    job_start(&m.job, job_make);
    nl_link *link = link_over(fd[0], &client);
    job_join(&m.job);
    return (pair){ link, m.job.link };
}

/* Answered asks, and one given up, whose id is remembered for its late answer. */
static void ask_some(nl_link *link, kind k)
{
    uint8_t *payload = payload_new(k.wire, 3000, 1);

    for (int i = 0; i < 4; i++) {
        nl_packet *answer = NULL;
        nl_ask ask;

        must_be(nl_ask_begin(link, &ask, ASK, payload, 3000, in_ms(PATIENCE_MS), NULL), NL_OK);
        if (i < 3)
            must_be(retried(nl_ask_wait(&ask, in_ms(PATIENCE_MS), &answer)), NL_OK);
        nl_ask_end(&ask);
        nl_packet_free(answer);
    }
    free(payload);
}

static void live(kind k, nl_tls_ctx *tls, ending how)
{
    job echo = { 0 };
    int fd[2];
    pair p = make_pair(k, tls, fd);
    nl_conn *open = conn_new(p.client);

    echo.link = p.server;
    job_start(&echo, job_echo);
    ask_some(p.client, k);
    if (how == CLOSED)
        must_be(nl_link_close(p.client, in_ms(PATIENCE_MS)), NL_OK);
    else if (how == ABORTED)
        nl_link_abort(p.client);
    else
        must(shutdown(fd[0], SHUT_RDWR) == 0);
    job_join(&echo);
    nl_conn_rele(open);
    link_free(p.client);
    link_free(p.server);
}

/* The core holds what it held before, though nobody has called nl_shutdown(). */
static void live_and_let_go(kind k, nl_tls_ctx *tls, unsigned times)
{
    nl_block_cache_clear();
    long before = atomic_load(&sys_live);

    for (unsigned i = 0; i < times; i++)
        live(k, tls, i % ENDINGS);
    wait_until((nl_block_cache_clear(), atomic_load(&sys_live) == before));
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void test_plain_links_leave_nothing(void **state)
{
    (void)state;
    for_each_kind(k)
        live_and_let_go(*k, NULL, LIVES);
}

/* Handshakes that stand still when the thread ends: whoever closes the listener, before or after, gives them back. */
static void test_handshakes_at_shutdown_leave_nothing(void **state)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    nl_listen_config config;

    (void)state;
    nl_listen_config_default(&config);
    config.handshake_ns = NL_FOREVER;
    for (int i = 0; i < 20; i++) {
        long before = atomic_load(&sys_live);
        int silent[SILENT];
        nl_listener *l;
        nl_fault why;

        must(nl_listener_new((struct sockaddr *)&address, sizeof address, &config, &l, &why) == NL_OK);
        for (int k = 0; k < SILENT; k++)
            silent[k] = connect_to(l);
        wait_until(atomic_load(&sys_live) == before + 1 + 2 * SILENT);      /* the handshakes, and their outcomes */
        if (i % 2)
            nl_listener_close(l);
        nl_shutdown();
        nl_listener_rele(l);
        must(atomic_load(&sys_live) == before);
        for (int k = 0; k < SILENT; k++)
            close(silent[k]);
    }
}

#ifndef NL_NO_TLS

#define HOUR 3600L

static atomic_long openssl_live;

static void *ssl_malloc(size_t n, const char *file, int line)
{
    void *p = n ? malloc(n) : NULL;

    (void)file, (void)line;
    atomic_fetch_add(&openssl_live, p != NULL);
    return p;
}

static void ssl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    atomic_fetch_sub(&openssl_live, p != NULL);
    free(p);
}

static void *ssl_realloc(void *p, size_t n, const char *file, int line)
{
    if (!p)
        return ssl_malloc(n, file, line);
    if (n)
        return realloc(p, n);
    ssl_free(p, file, line);
    return NULL;
}

static nl_tls_ctx *make_ctx(void)
{
    folder files = folder_new();
    identity ca = identity_new(NULL, &(cert_request){ "test CA", NULL, -HOUR, HOUR });
    identity node = identity_new(&ca, &(cert_request){ "node", NULL, -HOUR, HOUR });
    nl_tls_ctx *ctx;
    nl_fault why;

    pem_certificate(folder_file(&files, "ca"), ca.cert);
    pem_certificate(folder_file(&files, "crt"), node.cert);
    pem_key(folder_file(&files, "key"), node.key, NULL);
    identity_free(&ca);
    identity_free(&node);
    must_be(nl_tls_ctx_new(folder_file(&files, "ca"), folder_file(&files, "crt"), folder_file(&files, "key"), NULL,
                           NULL, &ctx, &why), NL_OK);
    folder_remove(&files);
    return ctx;
}

/* What OpenSSL keeps, without what it keeps for threads, which have to be gone for that. */
static long kept_after(kind k, nl_tls_ctx *tls, unsigned times)
{
    size_t threads = kit_threads();

    live_and_let_go(k, tls, times);
    nl_shutdown();
    wait_until(kit_threads() == threads);
    return atomic_load(&openssl_live);
}

static void test_tls_links_leave_nothing(void **state)
{
    nl_tls_ctx *ctx = make_ctx();

    (void)state;
    for (const kind *k = KINDS; k < KINDS + 6; k += 2) {
        long once = kept_after(*k, ctx, LIVES), thrice = kept_after(*k, ctx, 2 * LIVES);
        if (thrice - once >= LIVES)
            fail_msg("OpenSSL has %ld more after %d more links", thrice - once, 2 * LIVES);
    }
    nl_tls_ctx_rele(ctx);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plain_links_leave_nothing), TEST(test_handshakes_at_shutdown_leave_nothing),
#ifndef NL_NO_TLS
        TEST(test_tls_links_leave_nothing),
#endif
    };

#ifndef NL_NO_TLS
    if (!CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free))   /* before OpenSSL allocates at all */
        return 1;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
