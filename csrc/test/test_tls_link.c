/* Tests of links over TLS: many threads on one session, ends at any moment, and a peer of OpenSSL's own that changes
 * keys and asks for renegotiation while packets run. Most of it is here for the thread sanitizer.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "link.h"

#include "kit.h"

#include "tls.h"

#ifndef NL_NO_TLS

#include <malloc.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "certs.h"

static const nl_role ROLES[] = { NL_CLIENT, NL_SERVER };

#define HOUR  3600L
#define LARGE 40000u        /* more than two records */

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static folder      files;
static identity    ca, node, stranger;
static nl_tls_ctx *node_ctx, *stranger_ctx;

static nl_tls_ctx *ctx_of(const identity *id)
{
    nl_tls_ctx *ctx;
    nl_fault why;

    pem_certificate(folder_file(&files, "crt"), id->cert);
    pem_key(folder_file(&files, "key"), id->key, NULL);
    if (nl_tls_ctx_new(folder_file(&files, "ca"), folder_file(&files, "crt"), folder_file(&files, "key"), NULL, NULL,
                       &ctx, &why) != NL_OK)
        fail_msg("%s", why.text);
    return ctx;
}

static int set_up(void **state)
{
    identity other;

    (void)state;
    files = folder_new();
    ca = identity_new(NULL, &(cert_request){ "test CA", NULL, -HOUR, HOUR });
    other = identity_new(NULL, &(cert_request){ "other CA", NULL, -HOUR, HOUR });
    node = identity_new(&ca, &(cert_request){ "node", NULL, -HOUR, HOUR });
    stranger = identity_new(&other, &(cert_request){ "stranger", NULL, -HOUR, HOUR });
    identity_free(&other);
    pem_certificate(folder_file(&files, "ca"), ca.cert);
    node_ctx = ctx_of(&node);
    stranger_ctx = ctx_of(&stranger);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    nl_tls_ctx_rele(node_ctx);
    nl_tls_ctx_rele(stranger_ctx);
    identity_free(&ca);
    identity_free(&node);
    identity_free(&stranger);
    folder_remove(&files);
    return 0;
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

static nl_link_config tls_config(nl_role role, kind k, nl_tls_ctx *ctx)
{
    nl_link_config config = config_of(role, k);

    config.tls = ctx;
    return config;
}

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

/* The handshake takes both ends at once, so the server's is made by a thread. */
static pair tls_pair(kind k)
{
    maker m = { .config = tls_config(NL_SERVER, k, node_ctx) };
    nl_link_config client = tls_config(NL_CLIENT, k, node_ctx);
    int fd[2];
    pair p;

    sockets_tcp(fd);
    m.fd = fd[1];
    m.job.arg = &m;
    job_start(&m.job, job_make);
    p.client = link_over(fd[0], &client);
    job_join(&m.job);
    p.server = m.job.link;
    return p;
}

/* Asks until the link ends, or as often as `arg` says; j->n answers came, each to its question. */
static void job_ask_on(job *j)
{
    const unsigned *count = j->arg;
    nl_wire wire = nl_link_wire(j->link);

    for (unsigned i = 0; !count || i < *count; i++) {
        size_t size = i * 977 % LARGE;
        uint8_t *payload = payload_new(wire, size, i);
        nl_packet *answer;
        nl_ask ask;

        j->result = nl_ask_begin(j->link, &ask, ASK, payload, size, NL_FOREVER, NULL);
        free(payload);
        if (j->result != NL_OK)
            return;
        do
            j->result = retried(nl_ask_wait(&ask, NL_FOREVER, &answer));
        while (j->result == NL_EINTR);
        nl_ask_end(&ask);
        if (j->result != NL_OK)
            return;
        must(answer->code == ANSWER && payload_is(wire, answer, size, i));
        nl_packet_free(answer);
        j->n++;
    }
}

static void job_notify_on(job *j)
{
    nl_wire wire = nl_link_wire(j->link);
    uint8_t *payload = payload_new(wire, LARGE, 1);

    for (;; j->n++)
        if ((j->result = nl_link_notify(j->link, notification(wire), payload, j->n * 977 % 3 ? LARGE : 0, NL_FOREVER,
                                        NULL)) != NL_OK && j->result != NL_EINTR)
            break;
    free(payload);
}

/* The core's own ends, and none that the session made up. */
static bool is_end(nl_err e) { return e == NL_ELINKCLOSED || e == NL_ELINKDOWN; }

/* Eight threads ask, notify and take on either end of one link; after so many packets one of them ends it so. */
static void end_amid_traffic(kind k, unsigned packets, void (*end)(job *), bool at_server)
{
    pair p = tls_pair(k);
    job jobs[8], closer = { 0 };

    for (unsigned i = 0; i < 8; i++) {
        jobs[i] = (job){ .link = i < 5 ? p.client : p.server };
        job_start(&jobs[i], i < 4 ? job_ask_on : i < 5 ? job_notify_on : job_echo);
    }
    wait_until(stats_of(p.client).packets_received >= packets);
    closer.link = at_server ? p.server : p.client;
    job_start(&closer, end);
    job_join(&closer);
    for (unsigned i = 0; i < 8; i++) {
        job_join(&jobs[i]);
        must(is_end(jobs[i].result));
    }
    pair_free(&p);
}

static void job_abort(job *j) { nl_link_abort(j->link); }

/* To be had: that a thread reads, others write, and one ends it, whenever. */
static void test_ends_amid_traffic(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 24; round++)
        end_amid_traffic(KINDS[round % 6], round * 17 % 150, round % 3 ? job_close : job_abort, round / 2 % 2);
}

/* Both ends write as much as the sockets and budgets hold, and only then does anybody read. */
static void test_full_both_ways(void **state)
{
    pair p = tls_pair(KIND_2016);
    nl_conn *c = conn_new(p.client), *s;
    job fills[2];

    (void)state;
    send_ok(c, ASK, NULL, 0);
    s = accept_ok(p.server);
    recv_is(s, ASK);
    for (int i = 0; i < 2; i++) {
        fills[i] = (job){ .conn = i ? s : c, .deadline = in_ms(300) };
        job_start(&fills[i], job_fill);
    }
    for (int i = 0; i < 2; i++) {
        job_join(&fills[i]);
        must_be(fills[i].result, NL_ETIMEOUT);
        must(fills[i].n > 100);
    }
    for (int i = 0; i < 2; i++)
        while (fills[1 - i].n--)
            nl_packet_free(recv_ok(i ? s : c));
    must(nl_link_is_closed(p.client) == false && nl_link_is_closed(p.server) == false);
    nl_conn_rele(c);
    nl_conn_rele(s);
    pair_free(&p);
}

#define GIANT ((size_t)24 << 20)        /* more than the sockets and the budget hold */

static void job_send_giant(job *j)
{
    uint8_t *bytes = payload_new(NL_WIRE_2016, GIANT, 7);

    j->result = nl_conn_send(j->conn, ASK, bytes, GIANT, j->deadline, NULL);
    free(bytes);
}

/* The sender of a packet that no buffer holds stays with it, record by record. */
static void test_giant(void **state)
{
    pair p = tls_pair(KIND_2016);
    job sender = { .conn = conn_new(p.client) }, reader = { .link = p.server };

    (void)state;
    job_start(&sender, job_send_giant);
    wait_until(stats_of(p.client).bytes_sent > 0);      /* a first part, with nobody to read it */
    job_start(&reader, job_recv1);
    job_join(&reader);
    job_join(&sender);
    must_be(sender.result, NL_OK);
    must_be(reader.result, NL_OK);
    must(payload_is(NL_WIRE_2016, reader.packet, GIANT, 7));
    nl_packet_free(reader.packet);
    nl_conn_rele(sender.conn);
    nl_conn_rele(reader.conn);
    pair_free(&p);
}

/* ---- idle -------------------------------------------------------------------------------------------------------- */

/* So many bytes are allocated now; 0 where the allocator does not tell. */
static size_t allocated(void) { return mallinfo2().uordblks; }

static bool is_idle(nl_link *link)
{
    bool idle;

    nl_link_lock(link);
    idle = !link->rx.sweeping && !link->rx.block;
    nl_link_unlock(link);
    return idle;
}

/* A packet there and one back, all read by the poller. */
static void swap_packets(pair p, size_t size)
{
    uint64_t there = stats_of(p.server).packets_received, back = stats_of(p.client).packets_received;
    uint8_t *payload = payload_new(NL_WIRE_2016, size, 1);
    nl_conn *c = conn_new(p.client), *s;

    send_ok(c, ASK, payload, size);
    wait_until(stats_of(p.server).packets_received > there);
    s = accept_ok(p.server);
    recv_is(s, ASK);
    send_ok(s, ANSWER, payload, size);
    wait_until(stats_of(p.client).packets_received > back);
    recv_is(c, ANSWER);
    nl_conn_rele(c);
    nl_conn_rele(s);
    free(payload);
    wait_until(is_idle(p.client) && is_idle(p.server));
}

/* What large packets needed while they were ciphertext, 64 KiB two times at either end, is given back when the link is
 * idle after it was read: so the last one is small, and sees to what was made since. */
static void test_idle_link_keeps_no_ciphertext(void **state)
{
    pair p = tls_pair(KIND_2016);
    size_t before;

    (void)state;
    for (int i = 0; i < 3; i++)
        swap_packets(p, 100);
    before = allocated();
    for (int i = 0; i < 3; i++)
        swap_packets(p, LARGE);
    swap_packets(p, 100);
    wait_until(allocated() < before + 50000);       /* caches of the process apart */
    pair_free(&p);
}

/* ---- a peer of OpenSSL's ----------------------------------------------------------------------------------------- */

typedef struct foreign {
    job      job;
    SSL_CTX *ctx;
    SSL     *ssl;
    unsigned keys;          /* echo(): changes keys so often */
    unsigned seen;
} foreign;

/* A call of OpenSSL's that reads, made again if a signal interrupted it: Linux does that to reads which have a timeout
 * also when a stopped process goes on, a handler or none. */
#define ssl_retried(f, call)    ({ int r_; do { errno = 0; r_ = (call); } while (ssl_interrupted(f, r_)); r_; })

static bool ssl_interrupted(const foreign *f, int result)
{
    return result != 1 && errno == EINTR && SSL_get_error(f->ssl, result) == SSL_ERROR_WANT_READ;
}

static void job_shake(job *j)
{
    foreign *f = j->arg;

    j->n = ssl_retried(f, SSL_do_handshake(f->ssl)) == 1;
}

static void foreign_begin(foreign *f, int fd, nl_role role, int version)
{
    struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    f->ctx = SSL_CTX_new(TLS_method());
    must(f->ctx && SSL_CTX_use_certificate(f->ctx, node.cert) && SSL_CTX_use_PrivateKey(f->ctx, node.key));
    SSL_CTX_set_min_proto_version(f->ctx, version);
    SSL_CTX_set_max_proto_version(f->ctx, version);
    must(SSL_CTX_load_verify_locations(f->ctx, folder_file(&files, "ca"), NULL));
    SSL_CTX_set_verify(f->ctx, SSL_VERIFY_PEER, NULL);
    f->ssl = SSL_new(f->ctx);
    must(f->ssl && SSL_set_fd(f->ssl, fd));
    role == NL_CLIENT ? SSL_set_connect_state(f->ssl) : SSL_set_accept_state(f->ssl);
    f->job.arg = f;
    job_start(&f->job, job_shake);
}

/* A link of wire 2016 and a foreign peer in the other role. */
static nl_link *link_and_foreign_over(const int fd[2], foreign *f, nl_role peer_role, int version)
{
    nl_link_config config = tls_config(peer_role == NL_CLIENT ? NL_SERVER : NL_CLIENT, KIND_2016, node_ctx);
    nl_link *link;

    memset(f, 0, sizeof *f);
    foreign_begin(f, fd[1], peer_role, version);
    link = link_over(fd[0], &config);
    job_join(&f->job);
    must(f->job.n == 1);
    return link;
}

static nl_link *link_and_foreign(foreign *f, nl_role peer_role, int version)
{
    int fd[2];

    sockets_tcp(fd);
    return link_and_foreign_over(fd, f, peer_role, version);
}

static void foreign_end(foreign *f)
{
    int fd = SSL_get_fd(f->ssl);

    SSL_free(f->ssl);
    SSL_CTX_free(f->ctx);
    close(fd);
    ERR_clear_error();
}

static bool foreign_read(foreign *f, uint8_t *p, size_t n)
{
    for (size_t got; n; p += got, n -= got)
        if (ssl_retried(f, SSL_read_ex(f->ssl, p, n, &got)) != 1)
            return false;
    return true;
}

/* Returns every packet as an answer, and asks for new keys of both sides now and then. */
static void job_foreign_echo(job *j)
{
    static uint8_t packet[LARGE + 10];
    foreign *f = j->arg;

    while (foreign_read(f, packet, 10)) {
        size_t size = (size_t)packet[6] << 24 | (size_t)packet[7] << 16 | (size_t)packet[8] << 8 | packet[9], done;
        must(size <= sizeof packet && foreign_read(f, packet + 10, size - 10));
        packet[4] |= 0x80;
        must(SSL_write_ex(f->ssl, packet, size, &done) == 1);
        if (f->keys && f->seen++ % f->keys == 0)
            must(SSL_key_update(f->ssl, SSL_KEY_UPDATE_REQUESTED));
    }
    must(SSL_get_shutdown(f->ssl) & SSL_RECEIVED_SHUTDOWN);     /* our close says so */
}

static void asks_with_foreign(int version, nl_role role, unsigned keys)
{
    foreign f;
    nl_link *link = link_and_foreign(&f, role, version);
    unsigned count = 100;
    job asks[4];

    f.keys = keys;
    job_start(&f.job, job_foreign_echo);
    for (int i = 0; i < 4; i++) {
        asks[i] = (job){ .link = link, .arg = &count };
        job_start(&asks[i], job_ask_on);
    }
    for (int i = 0; i < 4; i++) {
        job_join(&asks[i]);
        must_be(asks[i].result, NL_OK);
        must(asks[i].n == count);
    }
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
    job_join(&f.job);
    must(!keys || f.seen / keys > 50);
    foreign_end(&f);
    link_free(link);
}

static void test_both_versions(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++)
        for (int i = 0; i < 2; i++)
            asks_with_foreign(version, ROLES[i], 0);
}

/* S57 */
static void test_key_updates_amid_traffic(void **state)
{
    (void)state;
    asks_with_foreign(TLS1_3_VERSION, NL_CLIENT, 7);
    asks_with_foreign(TLS1_3_VERSION, NL_SERVER, 7);
}

/* Refused at once, although the link has nothing to say and nobody waits on it. To OpenSSL's taste that is fatal. */
static void test_renegotiation_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        foreign f;
        nl_link *link = link_and_foreign(&f, ROLES[i], TLS1_2_VERSION);
        uint8_t byte;
        size_t got;

        must(SSL_renegotiate(f.ssl));
        if (ROLES[i] == NL_SERVER)
            must(SSL_do_handshake(f.ssl) == 1);         /* the request is on its way */
        must(ssl_retried(&f, SSL_read_ex(f.ssl, &byte, 1, &got)) != 1);
        must(ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_NO_RENEGOTIATION);
        foreign_end(&f);
        wait_until(fault_of(link).code);
        must(strstr(fault_of(link).text, "the peer sent a TLS alert: handshake failure"));
        link_free(link);
    }
}

/* A peer that asks for one key update after the other and never reads what is replied: the link ends and says why. */
static void test_flood_of_key_updates(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        int small = 4096, fd[2];
        foreign f;
        nl_link *link;

        sockets_unix(fd);       /* TCP whose window is shut for long may end by its keepalive first */
        link = link_and_foreign_over(fd, &f, ROLES[i], TLS1_3_VERSION);
        must(setsockopt(nl_link_fd(link), SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
        for (int asked = 0; !fault_of(link).code; asked++) {
            must(asked < 200000);               /* each is replied with some twenty bytes */
            if (!SSL_key_update(f.ssl, SSL_KEY_UPDATE_REQUESTED) || SSL_do_handshake(f.ssl) != 1)
                wait_until(fault_of(link).code);
        }
        must(strstr(fault_of(link).text, "flood: the peer keeps asking for TLS key updates"));
        ERR_clear_error();
        foreign_end(&f);
        link_free(link);
    }
}

/* In TLS 1.3 a dialer is done before the listener has looked at its certificate: the link learns of it as a link. */
static void test_alert_after_the_handshake(void **state)
{
    nl_link_config config = tls_config(NL_CLIENT, KIND_2016, stranger_ctx);
    foreign f = { 0 };
    nl_link *link;
    int fd[2];

    (void)state;
    sockets_tcp(fd);
    foreign_begin(&f, fd[1], NL_SERVER, TLS1_3_VERSION);
    link = link_over(fd[0], &config);
    job_join(&f.job);
    must(f.job.n == 0);
    wait_until(fault_of(link).code);
    must_be(fault_of(link).code, NL_EPROTO);
    must(strstr(fault_of(link).text, "the peer sent a TLS alert: unknown CA"));
    foreign_end(&f);
    link_free(link);
}

/* ---- peers that never come to a session -------------------------------------------------------------------------- */

/* What nl_link_new says of a peer that has done `act` to its socket. */
static void takeover_fails(nl_role role, void (*act)(int fd), int64_t deadline_ns, nl_err err, const char *words)
{
    nl_link_config config = tls_config(role, KIND_2016, node_ctx);
    nl_link *link;
    nl_fault why;
    int fd[2];

    sockets_tcp(fd);
    act(fd[1]);
    must_be(nl_link_new(fd[0], &config, deadline_ns, &link, &why), err);
    must_be(why.code, err);
    if (!strstr(why.text, words))
        fail_msg("\"%s\" should say \"%s\"", why.text, words);
    close(fd[0]);
    close(fd[1]);
}

static void act_silent(int fd)  { (void)fd; }
static void act_end(int fd)     { shutdown(fd, SHUT_WR); }
static void act_plain(int fd)   { peer_write(fd, "GET / HTTP/1.0\r\n\r\n", 18); }
static void act_crumb(int fd)   { peer_write(fd, "\x16\x03", 2); }

static void act_reset(int fd)
{
    struct sockaddr none = { .sa_family = AF_UNSPEC };

    must(connect(fd, &none, sizeof none) == 0);         /* of a connected socket that is a reset, and fd stays ours */
}

static void test_takeover_of_strangers(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        takeover_fails(ROLES[i], act_silent, NL_NOW, NL_ETIMEOUT, "did not end in time");
        takeover_fails(ROLES[i], act_crumb, in_ms(20), NL_ETIMEOUT, "did not end in time");
        takeover_fails(ROLES[i], act_end, NL_FOREVER, NL_EHANDSHAKE, "closed the socket");
        takeover_fails(ROLES[i], act_plain, NL_FOREVER, NL_EHANDSHAKE, "does not speak TLS: its first byte is 0x47");
    }
    /* A client meets it as it sends. */
    takeover_fails(NL_SERVER, act_reset, NL_FOREVER, NL_ESYS, "the socket failed");
}

/* A session that is cut is told from one that was ended, inside a record as well. */
static void test_cut_in_the_middle_of_a_record(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        foreign f;
        nl_link *link = link_and_foreign(&f, NL_CLIENT, version);

        peer_write(SSL_get_fd(f.ssl), "\x17\x03\x03\x01\x00 not all of it", 19);
        shutdown(SSL_get_fd(f.ssl), SHUT_WR);
        wait_until(fault_of(link).code);
        must_be(fault_of(link).code, NL_ELINKDOWN);
        must(strstr(fault_of(link).text, "in the middle of a TLS record (truncated TLS)"));
        must(!fault_of(link).clean);
        foreign_end(&f);
        link_free(link);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ends_amid_traffic), TEST(test_full_both_ways), TEST(test_giant),
        TEST(test_idle_link_keeps_no_ciphertext), TEST(test_both_versions),
        TEST(test_key_updates_amid_traffic), TEST(test_renegotiation_is_refused), TEST(test_alert_after_the_handshake),
        TEST(test_flood_of_key_updates),
        TEST(test_takeover_of_strangers), TEST(test_cut_in_the_middle_of_a_record),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}

#else   /* NL_NO_TLS */

int main(void) { return 0; }

#endif
