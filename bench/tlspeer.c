/* The bare peers with TLS: what OpenSSL does with blocking sockets, in C, without neolink.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   tlspeer node CA CERT KEY             a server: returns packets of code ASK as answers, drops others
 *   tlspeer ask CA CERT KEY PORT SIZE    contender: one round trip after the other
 *   tlspeer bulk CA CERT KEY PORT        contender: packets of 1 MiB, and one round trip at the end of a round
 *
 * Both sides show a certificate, as NEO's do. One SSL_write per packet; reads ahead, so that a record costs one recv.
 */
#include "bench.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>

#define RECORDS ((size_t)64 << 10)      /* read-ahead: several records a recv */

static SSL_CTX *ctx;
static SSL *ssl;
static size_t size;
static uint8_t *space;

static void tls_die(const char *what)
{
    fprintf(stderr, "%s: ", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void read_tls(SSL *s, uint8_t *p, size_t n)
{
    for (size_t got; n; p += got, n -= got)
        if (SSL_read_ex(s, p, n, &got) != 1)
            tls_die("SSL_read");
}

static void write_tls(SSL *s, const uint8_t *p, size_t n)
{
    size_t done;

    if (SSL_write_ex(s, p, n, &done) != 1)      /* blocking and without partial writes: all or nothing */
        tls_die("SSL_write");
}

static SSL *start(int fd, bool server)
{
    SSL *s = SSL_new(ctx);

    if (!s || SSL_set_fd(s, fd) != 1 || (server ? SSL_accept(s) : SSL_connect(s)) != 1)
        tls_die("handshake");
    return s;
}

static void *node_thread(void *arg)
{
    SSL *s = start((int)(intptr_t)arg, true);
    uint8_t *buf = malloc(HEAD + BULK);
    size_t got;

    while (SSL_peek_ex(s, buf, 1, &got) == 1) {
        size_t len;
        read_tls(s, buf, HEAD);
        len = load32(buf + 6);
        if (len < HEAD || len > HEAD + BULK)
            die("a packet of another size");
        read_tls(s, buf + HEAD, len - HEAD);
        if (buf[5] == ASK) {
            buf[4] |= ANSWER >> 8;
            write_tls(s, buf, len);
        }
    }
    free(buf);
    SSL_free(s);
    close((int)(intptr_t)arg);
    return NULL;
}

static void serve(void)
{
    int fd = listen_and_tell();

    for (;;) {
        pthread_t t;
        int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (one < 0)
            die("accept");
        no_delay(one);
        if (pthread_create(&t, NULL, node_thread, (void *)(intptr_t)one))
            die("pthread_create");
        pthread_detach(t);
    }
}

static void ask(long n)
{
    static uint32_t id = 1;

    for (long i = 0; i < n; i++, id += 2) {
        put_head(space, id, ASK, size);
        write_tls(ssl, space, HEAD + size);
        read_tls(ssl, space, HEAD + size);
    }
}

static void bulk(long n)
{
    for (long i = 0; i < n; i++) {
        put_head(space, 1, NOTE, BULK);
        write_tls(ssl, space, HEAD + BULK);
    }
    ask(1);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc < 5)
        die("usage: see the top of tlspeer.c");
    if (!(ctx = SSL_CTX_new(TLS_method())) || SSL_CTX_load_verify_locations(ctx, argv[2], NULL) != 1
            || SSL_CTX_use_certificate_file(ctx, argv[3], SSL_FILETYPE_PEM) != 1
            || SSL_CTX_use_PrivateKey_file(ctx, argv[4], SSL_FILETYPE_PEM) != 1)
        tls_die("SSL_CTX");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, RECORDS);
    SSL_CTX_clear_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE);
    if (!strcmp(argv[1], "node"))
        serve();
    if (argc < 6)
        die("usage: see the top of tlspeer.c");
    size = argc > 6 ? (size_t)atoi(argv[6]) : 0;
    space = calloc(1, HEAD + BULK);
    ssl = start(connect_to(argv[5]), false);
    do_rounds(!strcmp(argv[1], "ask") ? ask : bulk);
    return 0;
}
