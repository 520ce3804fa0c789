/* A library to preload, which counts what a program does outside itself: system calls, locks, allocations, copies.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each function here stands in front of libc's function of the same name, counts, and goes on to it. At the end of the
 * program the counts go to the file that $BENCH_COUNTS names, a line of a name and a number each. where.py runs a
 * contender twice, with different numbers of operations, and takes the difference: what set-up costs falls out.
 *
 * What the compiler puts in line is not counted: a copy of few bytes, mostly. Python is run with PYTHONMALLOC=malloc,
 * so that an object that does not come from one of its free lists is an allocation here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SEND, RECV, WAIT, FUTEX, OTHER, LOCK, ALLOC, COPY, COPIED, KINDS };

static const char *const names[KINDS] = { "send", "recv", "poll", "futex", "other", "lock", "alloc", "copy", "copied" };
static atomic_ulong counts[KINDS];

static void count(int kind, unsigned long n) { atomic_fetch_add_explicit(&counts[kind], n, memory_order_relaxed); }

/* libc's own function; looked up once. dlsym may allocate: malloc and calloc below do not use it. */
#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

#define COUNTED(kind, result, name, parameters, arguments) \
    result name parameters { REAL(name); count(kind, 1); return real arguments; }

COUNTED(SEND, ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags))
COUNTED(SEND, ssize_t, sendto, (int fd, const void *p, size_t n, int flags, const struct sockaddr *a, socklen_t len),
        (fd, p, n, flags, a, len))
COUNTED(SEND, ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
COUNTED(RECV, ssize_t, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags))
COUNTED(RECV, ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags))
COUNTED(WAIT, int, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms))
COUNTED(WAIT, int, ppoll, (struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s))
COUNTED(WAIT, int, epoll_wait, (int ep, struct epoll_event *e, int n, int ms), (ep, e, n, ms))
COUNTED(OTHER, int, epoll_ctl, (int ep, int op, int fd, struct epoll_event *e), (ep, op, fd, e))
COUNTED(OTHER, int, setsockopt, (int fd, int level, int name, const void *p, socklen_t n), (fd, level, name, p, n))
COUNTED(OTHER, ssize_t, read, (int fd, void *p, size_t n), (fd, p, n))
COUNTED(OTHER, ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
COUNTED(LOCK, int, pthread_mutex_lock, (pthread_mutex_t *m), (m))
COUNTED(LOCK, int, sem_wait, (sem_t *s), (s))
COUNTED(LOCK, int, sem_clockwait, (sem_t *s, clockid_t c, const struct timespec *t), (s, c, t))

long syscall(long number, ...)
{
    va_list v;
    long a[6];

    REAL(syscall);
    va_start(v, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(v, long);
    va_end(v);
    count(number == SYS_futex ? FUTEX : number == SYS_sendto ? SEND : number == SYS_recvfrom ? RECV : OTHER, 1);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t k, size_t n);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) { count(ALLOC, 1); return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { count(ALLOC, 1); return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { count(ALLOC, 1); return __libc_realloc(p, n); }

/* The loops are the copies: a call of memcpy in here would be one of itself. */
#ifdef __clang__
__attribute__((no_builtin("memcpy")))
#else
__attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    unsigned char *t = to;
    const unsigned char *f = from;

    count(COPY, 1);
    count(COPIED, n);
    while (n--)
        *t++ = *f++;
    return to;
}

__attribute__((destructor))
static void tell(void)
{
    const char *path = getenv("BENCH_COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;

    if (!file)
        return;
    for (int i = 0; i < KINDS; i++)
        fprintf(file, "%s %lu\n", names[i], atomic_load(&counts[i]));
    fclose(file);
}
