/* Certificates made at run time: see certs.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * They carry the extensions that strict X.509 checks ask for: key identifiers everywhere, and the basic constraints and
 * key usage of a CA.
 */
#ifndef NL_NO_TLS

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/pem.h>

#include "certs.h"

#define MUST(what) ((what) ? (void)0 : must_failed(#what))

static void must_failed(const char *what)
{
    fprintf(stderr, "making certificates: %s failed\n", what);
    abort();
}

/* ---- identities -------------------------------------------------------------------------------------------------- */

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    MUST(extension);
    MUST(X509_add_ext(cert, extension, -1));
    X509_EXTENSION_free(extension);
}

identity identity_new(const identity *ca, const cert_request *request)
{
    static long serial = 1;
    identity id = { X509_new(), EVP_EC_gen("P-256") };
    MUST(id.cert && id.key);
    X509 *issuer = ca ? ca->cert : id.cert;

    MUST(X509_set_version(id.cert, X509_VERSION_3));
    MUST(ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++));
    MUST(X509_gmtime_adj(X509_getm_notBefore(id.cert), request->from_s));
    MUST(X509_gmtime_adj(X509_getm_notAfter(id.cert), request->until_s));
    MUST(X509_NAME_add_entry_by_txt(X509_get_subject_name(id.cert), "CN", MBSTRING_ASC,
                                    (const unsigned char *)request->name, -1, -1, 0));
    MUST(X509_set_issuer_name(id.cert, X509_get_subject_name(issuer)));
    MUST(X509_set_pubkey(id.cert, id.key));
    extend(id.cert, issuer, NID_subject_key_identifier, "hash");
    extend(id.cert, issuer, NID_authority_key_identifier, "keyid:always");
    extend(id.cert, issuer, NID_basic_constraints, ca ? "critical,CA:FALSE" : "critical,CA:TRUE");
    extend(id.cert, issuer, NID_key_usage, ca ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign");
    if (request->alt_name)
        extend(id.cert, issuer, NID_subject_alt_name, request->alt_name);
    MUST(X509_sign(id.cert, ca ? ca->key : id.key, EVP_sha256()));
    return id;
}

void identity_free(identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

folder folder_new(void)
{
    const char *base = getenv("TMPDIR");
    folder f;
    MUST(snprintf(f.path, sizeof f.path, "%s/neolink-XXXXXX", base ? base : "/tmp") < (int)sizeof f.path);
    MUST(mkdtemp(f.path));
    return f;
}

const char *folder_file(const folder *f, const char *name)
{
    static char paths[16][PATH_MAX];
    static unsigned turn;
    char *path = paths[turn++ % 16];
    MUST(snprintf(path, sizeof paths[0], "%s/%s", f->path, name) < (int)sizeof paths[0]);
    return path;
}

void folder_remove(folder *f)
{
    DIR *dir = opendir(f->path);
    struct dirent *entry;
    MUST(dir);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] != '.')
            unlink(folder_file(f, entry->d_name));
    }
    closedir(dir);
    MUST(rmdir(f->path) == 0);
}

static FILE *open_file(const char *path, const char *mode)
{
    FILE *file = fopen(path, mode);
    MUST(file);
    return file;
}

void pem_certificate(const char *path, X509 *cert)
{
    FILE *file = open_file(path, "w");
    MUST(PEM_write_X509(file, cert));
    fclose(file);
}

void pem_append_certificate(const char *path, X509 *cert)
{
    FILE *file = open_file(path, "a");
    MUST(PEM_write_X509(file, cert));
    fclose(file);
}

void pem_key(const char *path, EVP_PKEY *key, const char *passphrase)
{
    FILE *file = open_file(path, "w");
    MUST(PEM_write_PKCS8PrivateKey(file, key, passphrase ? EVP_aes_128_cbc() : NULL, passphrase,
                                   passphrase ? (int)strlen(passphrase) : 0, NULL, NULL));
    fclose(file);
}

static void add_revoked(X509_CRL *crl, X509 *cert)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
    MUST(entry && now);
    MUST(X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(cert)));
    MUST(X509_REVOKED_set_revocationDate(entry, now));
    MUST(X509_CRL_add0_revoked(crl, entry));
    ASN1_TIME_free(now);
}

static void extend_crl(X509_CRL *crl, X509 *issuer)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, NULL, NULL, crl, 0);
    X509_EXTENSION *key = X509V3_EXT_conf_nid(NULL, &context, NID_authority_key_identifier, "keyid:always");
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    MUST(key && number && ASN1_INTEGER_set(number, 1));
    MUST(X509_CRL_add_ext(crl, key, -1));
    MUST(X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0));
    X509_EXTENSION_free(key);
    ASN1_INTEGER_free(number);
}

void pem_crl(const char *path, const identity *ca, X509 *revoked, bool append)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = X509_gmtime_adj(NULL, -60), *until = X509_gmtime_adj(NULL, 3600);
    MUST(crl && from && until);
    MUST(X509_CRL_set_version(crl, X509_CRL_VERSION_2));
    MUST(X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert)));
    MUST(X509_CRL_set1_lastUpdate(crl, from));
    MUST(X509_CRL_set1_nextUpdate(crl, until));
    extend_crl(crl, ca->cert);
    if (revoked)
        add_revoked(crl, revoked);
    MUST(X509_CRL_sort(crl));
    MUST(X509_CRL_sign(crl, ca->key, EVP_sha256()));
    FILE *file = open_file(path, append ? "a" : "w");
    MUST(PEM_write_X509_CRL(file, crl));
    fclose(file);
    X509_CRL_free(crl);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
}

void pem_text(const char *path, const char *text)
{
    FILE *file = open_file(path, "w");
    MUST(fputs(text, file) >= 0);
    fclose(file);
}

/* ---- for tests of something else --------------------------------------------------------------------------------- */

nl_tls_ctx *tls_ctx_new(void)
{
    identity ca = identity_new(NULL, &(cert_request){ "CA", NULL, -60, 3600 });
    identity node = identity_new(&ca, &(cert_request){ "node", NULL, -60, 3600 });
    folder f = folder_new();
    nl_tls_ctx *ctx;
    nl_fault why;

    pem_certificate(folder_file(&f, "ca"), ca.cert);
    pem_certificate(folder_file(&f, "crt"), node.cert);
    pem_key(folder_file(&f, "key"), node.key, NULL);
    MUST(nl_tls_ctx_new(folder_file(&f, "ca"), folder_file(&f, "crt"), folder_file(&f, "key"), NULL, NULL, &ctx,
                        &why) == NL_OK);
    folder_remove(&f);
    identity_free(&node);
    identity_free(&ca);
    return ctx;
}

#else
typedef int certs_need_openssl;     /* a translation unit must not be empty */
#endif
