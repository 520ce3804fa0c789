/* Tests of tls.c: both ends in memory, certificates made here.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * shake() plays the network: it carries ciphertext from end to end until nothing moves any more. Where a test needs a
 * peer that follows other rules than ours, it is an SSL object of OpenSSL's behind the same memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tls.h"

#ifndef NL_NO_TLS

#include <errno.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include "certs.h"

/* ---- the files of all tests -------------------------------------------------------------------------------------- */

#define HOUR 3600L

static folder    files;
static identity  ca, other_ca, old_ca, node, stranger, expired, future;
static const cert_request NODE = { "node", "DNS:node.example,IP:127.0.0.1", -HOUR, HOUR };

static const char *in(const char *name)
{
    return folder_file(&files, name);
}

static void write_identity(const char *name, const identity *id)
{
    char file[64];
    snprintf(file, sizeof file, "%s.crt", name);
    pem_certificate(in(file), id->cert);
    snprintf(file, sizeof file, "%s.key", name);
    pem_key(in(file), id->key, NULL);
}

static int set_up(void **state)
{
    (void)state;
    files = folder_new();
    ca = identity_new(NULL, &(cert_request){ "test CA", NULL, -HOUR, HOUR });
    other_ca = identity_new(NULL, &(cert_request){ "other CA", NULL, -HOUR, HOUR });
    old_ca = identity_new(NULL, &(cert_request){ "old CA", NULL, -2 * HOUR, -HOUR });
    node = identity_new(&ca, &NODE);
    stranger = identity_new(&other_ca, &(cert_request){ "stranger", NULL, -HOUR, HOUR });
    expired = identity_new(&ca, &(cert_request){ "expired", NULL, -2 * HOUR, -HOUR });
    future = identity_new(&ca, &(cert_request){ "future", NULL, HOUR, 2 * HOUR });
    write_identity("ca", &ca);
    write_identity("other_ca", &other_ca);
    write_identity("old_ca", &old_ca);
    write_identity("node", &node);
    write_identity("stranger", &stranger);
    write_identity("expired", &expired);
    write_identity("future", &future);
    pem_key(in("locked.key"), node.key, "secret");
    pem_text(in("empty"), "");
    pem_text(in("text"), "this is no PEM\n");
    pem_text(in("broken.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    pem_text(in("broken.key"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    pem_text(in("large"), "");
    assert_int_equal(truncate(in("large"), (off_t)17 << 20), 0);
    pem_crl(in("nobody.crl"), &ca, NULL, false);
    pem_crl(in("node.crl"), &ca, node.cert, false);
    pem_certificate(in("ca_and_crl.crt"), ca.cert);
    pem_crl(in("ca_and_crl.crt"), &ca, node.cert, true);
    pem_certificate(in("two_cas.crt"), old_ca.cert);
    pem_append_certificate(in("two_cas.crt"), ca.cert);
    return 0;
}

static int tear_down(void **state)
{
    identity *all[] = { &ca, &other_ca, &old_ca, &node, &stranger, &expired, &future };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        identity_free(all[i]);
    folder_remove(&files);
    return 0;
}

static nl_tls_ctx *ctx_full(const char *ca_file, const char *name, const char *crl, const char *hostname)
{
    char cert[64], key[64];
    nl_tls_ctx *ctx;
    nl_fault why;
    snprintf(cert, sizeof cert, "%s.crt", name);
    snprintf(key, sizeof key, "%s.key", name);
    if (nl_tls_ctx_new(in(ca_file), in(cert), in(key), crl ? in(crl) : NULL, hostname, &ctx, &why) != NL_OK)
        fail_msg("%s", why.text);
    return ctx;
}

static nl_tls_ctx *ctx_of(const char *ca_file, const char *name)
{
    return ctx_full(ca_file, name, NULL, NULL);
}

/* ---- files that cannot be used ----------------------------------------------------------------------------------- */

static void refused(const char *ca_file, const char *cert, const char *key, const char *crl, nl_err code,
                    const char *file, const char *words)
{
    nl_tls_ctx *ctx = (nl_tls_ctx *)&files;
    nl_fault why;
    assert_int_equal(nl_tls_ctx_new(in(ca_file), in(cert), in(key), crl ? in(crl) : NULL, NULL, &ctx, &why), code);
    assert_null(ctx);
    assert_int_equal(why.code, code);
    if (!strstr(why.text, in(file)) || !strstr(why.text, words))
        fail_msg("\"%s\" should name %s and say \"%s\"", why.text, file, words);
}

static void test_bad_files(void **state)
{
    (void)state;
    refused("missing", "node.crt", "node.key", NULL, NL_ESYS, "missing", strerror(ENOENT));
    refused("ca.crt", "missing", "node.key", NULL, NL_ESYS, "missing", strerror(ENOENT));
    refused("ca.crt", "node.crt", "missing", NULL, NL_ESYS, "missing", strerror(ENOENT));
    refused("ca.crt", "node.crt", "node.key", "missing", NL_ESYS, "missing", strerror(ENOENT));
    refused(".", "node.crt", "node.key", NULL, NL_ESYS, ".", strerror(EISDIR));
    refused("empty", "node.crt", "node.key", NULL, NL_EINVAL, "empty", "no certificate");
    refused("text", "node.crt", "node.key", NULL, NL_EINVAL, "text", "no certificate");
    refused("broken.crt", "node.crt", "node.key", NULL, NL_EINVAL, "broken.crt", "not PEM");
    refused("node.key", "node.crt", "node.key", NULL, NL_EINVAL, "node.key", "no certificate");
    refused("ca.crt", "text", "node.key", NULL, NL_EINVAL, "text", "no certificate");
    refused("ca.crt", "broken.crt", "node.key", NULL, NL_EINVAL, "broken.crt", "not PEM");
    refused("ca.crt", "node.crt", "text", NULL, NL_EINVAL, "text", "no private key");
    refused("ca.crt", "node.crt", "broken.key", NULL, NL_EINVAL, "broken.key", "no private key");
    refused("ca.crt", "node.crt", "node.crt", NULL, NL_EINVAL, "node.crt", "no private key");
    refused("ca.crt", "node.crt", "stranger.key", NULL, NL_EINVAL, "stranger.key", "not the key of the certificate");
    refused("ca.crt", "node.crt", "locked.key", NULL, NL_EINVAL, "locked.key", "encrypted");
    refused("ca.crt", "expired.crt", "expired.key", NULL, NL_EINVAL, "expired.crt", "expired on");
    refused("ca.crt", "future.crt", "future.key", NULL, NL_EINVAL, "future.crt", "not valid before");
    refused("old_ca.crt", "node.crt", "node.key", NULL, NL_EINVAL, "old_ca.crt", "expired on");
    refused("ca.crt", "node.crt", "node.key", "ca.crt", NL_EINVAL, "ca.crt", "no CRL");
    refused("large", "node.crt", "node.key", NULL, NL_EINVAL, "large", "too large");
}

static void test_an_old_ca_beside_a_new_one(void **state)
{
    (void)state;
    nl_tls_ctx_rele(ctx_of("two_cas.crt", "node"));
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

typedef struct end {
    nl_tls       *tls;
    nl_tls_status status;
    bool          done;
    nl_fault      why;
} end;

/* Carries up to `step` bytes at a time; true if there were any. */
static bool carry(nl_tls *from, nl_tls *to, size_t step)
{
    const uint8_t *cipher;
    size_t n = nl_tls_output(from, &cipher);
    n = n < step ? n : step;
    if (n == 0)
        return false;
    assert_int_equal(nl_tls_input(to, cipher, n), NL_OK);
    nl_tls_sent(from, n);
    return true;
}

static void advance(end *e)
{
    if (e->status == NL_TLS_OK && !e->done)
        e->status = nl_tls_handshake(e->tls, &e->done, &e->why);
}

static void shake(end *client, end *server, size_t step)
{
    bool moved = true;
    while (moved) {
        advance(client);
        moved = carry(client->tls, server->tls, step);
        advance(server);
        moved = carry(server->tls, client->tls, step) || moved;
    }
}

static end end_of(nl_tls_ctx *ctx, nl_role role)
{
    end e = { 0 };
    assert_int_equal(nl_tls_new(ctx, role, &e.tls), NL_OK);
    nl_tls_ctx_rele(ctx);               /* a session keeps what it needs */
    return e;
}

static void meet(end *client, end *server, nl_tls_ctx *client_ctx, nl_tls_ctx *server_ctx)
{
    *client = end_of(client_ctx, NL_CLIENT);
    *server = end_of(server_ctx, NL_SERVER);
    shake(client, server, SIZE_MAX);
}

static void part(end *client, end *server)
{
    nl_tls_free(client->tls);
    nl_tls_free(server->tls);
}

static void says(const end *e, const char *words)
{
    assert_int_equal(e->status, NL_TLS_BAD);
    if (!strstr(e->why.text, words))
        fail_msg("\"%s\" should say \"%s\"", e->why.text, words);
}

static size_t read_all(nl_tls *tls, uint8_t *p, size_t cap)
{
    nl_fault why;
    size_t n;
    assert_int_equal(nl_tls_read(tls, p, cap, &n, &why), NL_TLS_OK);
    return n;
}

static void test_handshake_byte_by_byte(void **state)
{
    static const size_t steps[] = { 1, 7, SIZE_MAX };
    nl_fault why;
    uint8_t got[16];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        end client = end_of(ctx_of("ca.crt", "node"), NL_CLIENT);
        end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
        shake(&client, &server, steps[i]);
        assert_true(client.done && server.done);
        assert_false(nl_tls_has_output(client.tls) || nl_tls_has_output(server.tls));

        assert_int_equal(nl_tls_write(client.tls, "opening", 7, &why), NL_OK);
        assert_true(nl_tls_has_output(client.tls));
        while (carry(client.tls, server.tls, steps[i]))
            ;
        assert_int_equal(read_all(server.tls, got, sizeof got), 7);
        assert_memory_equal(got, "opening", 7);
        assert_int_equal(read_all(server.tls, got, sizeof got), 0);
        part(&client, &server);
    }
}

static void test_much_data(void **state)
{
    enum { SIZE = 1 << 20 };
    uint8_t *sent = malloc(SIZE), *got = malloc(SIZE);
    end client, server;
    nl_fault why;
    size_t have = 0;
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_of("ca.crt", "node"));
    for (size_t i = 0; i < SIZE; i++)
        sent[i] = (uint8_t)(i * 7 + i / 251);
    assert_int_equal(nl_tls_write(server.tls, sent, SIZE, &why), NL_OK);
    while (have < SIZE) {
        assert_true(carry(server.tls, client.tls, 10000));
        have += read_all(client.tls, got + have, SIZE - have);
    }
    assert_memory_equal(got, sent, SIZE);
    part(&client, &server);
    free(sent);
    free(got);
}

/* What the writer borrowed stays while others encrypt more. */
static void test_borrowed_output_does_not_move(void **state)
{
    end client, server;
    nl_fault why;
    const uint8_t *lent;
    uint8_t copy[256], got[64];
    char more[4096] = "";
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_of("ca.crt", "node"));
    nl_tls_write(client.tls, "first", 5, &why);
    size_t n = nl_tls_output(client.tls, &lent);
    assert_in_range(n, 5, sizeof copy);
    memcpy(copy, lent, n);
    for (int i = 0; i < 100; i++)
        nl_tls_write(client.tls, more, sizeof more, &why);
    assert_memory_equal(lent, copy, n);
    nl_tls_sent(client.tls, 3);
    const uint8_t *again;
    assert_int_equal(nl_tls_output(client.tls, &again), n - 3);
    assert_ptr_equal(again, lent + 3);
    nl_tls_input(server.tls, copy, n);
    assert_int_equal(read_all(server.tls, got, sizeof got), 5);
    part(&client, &server);
}

static void test_strangers(void **state)
{
    end client, server;
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "stranger"), ctx_of("ca.crt", "node"));     /* its dialer is refused */
    says(&server, "refused");
    part(&client, &server);

    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_of("ca.crt", "stranger"));     /* its listener is */
    says(&client, "refused");
    says(&server, "alert");
    part(&client, &server);
}

/* In TLS 1.3 a dialer is done before the listener looked at its certificate: the refusal comes as data would. */
static void test_refusal_after_the_handshake(void **state)
{
    end client, server;
    uint8_t byte;
    size_t n;
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "stranger"), ctx_of("ca.crt", "node"));
    assert_true(client.done);
    client.status = nl_tls_read(client.tls, &byte, 1, &n, &client.why);
    says(&client, "alert");
    assert_int_equal(nl_tls_read(client.tls, &byte, 1, &n, &client.why), NL_TLS_BAD);   /* and it stays so */
    assert_int_equal(nl_tls_write(client.tls, "x", 1, &client.why), NL_EPROTO);
    part(&client, &server);
}

static void test_crl(void **state)
{
    end client, server;
    (void)state;
    meet(&client, &server, ctx_full("ca.crt", "node", "nobody.crl", NULL), ctx_of("ca.crt", "node"));
    assert_true(client.done && server.done);
    part(&client, &server);

    meet(&client, &server, ctx_full("ca.crt", "node", "node.crl", NULL), ctx_of("ca.crt", "node"));
    says(&client, "revoked");
    part(&client, &server);

    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_full("ca.crt", "node", "node.crl", NULL));
    says(&server, "revoked");
    part(&client, &server);

    meet(&client, &server, ctx_of("ca_and_crl.crt", "node"), ctx_of("ca.crt", "node"));
    says(&client, "revoked");
    part(&client, &server);
}

static void test_hostname(void **state)
{
    static const char *const good[] = { "node.example", "127.0.0.1" };
    static const char *const bad[] = { "elsewhere.example", "127.0.0.2" };
    end client, server;
    (void)state;
    for (int i = 0; i < 2; i++) {
        meet(&client, &server, ctx_full("ca.crt", "node", NULL, good[i]), ctx_of("ca.crt", "node"));
        assert_true(client.done && server.done);
        part(&client, &server);

        meet(&client, &server, ctx_full("ca.crt", "node", NULL, bad[i]), ctx_of("ca.crt", "node"));
        says(&client, "mismatch");
        part(&client, &server);

        meet(&client, &server, ctx_of("ca.crt", "node"), ctx_full("ca.crt", "node", NULL, bad[i]));
        assert_true(client.done && server.done);        /* who dials has no name */
        part(&client, &server);
    }
}

static void test_garbage(void **state)
{
    end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
    (void)state;
    nl_tls_input(server.tls, "GET / HTTP/1.0\r\n\r\n", 18);
    advance(&server);
    says(&server, "TLS: ");
    nl_tls_free(server.tls);
}

static void test_damaged_record(void **state)
{
    end client, server;
    const uint8_t *cipher;
    uint8_t copy[256], byte;
    size_t n;
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_of("ca.crt", "node"));
    nl_tls_write(client.tls, "hello", 5, &client.why);
    n = nl_tls_output(client.tls, &cipher);
    memcpy(copy, cipher, n);
    copy[n - 1] ^= 1;
    nl_tls_input(server.tls, copy, n);
    server.status = nl_tls_read(server.tls, &byte, 1, &n, &server.why);
    says(&server, "TLS: ");
    assert_true(nl_tls_has_output(server.tls));         /* the alert */
    part(&client, &server);
}

static void test_clean_end(void **state)
{
    end client, server;
    uint8_t got[16];
    size_t n;
    (void)state;
    meet(&client, &server, ctx_of("ca.crt", "node"), ctx_of("ca.crt", "node"));
    nl_tls_write(client.tls, "last words", 10, &client.why);
    nl_tls_close_notify(client.tls);
    nl_tls_close_notify(client.tls);
    while (carry(client.tls, server.tls, SIZE_MAX))
        ;
    assert_int_equal(read_all(server.tls, got, sizeof got), 10);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(nl_tls_read(server.tls, got, sizeof got, &n, &server.why), NL_TLS_CLEAN_END);
        assert_int_equal(n, 0);
    }
    part(&client, &server);
}

static void test_close_notify_before_the_handshake(void **state)
{
    end client = end_of(ctx_of("ca.crt", "node"), NL_CLIENT);
    (void)state;
    nl_tls_close_notify(client.tls);
    assert_false(nl_tls_has_output(client.tls));
    nl_tls_free(client.tls);
}

/* ---- peers with other rules -------------------------------------------------------------------------------------- */

/* A dialer of OpenSSL's own. */
typedef struct foreign {
    SSL_CTX *ctx;
    SSL     *ssl;
} foreign;

static foreign foreign_new(const identity *id, int version)
{
    foreign f = { SSL_CTX_new(TLS_client_method()), NULL };
    SSL_CTX_set_min_proto_version(f.ctx, version);
    SSL_CTX_set_max_proto_version(f.ctx, version);
    SSL_CTX_set_security_level(f.ctx, 0);
    if (id) {
        assert_true(SSL_CTX_use_certificate(f.ctx, id->cert) && SSL_CTX_use_PrivateKey(f.ctx, id->key));
    }
    f.ssl = SSL_new(f.ctx);
    SSL_set_bio(f.ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(f.ssl);
    return f;
}

static bool carry_foreign(foreign *f, nl_tls *tls)
{
    uint8_t chunk[4096];
    const uint8_t *cipher;
    bool moved = false;
    int n = BIO_read(SSL_get_wbio(f->ssl), chunk, sizeof chunk);
    if (n > 0) {
        nl_tls_input(tls, chunk, (size_t)n);
        moved = true;
    }
    size_t back = nl_tls_output(tls, &cipher);
    if (back > 0) {
        assert_int_equal(BIO_write(SSL_get_rbio(f->ssl), cipher, (int)back), (int)back);
        nl_tls_sent(tls, back);
        moved = true;
    }
    return moved;
}

static void shake_foreign(foreign *f, end *server)
{
    do {
        SSL_do_handshake(f->ssl);
        advance(server);
    } while (carry_foreign(f, server->tls));
    SSL_do_handshake(f->ssl);
}

static void foreign_free(foreign *f)
{
    SSL_free(f->ssl);
    SSL_CTX_free(f->ctx);
}

static void test_versions(void **state)
{
    (void)state;
    for (int version = TLS1_1_VERSION; version <= TLS1_3_VERSION; version++) {
        end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
        foreign client = foreign_new(&node, version);
        shake_foreign(&client, &server);
        if (version >= TLS1_2_VERSION) {
            assert_true(server.done);
            assert_int_equal(SSL_version(client.ssl), version);
        } else {
            says(&server, "TLS: ");
        }
        nl_tls_free(server.tls);
        foreign_free(&client);
    }
}

static void test_dialer_without_certificate(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
        foreign client = foreign_new(NULL, version);
        shake_foreign(&client, &server);
        says(&server, "showed no certificate");
        nl_tls_free(server.tls);
        foreign_free(&client);
    }
}

static void test_dialer_with_expired_certificate(void **state)
{
    end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
    foreign client = foreign_new(&expired, TLS1_2_VERSION);
    (void)state;
    shake_foreign(&client, &server);
    says(&server, "expired");
    nl_tls_free(server.tls);
    foreign_free(&client);
}

static void test_renegotiation_is_refused(void **state)
{
    end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
    foreign client = foreign_new(&node, TLS1_2_VERSION);
    uint8_t byte;
    size_t n;
    (void)state;
    shake_foreign(&client, &server);
    assert_true(server.done);
    assert_true(SSL_renegotiate(client.ssl));
    SSL_do_handshake(client.ssl);
    carry_foreign(&client, server.tls);
    nl_tls_read(server.tls, &byte, 1, &n, &server.why);
    assert_true(nl_tls_has_output(server.tls));         /* the alert no_renegotiation, and no hello */
    carry_foreign(&client, server.tls);
    assert_int_not_equal(SSL_do_handshake(client.ssl), 1);
    nl_tls_free(server.tls);
    foreign_free(&client);
}

/* Reading one makes output: the reader has to get the writer going. */
static void test_key_update(void **state)
{
    end server = end_of(ctx_of("ca.crt", "node"), NL_SERVER);
    foreign client = foreign_new(&node, TLS1_3_VERSION);
    uint8_t byte;
    (void)state;
    shake_foreign(&client, &server);
    assert_true(server.done);
    assert_false(nl_tls_has_output(server.tls));
    assert_true(SSL_key_update(client.ssl, SSL_KEY_UPDATE_REQUESTED));
    assert_int_equal(SSL_write(client.ssl, "x", 1), 1);
    carry_foreign(&client, server.tls);
    assert_int_equal(read_all(server.tls, &byte, 1), 1);
    assert_int_equal(nl_tls_write(server.tls, "y", 1, &server.why), NL_OK);
    assert_true(nl_tls_has_output(server.tls));
    carry_foreign(&client, server.tls);
    assert_int_equal(SSL_read(client.ssl, &byte, 1), 1);
    assert_int_equal(byte, 'y');
    nl_tls_free(server.tls);
    foreign_free(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_an_old_ca_beside_a_new_one),
        cmocka_unit_test(test_handshake_byte_by_byte),
        cmocka_unit_test(test_much_data),
        cmocka_unit_test(test_borrowed_output_does_not_move),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_refusal_after_the_handshake),
        cmocka_unit_test(test_crl),
        cmocka_unit_test(test_hostname),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_clean_end),
        cmocka_unit_test(test_close_notify_before_the_handshake),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_dialer_without_certificate),
        cmocka_unit_test(test_dialer_with_expired_certificate),
        cmocka_unit_test(test_renegotiation_is_refused),
        cmocka_unit_test(test_key_update),
    };
    return cmocka_run_group_tests_name("tls", tests, set_up, tear_down);
}

#else   /* NL_NO_TLS */

static void test_refusal(void **state)
{
    nl_tls_ctx *ctx;
    nl_fault why;
    (void)state;
    assert_false(nl_have_tls());
    assert_int_equal(nl_tls_ctx_new("ca", "cert", "key", NULL, NULL, &ctx, &why), NL_EINVAL);
    assert_null(ctx);
    assert_non_null(strstr(why.text, "OpenSSL"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_refusal) };
    return cmocka_run_group_tests_name("tls", tests, NULL, NULL);
}

#endif
