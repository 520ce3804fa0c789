/* The test words of the house: links married over a socket pair, plain sockets as peers, patience, threads, and a
 * fixture that counts what is left behind.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * No test sleeps to get lucky: it waits until a counter says that the others are where it wants them (wait_until), or
 * it fails. Every wait here has an end, so a hang is a failure with a line number. must() may be used from any thread:
 * on the test's own it fails the test, elsewhere it ends the program, since a test cannot go on without one of its
 * threads.
 */
#ifndef NL_TEST_KIT_H
#define NL_TEST_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "neolink.h"
#include "wire.h"

/* ---- claims ----------------------------------------------------------------------------------------------------- */

#define must(condition)     do { if (!(condition)) kit_fail(__FILE__, __LINE__, "not so: %s", #condition); } while (0)
#define must_be(call, want) kit_must_be(__FILE__, __LINE__, #call, (call), (want))
/* The call, made again for as long as it says NL_EINTR: who reads for others for long is told so, signal or not. */
#define retried(call)       ({ nl_err e_; do e_ = (call); while (e_ == NL_EINTR); e_; })
/* Polls; fails when it is still not so after PATIENCE_MS. */
#define wait_until(condition)                                                                       \
    do {                                                                                            \
        int64_t end_ = in_ms(PATIENCE_MS);                                                          \
        while (!(condition)) {                                                                      \
            if (nl_now_ns() > end_)                                                                 \
                kit_fail(__FILE__, __LINE__, "did not come: %s", #condition);                       \
            kit_pause();                                                                            \
        }                                                                                           \
    } while (0)

#define PATIENCE_MS kit_patience_ms  /* for what must happen, on a slow machine under a sanitizer */
extern int kit_patience_ms;
extern const char *kit_context;     /* NULL, or what a failure shall say besides: how to repeat it */

_Noreturn void kit_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void    kit_must_be(const char *file, int line, const char *call, nl_err got, nl_err want);
void    kit_pause(void);            /* a fraction of a millisecond */
int64_t in_ms(int64_t ms);          /* that deadline */
/* Runs `act` in a child process and returns whether it ended badly, as a claim that does not hold must. */
bool    fails(void (*act)(void *), void *arg);

/* ---- fixture ---------------------------------------------------------------------------------------------------- */

/* Set-up and tear-down of every test: threads, descriptors and cached blocks must be back where they began. */
int kit_enter(void **state);
int kit_leave(void **state);
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_enter, kit_leave)

size_t kit_threads(void);           /* of this process, now */
size_t kit_descriptors(void);

/* ---- messages --------------------------------------------------------------------------------------------------- */

#define ASK    ((uint16_t)0x0020)   /* a request on every wire ... */
#define ANSWER ((uint16_t)0x8020)   /* ... and its answer */
#define ERROR  ((uint16_t)NL_CODE_ERROR)
uint16_t notification(nl_wire wire);
uint16_t push(nl_wire wire);        /* a message that is pushed on the asker's id */

/* A payload of n bytes that the wire takes, and that `seed` decides; free() it. */
uint8_t *payload_new(nl_wire wire, size_t n, unsigned seed);
/* Is it that one? On M an empty payload arrives as the empty array. */
bool     payload_is(nl_wire wire, const nl_packet *p, size_t n, unsigned seed);

/* ---- links ------------------------------------------------------------------------------------------------------ */

typedef struct kind { nl_wire wire; nl_routing routing; } kind;
extern const kind KINDS[6];         /* every wire with every routing */
#define KIND_2016 (KINDS[0])
#define for_each_kind(k) for (const kind *k = KINDS; k < KINDS + 6; k++)

nl_link_config config_of(nl_role role, kind k);

typedef struct pair { nl_link *client, *server; } pair;
typedef struct pair_config { nl_link_config client, server; bool tcp; } pair_config;
pair_config pair_default(kind k);                       /* over a Unix socket pair */
pair pair_of(const pair_config *config);
pair pair_new(kind k);
void pair_free(pair *p);                                /* aborts what is open; byte budgets must come back to zero */

nl_link *link_over(int fd, const nl_link_config *config);
/* Aborts, releases, and waits until nothing of it is queued. */
void     link_free(nl_link *link);
nl_stats stats_of(nl_link *link);
nl_fault fault_of(nl_link *link);                       /* code NL_OK: none */
bool end_was_read(nl_link *link);                       /* and told, unless somebody writes, who then tells it */
nl_conn *conn_new(nl_link *link);
/* The usual ones, with patience; anything but success fails. */
void       send_ok(nl_conn *conn, uint16_t code, const void *payload, size_t len);
nl_packet *recv_ok(nl_conn *conn);
void       recv_is(nl_conn *conn, uint16_t code);       /* and frees it */
nl_conn   *accept_ok(nl_link *link);

/* ---- plain peers ------------------------------------------------------------------------------------------------ */

void sockets_unix(int fd[2]);
void sockets_tcp(int fd[2]);
void sockets_small(int fd[2]);                          /* TCP with small buffers */
/* A link over one end (of the kind's wire, in the role), the other end plain. */
nl_link *link_and_peer(const nl_link_config *config, bool tcp, int *peer);

void   peer_write(int fd, const void *bytes, size_t n);
void   peer_send(int fd, nl_wire wire, uint32_t id, uint16_t code, const void *payload, size_t n);
/* Reads one packet, fails when none comes. The payload's first bytes are kept. */
typedef struct peer_packet { uint32_t id; uint16_t code; size_t len; char payload[256]; } peer_packet;
peer_packet peer_recv(int fd, nl_wire wire);
void   peer_silent(int fd);                             /* nothing is there to read now */
void   peer_eof(int fd);                                /* reads on to the end of the stream */
void   peer_reset(int fd);                              /* closes with a reset */
size_t peer_drain(int fd);                              /* reads to the end; how many bytes came */
bool   peer_says(const peer_packet *p, const char *text);

/* ---- threads ---------------------------------------------------------------------------------------------------- */

typedef struct job {
    pthread_t thread;
    void    (*run)(struct job *);
    nl_link  *link;
    nl_conn  *conn;
    nl_packet *packet;
    void     *arg;
    uint64_t  n;
    int64_t   deadline;
    nl_err    result;
    atomic_int tid;                                     /* once it runs */
    atomic_bool done;
} job;

void job_start(job *j, void (*run)(job *));
void job_join(job *j);                                  /* fails when it does not end */
/* What a job may do; the result goes to j->result. NL_EINTR is retried. */
void job_recv(job *j);              /* -> packet */
void job_accept(job *j);            /* -> conn */
void job_recv1(job *j);             /* -> conn, packet */
void job_ask(job *j);               /* -> packet */
void job_fill(job *j);              /* sends 32 KiB packets on conn until that fails; n of them went */
void job_close(job *j);
void job_echo(job *j);              /* answers every request that comes until the link ends */

#endif
