/* TLS as NEO does it, over memory: ciphertext in, plaintext out, and back. No socket and no waiting in here.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One nl_tls belongs to one stream. OpenSSL's object is not safe for a reader and a writer at once, so every call takes
 * the session's own mutex for the arithmetic only. Ciphertext leaves in the order it was made: whoever holds the link's
 * write token is the only one that takes it out with nl_tls_output. When reading made ciphertext too (alerts, key
 * updates, handshake), nl_tls_has_output() says so, and the reader gets the writer going.
 * Lock order: link.mu, then tls.mu; a leaf.
 */
#ifndef NL_TLS_H
#define NL_TLS_H

#include "neolink.h"

typedef struct nl_tls nl_tls;

/* role NL_CLIENT dials. */
nl_err nl_tls_new(nl_tls_ctx *ctx, nl_role role, nl_tls **out);
void   nl_tls_free(nl_tls *tls);

typedef enum nl_tls_status {
    NL_TLS_OK,              /* made progress, or nothing to do */
    NL_TLS_CLEAN_END,       /* the peer sent close_notify: plaintext before it was delivered */
    NL_TLS_BAD              /* the session is lost: the fault has the reason; output may hold an alert to send */
} nl_tls_status;

/* Advances the handshake with what nl_tls_input has given. */
nl_tls_status nl_tls_handshake(nl_tls *tls, bool *done, nl_fault *why);
/* Gives received ciphertext; takes all of it or returns NL_ENOMEM. */
nl_err nl_tls_input(nl_tls *tls, const void *cipher, size_t n);
/* Decrypts up to cap bytes; *n is 0 when more ciphertext is needed. */
nl_tls_status nl_tls_read(nl_tls *tls, void *plain, size_t cap, size_t *n, nl_fault *why);
/* Encrypts all n bytes into the output. NL_ENOMEM, or NL_EPROTO after the session was lost. */
nl_err nl_tls_write(nl_tls *tls, const void *plain, size_t n, nl_fault *why);
/* Queues our close_notify. */
void   nl_tls_close_notify(nl_tls *tls);
/* Borrow ciphertext to send; nl_tls_sent() takes n bytes off it. Valid until the next call of nl_tls_sent by the write
 * token's holder: calls of others in between only append. */
size_t nl_tls_output(nl_tls *tls, const uint8_t **cipher);
void   nl_tls_sent(nl_tls *tls, size_t n);
bool   nl_tls_has_output(nl_tls *tls);
/* Frees the memory of what is empty: for a session that is idle. It is got again when it is needed. */
void   nl_tls_trim(nl_tls *tls);
/* Has the session ended, by the peer's close_notify or because it is lost? All before that has been read. */
bool   nl_tls_has_ended(nl_tls *tls);
/* The stream has ended: was that inside a record? */
bool   nl_tls_is_cut(nl_tls *tls);

#endif
