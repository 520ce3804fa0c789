/* Which lock guards what, in words that a compiler checks: clang's thread-safety analysis (make -C csrc thread-safety).
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The capability of a field is a lock *class*, as in a lock checker of a kernel: "the mutex of a link", not "the mutex
 * of this link". It is declared once, extern, and never defined, for nothing but these attributes names it. Two
 * reasons. In C a field's attribute cannot name another field of its struct; and what a link's mutex guards lies in
 * structs that have no mutex (a Conn, a waiter, nl_rx), where the analysis could not tell that conn->link is the link
 * that was locked. What this gives up: a field of one link used under the mutex of another is not seen. No thread holds
 * two of a class at once, so that would take an unlocked use beside it, too.
 *
 * pthread_mutex_lock() is not annotated, so it acquires nothing: each kind of lock has a pair of functions of its own
 * that says what it takes. A token (link.h) is a class as well; it is taken under the mutex and used without it.
 *
 * The analysis does not follow pointers: a guarded struct whose address is passed on (a list, the id table, a queue) is
 * guarded only where it is named.
 */
#ifndef NL_GUARDED_H
#define NL_GUARDED_H

#ifdef __clang__
#define NL_CHECKED(...) __attribute__((__VA_ARGS__))
#else
#define NL_CHECKED(...)
#endif

typedef struct NL_CHECKED(capability("lock")) nl_lock_class { char none; } nl_lock_class;

#define NL_GUARDED_BY(c)    NL_CHECKED(guarded_by(c))                   /* a field or variable: used with c held */
#define NL_REQUIRES(...)    NL_CHECKED(requires_capability(__VA_ARGS__))        /* a function: called with them held */
#define NL_EXCLUDES(...)    NL_CHECKED(locks_excluded(__VA_ARGS__))     /* ... called without */
#define NL_ACQUIRE(...)     NL_CHECKED(acquire_capability(__VA_ARGS__)) /* ... returns with them held */
#define NL_TRY_ACQUIRE(...) NL_CHECKED(try_acquire_capability(true, __VA_ARGS__))       /* ... if it returns true */
#define NL_RELEASE(...)     NL_CHECKED(release_capability(__VA_ARGS__)) /* ... returns with them given back */
#define NL_ASSUME(...)      NL_CHECKED(assert_capability(__VA_ARGS__))  /* ... held after it, the caller knows */
#define NL_UNSHARED         NL_CHECKED(no_thread_safety_analysis)       /* ... on an object that nobody else has */
#define NL_UNCHECKED        NL_CHECKED(no_thread_safety_analysis)       /* ... beyond the analysis: see there */

#endif
