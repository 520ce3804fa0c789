/* Fails everything once: runs a scenario again and again, and in run n the n-th call of one kind fails with one errno,
 * for every kind, every errno that makes sense for it, and every n until a run ends without having come so far.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each run must end, in success or in an error that the scenario lets pass, and leave nothing behind: allocations,
 * descriptors and threads are counted. A run that does not end is ended by a watchdog. Whatever goes wrong, the line
 * that repeats that one run is printed; it is
 *
 *     NL_FAULT=scenario,call,what,n program        e.g. NL_FAULT=ask,recv,ECONNRESET,3
 *
 * where `what` is an errno, or cut5: the call handles five bytes at most; and n may be "all": every call, not the n-th.
 * NL_FAULT=scenario,call repeats all runs of that kind. FAULTS_ALL=1 leaves nothing out
 * where a program takes samples, FAULTS_FEW=1 takes the first errno of each call and few lengths, for slow builds.
 */
#ifndef NL_TEST_FAULTS_H
#define NL_TEST_FAULTS_H

#include "kit.h"

#include "sys.h"

/* A kind of call that the core does not make itself: an allocation of OpenSSL's. */
#define FAULT_OPENSSL ((unsigned)SC_CALLS)
#define FAULT_KINDS   (SC_CALLS + 1u)
#define FAULT_ONLY(call) (1u << (call))
#define FAULT_ALL     UINT32_MAX

typedef struct fault_scenario {
    const char *name;
    void      (*run)(void);             /* tidies up after itself, behind a fault_none() */
    bool        openssl;                /* OpenSSL's allocations fail, too */
    uint32_t    kinds;                  /* 0: every call fails in it; else FAULT_ONLY() bits, without FAULTS_ALL */
} fault_scenario;

/* The main program. `prepare` and `tidy` may be NULL. */
int  fault_main(const fault_scenario *scenarios, size_t n, void (*prepare)(void), void (*tidy)(void));

/* Is the fault of this run one by which the peer is gone? */
bool fault_breaks_link(void);
void fault_none(void);                  /* nothing fails from here on */
bool fault_hit(void);                   /* it has come to the fault of this run */
/* Did it pass? NL_ENOMEM, NL_ESYS and NL_ELINKDOWN may happen, and what `also` says; nothing of it when the fault is
 * one that has to be got over: a short call, EINTR, EAGAIN. */
bool fault_ok(nl_err e, nl_err also);
/* Until when to wait for what this fault may have lost: without memory a peer is neither accepted nor answered. */
int64_t fault_patience(void);
/* A call interrupted, or out of time because an answer was lost, is no failure. */
nl_err fault_again(nl_err e);

/* For OpenSSL's allocator. 0: let it pass. */
int  fault_openssl(void);
extern atomic_long fault_openssl_live;

#endif
