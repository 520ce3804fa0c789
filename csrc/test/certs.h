/* Certificates made at run time, for tests of TLS: a CA, and what it signs, as PEM files in a folder of their own.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Any failure in here aborts the test program: it would be a fault of the test, not of what is tested.
 */
#ifndef NL_TEST_CERTS_H
#define NL_TEST_CERTS_H

#ifndef NL_NO_TLS

#include <limits.h>
#include <stdbool.h>

#include <openssl/x509v3.h>

#include "neolink.h"

typedef struct identity {
    X509     *cert;
    EVP_PKEY *key;
} identity;

typedef struct cert_request {
    const char *name;       /* common name */
    const char *alt_name;   /* subjectAltName, e.g. "DNS:node,IP:127.0.0.1", or NULL */
    long        from_s;     /* validity, in seconds from now */
    long        until_s;
} cert_request;

/* Signed by `ca`, or by itself as a CA when that is NULL. */
identity identity_new(const identity *ca, const cert_request *request);
void     identity_free(identity *id);

typedef struct folder {
    char path[PATH_MAX];
} folder;

folder      folder_new(void);
void        folder_remove(folder *f);                               /* with all that is in it */
/* The path of a file in it; good until the 16th call from here on. */
const char *folder_file(const folder *f, const char *name);

void pem_certificate(const char *path, X509 *cert);
void pem_append_certificate(const char *path, X509 *cert);
void pem_key(const char *path, EVP_PKEY *key, const char *passphrase);  /* NULL: plain */
/* A CRL of `ca` that revokes `revoked` (NULL: nobody); `append`: behind what is there. */
void pem_crl(const char *path, const identity *ca, X509 *revoked, bool append);
void pem_text(const char *path, const char *text);

nl_tls_ctx *tls_ctx_new(void);      /* of a node of a new CA, which it trusts: for both ends */

#endif
#endif
