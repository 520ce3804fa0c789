/* TLS as NEO does it: certificates, and sessions over memory. See tls.h for the contract.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * NEO's scheme is one CA for a cluster: both ends show a certificate of it, both check, and nobody looks at names, for
 * any node may be any node. Hence no host name check unless one is asked for, and a listener without a client's
 * certificate is no listener. NEO/py speaks TLS 1.2 only, so that is what most sessions come to; 1.3 is for those who
 * have it.
 *
 * A session is an SSL object between two queues of bytes, reached through a BIO of our own. A queue of ours, not a
 * memory BIO, for what nl_tls_output() lends must stay where it is while others encrypt more: the writer has `lent` to
 * itself, and all new ciphertext goes to `made`. When `lent` is used up, the two change places.
 *
 * OpenSSL reports through a queue per thread. It is emptied before every call, so that what is found after it is its
 * own.
 */
#include "tls.h"

#include "link.h"
#include "sys.h"

#ifndef NL_NO_TLS

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define FILE_MAX   ((size_t)16 << 20)   /* a CA file with large CRLs; a device or a mistaken path ends here */
#define KEEP_BYTES ((size_t)64 << 10)   /* a queue that grew larger gives its memory back when it runs empty */
#define FLOOD_BYTES ((size_t)512 << 10) /* output that reading adds nothing to: a writer has less under way (tx.c) */

struct nl_tls_ctx {
    atomic_uint refs;
    SSL_CTX    *ssl;                    /* [const] both roles */
    BIO_METHOD *method;                 /* [const] of the sessions' BIOs, which keep the ctx alive */
    char       *hostname;               /* [const] NULL: any certificate of our CA */
};

typedef struct bytes {
    uint8_t *data;
    size_t   at, end, cap;              /* what is in it: data[at .. end) */
} bytes;

extern nl_lock_class session_mu;
#define NL_SESSION  NL_GUARDED_BY(session_mu)

struct nl_tls {
    pthread_mutex_t mu;                 /* a leaf; around every call of OpenSSL */
    nl_tls_ctx *ctx;                    /* [const] one reference */
    SSL        *ssl NL_SESSION;
    bytes       received NL_SESSION;    /* ciphertext not yet looked at */
    bytes       made NL_SESSION;        /* ciphertext to send ... */
    bytes       lent NL_SESSION;        /* ... and before it, this: the data are the write token's */
    uint8_t     first NL_SESSION;       /* first byte received, once `spoken`: of TLS it is the type of a record */
    bool        spoken NL_SESSION;
    char        refused[100] NL_SESSION; /* the subject of the certificate that did not pass */
    bool        lost NL_SESSION;        /* and then for ever */
    nl_fault    fault NL_SESSION;       /* why, if lost */
};

static void session_lock(nl_tls *tls) NL_ACQUIRE(session_mu) NL_UNCHECKED       { pthread_mutex_lock(&tls->mu); }
static void session_unlock(nl_tls *tls) NL_RELEASE(session_mu) NL_UNCHECKED     { pthread_mutex_unlock(&tls->mu); }

bool nl_have_tls(void)
{
    return true;
}

/* ---- queues of bytes --------------------------------------------------------------------------------------------- */

static bool bytes_append(bytes *b, const void *p, size_t n)
{
    if (b->at == b->end)
        b->at = b->end = 0;
    if (n > b->cap - b->end && b->at > 0) {
        memmove(b->data, b->data + b->at, b->end - b->at);
        b->end -= b->at;
        b->at = 0;
    }
    if (n > b->cap - b->end) {
        size_t cap = b->cap ? b->cap : 4096;
        while (cap - b->end < n)
            cap *= 2;
        uint8_t *data = sys_realloc(b->data, cap);
        if (!data)
            return false;
        b->data = data;
        b->cap = cap;
    }
    memcpy(b->data + b->end, p, n);
    b->end += n;
    return true;
}

static void bytes_free(bytes *b)
{
    sys_free(b->data);
    memset(b, 0, sizeof *b);
}

static void bytes_drop(bytes *b, size_t n)
{
    b->at += n;
    if (b->at == b->end && b->cap > KEEP_BYTES)
        bytes_free(b);
}

/* ---- the BIO between SSL and the queues; always inside a call that holds mu -------------------------------------- */

static int bio_write(BIO *bio, const char *p, size_t n, size_t *done) NL_REQUIRES(session_mu)
{
    nl_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (!bytes_append(&tls->made, p, n))
        return 0;                               /* not a retry: the session is lost */
    *done = n;
    return 1;
}

static int bio_read(BIO *bio, char *p, size_t cap, size_t *got) NL_REQUIRES(session_mu)
{
    nl_tls *tls = BIO_get_data(bio);
    size_t n = tls->received.end - tls->received.at;
    BIO_clear_retry_flags(bio);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    n = n < cap ? n : cap;
    memcpy(p, tls->received.data + tls->received.at, n);
    bytes_drop(&tls->received, n);
    *got = n;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;           /* done by nature; all else is not for us */
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "neolink session");
    if (m && BIO_meth_set_write_ex(m, bio_write) && BIO_meth_set_read_ex(m, bio_read) && BIO_meth_set_ctrl(m, bio_ctrl))
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- reading the files ------------------------------------------------------------------------------------------- */

/* What OpenSSL said last, in its words. */
static const char *last_reason(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text = ERR_GET_LIB(e) == ERR_LIB_SYS ? strerror((int)ERR_GET_REASON(e)) : ERR_reason_error_string(e);
    return e && text ? text : "no reason given";
}

static nl_err out_of_memory(nl_fault *why)
{
    nl_fault_set(why, NL_ENOMEM, 0, "TLS: out of memory");
    return NL_ENOMEM;
}

static nl_err unusable(nl_fault *why, const char *path, const char *what)
{
    nl_fault_set(why, NL_EINVAL, 0, "%s %s", path, what);
    return NL_EINVAL;
}

static nl_err read_fd(int fd, const char *path, bytes *file, nl_fault *why)
{
    uint8_t chunk[4096];
    for (;;) {
        ssize_t n = sys_read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            nl_fault_set(why, NL_ESYS, errno, "cannot read %s: %s", path, strerror(errno));
            return NL_ESYS;
        }
        if (n == 0)
            return NL_OK;
        if (file->end > FILE_MAX)
            return unusable(why, path, "is too large for certificates");
        if (!bytes_append(file, chunk, (size_t)n))
            return out_of_memory(why);
    }
}

/* A whole file as a BIO, over `file`, which the caller frees. OpenSSL could read it by itself, but says less when it
 * cannot. */
static nl_err read_file(const char *path, bytes *file, BIO **bio, nl_fault *why)
{
    int fd = sys_open(path);
    if (fd < 0) {
        nl_fault_set(why, NL_ESYS, errno, "cannot read %s: %s", path, strerror(errno));
        return NL_ESYS;
    }
    nl_err e = read_fd(fd, path, file, why);
    close(fd);
    if (e != NL_OK)
        return e;
    *bio = BIO_new_mem_buf(file->end ? (const void *)file->data : "", (int)file->end);
    return *bio ? NL_OK : out_of_memory(why);
}

/* Did a PEM reader stop because there is no more, rather than at something broken? */
static bool at_end_of_pem(void)
{
    unsigned long e = ERR_peek_last_error();
    return e == 0 || (ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE);
}

/* NL_OK, or why a certificate cannot be used today. */
static nl_err check_dates(X509 *cert, const char *path, nl_fault *why)
{
    const ASN1_TIME *wrong = NULL;
    const char *what = NULL;
    char date[64] = "?";

    if (X509_cmp_current_time(X509_get0_notAfter(cert)) < 0) {
        wrong = X509_get0_notAfter(cert);
        what = "expired on";
    } else if (X509_cmp_current_time(X509_get0_notBefore(cert)) > 0) {
        wrong = X509_get0_notBefore(cert);
        what = "is not valid before";
    }
    if (!wrong)
        return NL_OK;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && ASN1_TIME_print(bio, wrong)) {
        int n = BIO_read(bio, date, sizeof date - 1);
        date[n > 0 ? n : 0] = '\0';
    }
    BIO_free(bio);
    nl_fault_set(why, NL_EINVAL, 0, "%s: the certificate %s %s", path, what, date);
    return NL_EINVAL;
}

/* ---- CA and CRLs ------------------------------------------------------------------------------------------------- */

/* Adds the certificates and CRLs of a file to the store, and counts them. */
static nl_err add_to_store(SSL_CTX *ssl, BIO *bio, const char *path, unsigned *certs, unsigned *crls, nl_fault *why)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    ERR_clear_error();
    STACK_OF(X509_INFO) *all = PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL);
    nl_err e = NL_OK, date = NL_OK;
    unsigned valid = 0;

    if (!all) {
        nl_fault_set(why, NL_EINVAL, 0, "%s is not PEM that can be read: %s", path, last_reason());
        return NL_EINVAL;
    }
    for (int i = 0; e == NL_OK && i < sk_X509_INFO_num(all); i++) {
        X509_INFO *info = sk_X509_INFO_value(all, i);
        if ((info->x509 && !X509_STORE_add_cert(store, info->x509)) ||
            (info->crl && !X509_STORE_add_crl(store, info->crl)))
            e = out_of_memory(why);
        *certs += info->x509 != NULL;
        *crls += info->crl != NULL;
        if (e == NL_OK && info->x509) {
            nl_err one = check_dates(info->x509, path, why);
            valid += one == NL_OK;
            date = one == NL_OK ? date : one;
        }
    }
    sk_X509_INFO_pop_free(all, X509_INFO_free);
    if (e == NL_OK && date != NL_OK && valid == 0)      /* an old CA beside a new one is how CAs are replaced */
        return date;
    return e;
}

static nl_err load_ca(SSL_CTX *ssl, const char *path, unsigned *crls, nl_fault *why)
{
    bytes file = { 0 };
    BIO *bio = NULL;
    unsigned certs = 0;
    nl_err e = read_file(path, &file, &bio, why);

    if (e == NL_OK)
        e = add_to_store(ssl, bio, path, &certs, crls, why);
    if (e == NL_OK && certs == 0)
        e = unusable(why, path, "has no certificate in PEM form: a CA file is needed here");
    BIO_free(bio);
    bytes_free(&file);
    return e;
}

static nl_err load_crl(SSL_CTX *ssl, const char *path, unsigned *crls, nl_fault *why)
{
    bytes file = { 0 };
    BIO *bio = NULL;
    unsigned certs = 0, before = *crls;
    nl_err e = read_file(path, &file, &bio, why);

    if (e == NL_OK)
        e = add_to_store(ssl, bio, path, &certs, crls, why);
    if (e == NL_OK && *crls == before)
        e = unusable(why, path, "has no CRL in PEM form");
    BIO_free(bio);
    bytes_free(&file);
    return e;
}

/* ---- our certificate and key ------------------------------------------------------------------------------------- */

/* The certificate, and behind it those that lead to the CA, if there are any between. */
static nl_err use_chain(SSL_CTX *ssl, BIO *bio, const char *path, nl_fault *why)
{
    X509 *cert;
    unsigned count = 0;
    nl_err e = NL_OK;

    ERR_clear_error();
    while (e == NL_OK && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        long good = count == 0 ? SSL_CTX_use_certificate(ssl, cert) : SSL_CTX_add1_chain_cert(ssl, cert);
        if (!good) {
            nl_fault_set(why, NL_EINVAL, 0, "%s cannot be used: %s", path, last_reason());
            e = NL_EINVAL;
        } else {
            e = check_dates(cert, path, why);
        }
        X509_free(cert);
        count++;
    }
    if (e != NL_OK)
        return e;
    if (!at_end_of_pem()) {
        nl_fault_set(why, NL_EINVAL, 0, "%s is not PEM that can be read: %s", path, last_reason());
        return NL_EINVAL;
    }
    return count ? NL_OK : unusable(why, path, "has no certificate in PEM form");
}

static nl_err load_cert(SSL_CTX *ssl, const char *path, nl_fault *why)
{
    bytes file = { 0 };
    BIO *bio = NULL;
    nl_err e = read_file(path, &file, &bio, why);

    if (e == NL_OK)
        e = use_chain(ssl, bio, path, why);
    BIO_free(bio);
    bytes_free(&file);
    return e;
}

/* There is nobody to ask: a node starts by itself. */
static int no_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static nl_err use_key(SSL_CTX *ssl, BIO *bio, const char *path, const char *cert_path, nl_fault *why)
{
    bool encrypted = false;
    ERR_clear_error();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted);

    if (!key && encrypted)
        return unusable(why, path, "is an encrypted key: give one without a passphrase");
    if (!key)                                   /* the decoders do not tell absent from broken */
        return unusable(why, path, "has no private key that can be read in PEM form");
    nl_err e = NL_OK;
    if (!X509_check_private_key(SSL_CTX_get0_certificate(ssl), key)) {
        nl_fault_set(why, NL_EINVAL, 0, "%s is not the key of the certificate in %s", path, cert_path);
        e = NL_EINVAL;
    } else if (!SSL_CTX_use_PrivateKey(ssl, key)) {
        nl_fault_set(why, NL_EINVAL, 0, "%s cannot be used: %s", path, last_reason());
        e = NL_EINVAL;
    }
    EVP_PKEY_free(key);
    return e;
}

static nl_err load_key(SSL_CTX *ssl, const char *path, const char *cert_path, nl_fault *why)
{
    bytes file = { 0 };
    BIO *bio = NULL;
    nl_err e = read_file(path, &file, &bio, why);

    if (e == NL_OK)
        e = use_key(ssl, bio, path, cert_path, why);
    BIO_free(bio);
    if (file.data)
        OPENSSL_cleanse(file.data, file.cap);
    bytes_free(&file);
    return e;
}

/* ---- the context ------------------------------------------------------------------------------------------------- */

/* NEO's rules. No resumption: a session lives as long as its link, and tickets would be bytes nobody waits for. */
static void set_rules(SSL_CTX *ssl, bool check_crl)
{
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                             SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ssl, 0);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    unsigned long flags = X509_V_FLAG_X509_STRICT | (check_crl ? X509_V_FLAG_CRL_CHECK : 0);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ssl), flags);
}

static nl_err load_all(SSL_CTX *ssl, const char *ca, const char *cert, const char *key, const char *crl, nl_fault *why)
{
    unsigned crls = 0;
    nl_err e = load_ca(ssl, ca, &crls, why);
    if (e == NL_OK && crl)
        e = load_crl(ssl, crl, &crls, why);
    if (e == NL_OK)
        e = load_cert(ssl, cert, why);
    if (e == NL_OK)
        e = load_key(ssl, key, cert, why);
    set_rules(ssl, crls > 0);
    return e;
}

nl_err nl_tls_ctx_new(const char *ca, const char *cert, const char *key, const char *crl, const char *hostname,
                      nl_tls_ctx **out, nl_fault *why)
{
    *out = NULL;
    memset(why, 0, sizeof *why);
    nl_tls_ctx *ctx = sys_calloc(1, sizeof *ctx);
    if (!ctx)
        return out_of_memory(why);
    atomic_init(&ctx->refs, 1);
    ctx->ssl = SSL_CTX_new(TLS_method());
    ctx->method = make_method();
    if (hostname && (ctx->hostname = sys_malloc(strlen(hostname) + 1)))
        memcpy(ctx->hostname, hostname, strlen(hostname) + 1);
    nl_err e = NL_OK;
    if (!ctx->ssl || !ctx->method || (hostname && !ctx->hostname))
        e = out_of_memory(why);
    else
        e = load_all(ctx->ssl, ca, cert, key, crl, why);
    ERR_clear_error();                          /* else others of this thread find there what is not theirs */
    if (e != NL_OK)
        nl_tls_ctx_rele(ctx);
    else
        *out = ctx;
    return e;
}

void nl_tls_ctx_hold(nl_tls_ctx *ctx)
{
    atomic_fetch_add(&ctx->refs, 1);
}

void nl_tls_ctx_rele(nl_tls_ctx *ctx)
{
    if (!ctx || atomic_fetch_sub(&ctx->refs, 1) != 1)
        return;
    SSL_CTX_free(ctx->ssl);
    BIO_meth_free(ctx->method);
    sys_free(ctx->hostname);
    sys_free(ctx);
}

/* ---- why a session was lost -------------------------------------------------------------------------------------- */

/* OpenSSL asks about each certificate of a chain, inside a call that holds mu, and keeps none that does not pass. This
 * only notes its name, as people know it: the verdict stands. */
static int note_refused(int passes, X509_STORE_CTX *store) NL_REQUIRES(session_mu)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    X509 *cert = X509_STORE_CTX_get_current_cert(store);
    if (!passes && ssl && cert) {
        nl_tls *tls = SSL_get_app_data(ssl);
        X509_NAME_oneline(X509_get_subject_name(cert), tls->refused, sizeof tls->refused);
    }
    return passes;
}

static void describe_certificate(const nl_tls *tls, long verdict, nl_fault *why) NL_REQUIRES(session_mu)
{
    nl_fault_set(why, NL_EPROTO, 0, "the peer's certificate %s%sis refused: %s", tls->refused, *tls->refused ? " " : "",
                 X509_verify_cert_error_string(verdict));
}

static void describe_alert(int number, nl_fault *why)
{
    const char *text = SSL_alert_desc_string_long(number);
    if (strcmp(text, "unknown") == 0)           /* its list ends before TLS 1.3, its errors know more */
        text = ERR_reason_error_string(ERR_peek_error());
    nl_fault_set(why, NL_EPROTO, 0, "the peer sent a TLS alert: %s", text ? text : "unknown");
}

/* The first byte of a stream of records is the type of one: 0x14 to 0x17. */
static bool is_plain_peer(const nl_tls *tls) NL_REQUIRES(session_mu)
{
    return tls->spoken && (tls->first < 0x14 || tls->first > 0x17);
}

static void describe_loss(nl_tls *tls, int ssl_error, nl_fault *why) NL_REQUIRES(session_mu)
{
    unsigned long e = ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_SSL ? ERR_peek_error() : ERR_peek_last_error();
    int reason = ERR_GET_REASON(e);
    bool ssl_lib = ERR_GET_LIB(e) == ERR_LIB_SSL;
    long verdict = SSL_get_verify_result(tls->ssl);

    if (ssl_error == SSL_ERROR_SYSCALL && e == 0)
        nl_fault_set(why, NL_ENOMEM, 0, "TLS: out of memory");
    else if (is_plain_peer(tls))
        nl_fault_set(why, NL_EPROTO, 0, "the peer does not speak TLS: its first byte is 0x%02x", tls->first);
    else if (ssl_lib && reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK)
        describe_certificate(tls, verdict, why);
    else if (ssl_lib && reason >= SSL_AD_REASON_OFFSET)
        describe_alert(reason - SSL_AD_REASON_OFFSET, why);
    else if (ssl_lib && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        nl_fault_set(why, NL_EPROTO, 0, "the peer showed no certificate");
    else
        nl_fault_set(why, NL_EPROTO, 0, "TLS: %s", e && ERR_reason_error_string(e) ? ERR_reason_error_string(e)
                                                                                   : "broken session");
}

/* What became of a call that did not simply succeed. Keeps the fault of a lost session. mu held. */
static nl_tls_status judge_locked(nl_tls *tls, int returned) NL_REQUIRES(session_mu)
{
    int ssl_error = SSL_get_error(tls->ssl, returned);
    if (ssl_error == SSL_ERROR_WANT_READ)
        return NL_TLS_OK;
    if (ssl_error == SSL_ERROR_ZERO_RETURN)
        return NL_TLS_CLEAN_END;
    tls->lost = true;
    describe_loss(tls, ssl_error, &tls->fault);
    ERR_clear_error();
    return NL_TLS_BAD;
}

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* A numeric host is looked for among a certificate's addresses, any other among its names. */
static bool expect_name(SSL *ssl, const char *name)
{
    uint8_t address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
    return SSL_set1_host(ssl, name);
}

/* The SSL object with its BIO. False: no memory. */
static bool make_session(nl_tls *tls, nl_role role) NL_UNSHARED
{
    tls->ssl = SSL_new(tls->ctx->ssl);
    BIO *bio = BIO_new(tls->ctx->method);
    if (!tls->ssl || !bio) {
        BIO_free(bio);
        return false;
    }
    SSL_set_app_data(tls->ssl, tls);
    SSL_set_verify(tls->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, note_refused);
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);            /* takes it */
    if (role == NL_SERVER) {
        SSL_set_accept_state(tls->ssl);         /* who dials us has no name we could know */
        return true;
    }
    SSL_set_connect_state(tls->ssl);
    return !tls->ctx->hostname || expect_name(tls->ssl, tls->ctx->hostname);
}

nl_err nl_tls_new(nl_tls_ctx *ctx, nl_role role, nl_tls **out)
{
    *out = NULL;
    nl_tls *tls = sys_calloc(1, sizeof *tls);
    if (!tls)
        return NL_ENOMEM;
    pthread_mutex_init(&tls->mu, NULL);
    nl_tls_ctx_hold(ctx);
    tls->ctx = ctx;
    ERR_clear_error();
    if (!make_session(tls, role)) {
        ERR_clear_error();
        nl_tls_free(tls);
        return NL_ENOMEM;
    }
    *out = tls;
    return NL_OK;
}

void nl_tls_free(nl_tls *tls) NL_UNSHARED
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    bytes_free(&tls->received);
    bytes_free(&tls->made);
    bytes_free(&tls->lent);
    nl_tls_ctx_rele(tls->ctx);
    pthread_mutex_destroy(&tls->mu);
    sys_free(tls);
}

nl_tls_status nl_tls_handshake(nl_tls *tls, bool *done, nl_fault *why)
{
    nl_tls_status status = NL_TLS_OK;

    *done = false;
    session_lock(tls);
    if (!tls->lost) {
        ERR_clear_error();
        int r = SSL_do_handshake(tls->ssl);
        *done = r == 1;
        if (r != 1 && judge_locked(tls, r) == NL_TLS_CLEAN_END) {
            tls->lost = true;                   /* polite, but no session */
            nl_fault_set(&tls->fault, NL_EPROTO, 0, "the peer ended TLS during the handshake");
        }
    }
    if (tls->lost) {
        *why = tls->fault;
        status = NL_TLS_BAD;
    }
    session_unlock(tls);
    return status;
}

nl_err nl_tls_input(nl_tls *tls, const void *cipher, size_t n)
{
    session_lock(tls);
    bool taken = bytes_append(&tls->received, cipher, n);
    if (n > 0 && !tls->spoken) {
        tls->spoken = true;
        tls->first = *(const uint8_t *)cipher;
    }
    session_unlock(tls);
    return taken ? NL_OK : NL_ENOMEM;
}

/* Each key update or renegotiation that the peer asks for is answered, so one who asks and does not read would have us
 * keep answers without bound. */
static bool is_flooded_locked(nl_tls *tls) NL_REQUIRES(session_mu)
{
    size_t unsent = tls->lent.end - tls->lent.at + tls->made.end - tls->made.at;

    if (tls->lost || unsent <= FLOOD_BYTES)
        return false;
    tls->lost = true;
    nl_fault_set(&tls->fault, NL_EPROTO, 0, "flood: the peer keeps asking for TLS key updates or renegotiation, and "
                 "does not read the replies (%zu bytes wait)", unsent);
    return true;
}

/* SSL_read_ex gives one record at most; `cap` may hold several. What stops it is reported once all before it was
 * taken. Where there is nothing behind a record, nothing is asked for: to say so OpenSSL takes longer than for a small
 * record. */
nl_tls_status nl_tls_read(nl_tls *tls, void *plain, size_t cap, size_t *n, nl_fault *why)
{
    nl_tls_status status = NL_TLS_OK;
    size_t got = 0;

    *n = 0;
    session_lock(tls);
    while (!tls->lost && *n < cap) {
        ERR_clear_error();
        int r = SSL_read_ex(tls->ssl, (uint8_t *)plain + *n, cap - *n, &got);
        if (r != 1) {
            status = judge_locked(tls, r);
            break;
        }
        *n += got;
        if (tls->received.at == tls->received.end && !SSL_has_pending(tls->ssl))
            break;
    }
    if (is_flooded_locked(tls))
        bytes_free(&tls->made);                 /* its reader is gone */
    if (*n > 0)
        status = NL_TLS_OK;
    else if (tls->lost)
        status = NL_TLS_BAD;
    if (status == NL_TLS_BAD)
        *why = tls->fault;
    session_unlock(tls);
    return status;
}

nl_err nl_tls_write(nl_tls *tls, const void *plain, size_t n, nl_fault *why)
{
    nl_err e = NL_OK;
    size_t done;

    session_lock(tls);
    if (!tls->lost && n > 0) {
        ERR_clear_error();
        int r = SSL_write_ex(tls->ssl, plain, n, &done);
        if (r != 1 && judge_locked(tls, r) != NL_TLS_BAD) {
            tls->lost = true;                   /* it cannot wait for the peer: there is no renegotiation */
            nl_fault_set(&tls->fault, NL_EPROTO, 0, "TLS: nothing can be written in this state");
        }
    }
    if (tls->lost) {
        *why = tls->fault;
        e = tls->fault.code == NL_ENOMEM ? NL_ENOMEM : NL_EPROTO;
    }
    session_unlock(tls);
    return e;
}

void nl_tls_close_notify(nl_tls *tls)
{
    session_lock(tls);
    if (!tls->lost && SSL_is_init_finished(tls->ssl) && !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN)) {
        ERR_clear_error();
        SSL_shutdown(tls->ssl);
        ERR_clear_error();
    }
    session_unlock(tls);
}

/* ---- ciphertext to send ------------------------------------------------------------------------------------------ */

size_t nl_tls_output(nl_tls *tls, const uint8_t **cipher)
{
    session_lock(tls);
    if (tls->lent.at == tls->lent.end) {
        bytes empty = tls->lent;
        empty.at = empty.end = 0;
        tls->lent = tls->made;
        tls->made = empty;
    }
    size_t n = tls->lent.end - tls->lent.at;
    *cipher = n ? tls->lent.data + tls->lent.at : NULL;
    session_unlock(tls);
    return n;
}

void nl_tls_sent(nl_tls *tls, size_t n)
{
    session_lock(tls);
    bytes_drop(&tls->lent, n);
    session_unlock(tls);
}

bool nl_tls_has_output(nl_tls *tls)
{
    session_lock(tls);
    bool some = tls->lent.at < tls->lent.end || tls->made.at < tls->made.end;
    session_unlock(tls);
    return some;
}

/* The writer looks at nothing that is lent once it is used up. */
void nl_tls_trim(nl_tls *tls)
{
    bytes *queues[] = { &tls->received, &tls->made, &tls->lent };

    session_lock(tls);
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++)
        if (queues[i]->at == queues[i]->end)
            bytes_free(queues[i]);
    session_unlock(tls);
}

/* ---- how the stream ended ---------------------------------------------------------------------------------------- */

bool nl_tls_has_ended(nl_tls *tls)
{
    session_lock(tls);
    bool ended = tls->lost || SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN;
    session_unlock(tls);
    return ended;
}

/* OpenSSL has taken what was received: it keeps a part of a record's head, or has the head and waits for the body. */
bool nl_tls_is_cut(nl_tls *tls)
{
    session_lock(tls);
    bool cut = !tls->lost && !(SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) &&
               (SSL_has_pending(tls->ssl) || strcmp(SSL_rstate_string(tls->ssl), "RB") == 0);
    session_unlock(tls);
    return cut;
}

#else   /* NL_NO_TLS: no ctx can be made, so there is never a session */

bool nl_have_tls(void)
{
    return false;
}

nl_err nl_tls_ctx_new(const char *ca, const char *cert, const char *key, const char *crl, const char *hostname,
                      nl_tls_ctx **out, nl_fault *why)
{
    (void)ca, (void)cert, (void)key, (void)crl, (void)hostname;
    *out = NULL;
    nl_fault_set(why, NL_EINVAL, 0, "this neolink was built without OpenSSL, so it has no TLS: install OpenSSL's "
                 "headers (libssl-dev, openssl-devel) and build neolink again");
    return NL_EINVAL;
}

static nl_tls_status refuse(nl_fault *why)
{
    nl_fault_set(why, NL_EINVAL, 0, "built without OpenSSL");
    return NL_TLS_BAD;
}

nl_err nl_tls_new(nl_tls_ctx *ctx, nl_role role, nl_tls **out)
{
    (void)ctx, (void)role;
    *out = NULL;
    return NL_EINVAL;
}

nl_tls_status nl_tls_handshake(nl_tls *tls, bool *done, nl_fault *why)
{
    (void)tls;
    *done = false;
    return refuse(why);
}

nl_tls_status nl_tls_read(nl_tls *tls, void *plain, size_t cap, size_t *n, nl_fault *why)
{
    (void)tls, (void)plain, (void)cap;
    *n = 0;
    return refuse(why);
}

nl_err nl_tls_write(nl_tls *tls, const void *plain, size_t n, nl_fault *why)
{
    (void)tls, (void)plain, (void)n;
    refuse(why);
    return NL_EPROTO;
}

nl_err nl_tls_input(nl_tls *tls, const void *cipher, size_t n)
{
    (void)tls, (void)cipher, (void)n;
    return NL_EINVAL;
}

void   nl_tls_ctx_hold(nl_tls_ctx *ctx)                     { (void)ctx; }
void   nl_tls_ctx_rele(nl_tls_ctx *ctx)                     { (void)ctx; }
void   nl_tls_free(nl_tls *tls)                             { (void)tls; }
void   nl_tls_close_notify(nl_tls *tls)                     { (void)tls; }
size_t nl_tls_output(nl_tls *tls, const uint8_t **cipher)   { (void)tls; *cipher = NULL; return 0; }
void   nl_tls_sent(nl_tls *tls, size_t n)                   { (void)tls, (void)n; }
bool   nl_tls_has_output(nl_tls *tls)                       { (void)tls; return false; }
void   nl_tls_trim(nl_tls *tls)                             { (void)tls; }
bool   nl_tls_has_ended(nl_tls *tls)                        { (void)tls; return false; }
bool   nl_tls_is_cut(nl_tls *tls)                           { (void)tls; return false; }

#endif
