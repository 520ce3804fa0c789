/* Every system call and allocation of the core passes here: the seam where tests make the n-th one fail, and where the
 * clock can be replaced. In a normal build each function is a direct call; with -DNL_FAULTS it asks sys_fault() first.
 *
 * Not here: calls that cannot fail in a way anybody could answer, and whose result is not looked at: close, shutdown, a
 * write to an eventfd, the clock.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NL_SYS_H
#define NL_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef enum sys_call {
    SC_MALLOC, SC_RECV, SC_SENDMSG, SC_POLL, SC_EPOLL_CREATE, SC_EPOLL_CTL, SC_EPOLL_WAIT, SC_EVENTFD, SC_ACCEPT,
    SC_CONNECT, SC_SOCKET, SC_FCNTL, SC_SETSOCKOPT, SC_GETSOCKOPT, SC_GETNAME, SC_BIND, SC_LISTEN, SC_OPEN, SC_READ,
    SC_FUTEX, SC_THREAD, SC_CALLS
} sys_call;

#ifdef NL_FAULTS
/* Returns 0 to let the call pass, else the errno it shall fail with. For RECV, READ and SENDMSG *len may be lowered to
 * make it short; for MALLOC it tells the bytes asked for. Defined by the test program. sys_live counts the allocations
 * that were not freed. */
int sys_fault(sys_call call, size_t *len);
extern atomic_long sys_live;
#define SYS_ASK(call, lenp, fail)                                                                                      \
    do {                                                                                                               \
        int e_ = sys_fault((call), (lenp));                                                                            \
        if (e_) {                                                                                                      \
            errno = e_;                                                                                                \
            return (fail);                                                                                             \
        }                                                                                                              \
    } while (0)
#else
#define SYS_ASK(call, lenp, fail) ((void)0)
#endif

/* Locks are counted, per thread, where something is to be said of them: with -DNL_COUNT_LOCKS, for nl_locks_held(), and
 * in a faults build. There each moment when a thread that holds none is about to take one or to sleep, or has just done
 * so, is a point at which a test may hold it up: sys_pause(), which the test program defines. With -DNL_STALLS threads
 * are held up at these points, and with a lock in their hands, by chance: see sys_stall(). */
typedef enum sys_point { SP_LOCK, SP_LOCKED, SP_UNLOCKED, SP_READ, SP_POLL, SP_FUTEX, SP_SLEPT } sys_point;

#if defined NL_FAULTS || defined NL_COUNT_LOCKS || defined NL_STALLS
#define SYS_LOCKS
extern _Thread_local unsigned sys_locks;
#endif

#ifdef NL_STALLS
enum { STALLS_BY_CHANCE = 1, STALLS_OF_POLLER = 2, STALLS_OF_CALLERS = 3, RARE_STALLS_OF_CALLERS = 4 };
bool nl_poller_is_me(void);

/* In [0, 1), by xorshift, with a state for each thread. */
static inline double sys_chance(void)
{
    static _Thread_local uint64_t chance;
    struct timespec t;

    if (!chance) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        chance = (uint64_t)t.tv_nsec ^ (uint64_t)(uintptr_t)&chance << 7;
    }
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (double)(chance >> 11) / (double)(UINT64_C(1) << 53);
}

/* By chance, as on a machine with too few processors: a thread runs for up to 60 ms by the clock, waiting included, and
 * then does not for up to 60 ms, mostly a few. Or the poller, or everybody else, is late at each point: what a test
 * takes for done when it is only about to be then shows at once. Or everybody but the poller is at one in ten, for longer
 * than a link needs to be taken for idle. */
static inline void sys_stall(sys_point point)
{
    static _Thread_local int64_t next_ns;
    struct timespec t;
    int64_t now, ns = 0;
    double r;
    int saved = errno;

    if (NL_STALLS == STALLS_BY_CHANCE) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
        if (now >= next_ns) {
            r = sys_chance();
            ns = (int64_t)(60e6 * r * r * r * r);
            next_ns = now + ns + (int64_t)(60e6 * sys_chance());
        }
    } else if (point != SP_LOCKED && nl_poller_is_me() == (NL_STALLS == STALLS_OF_POLLER)) {
        if (NL_STALLS == RARE_STALLS_OF_CALLERS)
            ns = sys_chance() < 0.1 ? 25000000 : 0;
        else
            ns = NL_STALLS == STALLS_OF_POLLER ? 4000000 : 500000;
    }
    if (ns) {
        t = (struct timespec){ .tv_nsec = (long)ns };
        nanosleep(&t, NULL);
    }
    errno = saved;
}
#endif

#ifdef NL_FAULTS
void sys_pause(sys_point point);
#define SYS_POINT(point) do { if (!sys_locks) { int e_ = errno; sys_pause(point); errno = e_; } } while (0)
#elif defined NL_STALLS
#define SYS_POINT(point) sys_stall(point)
#else
#define SYS_POINT(point) ((void)0)
#endif

#ifdef SYS_LOCKS
static inline int sys_lock(pthread_mutex_t *mu)
{
    int e;

    SYS_POINT(SP_LOCK);
    sys_locks++;
    e = pthread_mutex_lock(mu);
    SYS_POINT(SP_LOCKED);
    return e;
}

static inline int sys_unlock(pthread_mutex_t *mu)
{
    int e = pthread_mutex_unlock(mu);

    sys_locks--;
    SYS_POINT(SP_UNLOCKED);
    return e;
}

#define pthread_mutex_lock sys_lock
#define pthread_mutex_unlock sys_unlock
#endif

/* recv and send as the kernel's calls, not the C library's. There they are cancellation points, which costs a program
 * with threads four atomic operations per round trip; and a thread must not be cancelled with a token in its hands. The
 * sanitizers look at what they read and write, if they are called by these names. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SYS_BY_NAME
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SYS_BY_NAME
#endif

#if defined SYS_BY_NAME || !defined SYS_recvfrom || !defined SYS_sendto
static inline ssize_t sys_recvfrom(int fd, void *p, size_t n, int flags) { return recv(fd, p, n, flags); }
static inline ssize_t sys_sendto(int fd, const void *p, size_t n, int flags) { return send(fd, p, n, flags); }
#else
static inline ssize_t sys_recvfrom(int fd, void *p, size_t n, int flags)
{
    return syscall(SYS_recvfrom, fd, p, n, flags, NULL, NULL);
}

static inline ssize_t sys_sendto(int fd, const void *p, size_t n, int flags)
{
    return syscall(SYS_sendto, fd, p, n, flags, NULL, 0);
}
#endif

static inline void sys_count(long change)
{
    (void)change;
#ifdef NL_FAULTS
    atomic_fetch_add(&sys_live, change);
#endif
}

static inline void *sys_counted(void *p)             { sys_count(p != NULL); return p; }
static inline void *sys_malloc(size_t n)             { SYS_ASK(SC_MALLOC, &n, NULL); return sys_counted(malloc(n)); }
static inline void  sys_free(void *p)                { sys_count(-(p != NULL)); free(p); }

static inline void *sys_calloc(size_t k, size_t n)
{
#ifdef NL_FAULTS
    size_t bytes = k * n;
    SYS_ASK(SC_MALLOC, &bytes, NULL);
#endif
    return sys_counted(calloc(k, n));
}

static inline void *sys_realloc(void *p, size_t n)
{
    SYS_ASK(SC_MALLOC, &n, NULL);
    return p ? realloc(p, n) : sys_counted(malloc(n));
}

static inline ssize_t sys_recv(int fd, void *p, size_t n, int flags)
{
    ssize_t got;

    SYS_ASK(SC_RECV, &n, -1);
    SYS_POINT(SP_READ);
    got = sys_recvfrom(fd, p, n, flags);
    SYS_POINT(SP_SLEPT);
    return got;
}

#ifdef NL_FAULTS
/* sendmsg of the first `len` bytes. */
static inline ssize_t sys_sendmsg_short(int fd, const struct msghdr *msg, int flags, size_t len)
{
    struct iovec iov[64];
    struct msghdr cut = *msg;
    size_t n = 0;

    for (; n < msg->msg_iovlen && n < 64 && len; n++) {
        iov[n] = msg->msg_iov[n];
        iov[n].iov_len = iov[n].iov_len < len ? iov[n].iov_len : len;
        len -= iov[n].iov_len;
    }
    cut.msg_iov = iov;
    cut.msg_iovlen = n;
    return sendmsg(fd, &cut, flags);
}
#endif

static inline ssize_t sys_sendmsg(int fd, struct msghdr *msg, int flags)
{
#ifdef NL_FAULTS
    size_t len = SIZE_MAX;
    SYS_ASK(SC_SENDMSG, &len, -1);
    if (len < SIZE_MAX)
        return sys_sendmsg_short(fd, msg, flags, len);
#endif
    return sendmsg(fd, msg, flags);
}

/* The same for one buffer, which is cheaper; tests take the two for one. */
static inline ssize_t sys_send(int fd, const void *p, size_t n, int flags)
{
    size_t len = SIZE_MAX;
    SYS_ASK(SC_SENDMSG, &len, -1);
    return sys_sendto(fd, p, len < n ? (len ? len : 1) : n, flags);
}

static inline int sys_poll(struct pollfd *p, nfds_t n, int64_t timeout_ns)     /* < 0: for ever; EINTR is returned */
{
    struct timespec ts = { (time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000) };
    int ready;

    SYS_ASK(SC_POLL, NULL, -1);
    SYS_POINT(SP_POLL);
    ready = ppoll(p, n, timeout_ns < 0 ? NULL : &ts, NULL);
    SYS_POINT(SP_SLEPT);
    return ready;
}

static inline int sys_epoll_create(void)
{
    SYS_ASK(SC_EPOLL_CREATE, NULL, -1);
    return epoll_create1(EPOLL_CLOEXEC);
}

static inline int sys_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
    SYS_ASK(SC_EPOLL_CTL, NULL, -1);
    return epoll_ctl(ep, op, fd, ev);
}

static inline int sys_epoll_wait(int ep, struct epoll_event *ev, int n, int ms)
{
    SYS_ASK(SC_EPOLL_WAIT, NULL, -1);
    return epoll_wait(ep, ev, n, ms);
}

static inline int sys_eventfd(void)
{
    SYS_ASK(SC_EVENTFD, NULL, -1);
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline int sys_accept(int fd, struct sockaddr *a, socklen_t *n)
{
    SYS_ASK(SC_ACCEPT, NULL, -1);
    return accept4(fd, a, n, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static inline int sys_socket(int family, int type)
{
    SYS_ASK(SC_SOCKET, NULL, -1);
    return socket(family, type | SOCK_CLOEXEC, 0);
}

static inline int sys_bind(int fd, const struct sockaddr *a, socklen_t n)
{
    SYS_ASK(SC_BIND, NULL, -1);
    return bind(fd, a, n);
}

static inline int sys_listen(int fd, int backlog)
{
    SYS_ASK(SC_LISTEN, NULL, -1);
    return listen(fd, backlog);
}

static inline int sys_setsockopt(int fd, int level, int name, const void *v, socklen_t n)
{
    SYS_ASK(SC_SETSOCKOPT, NULL, -1);
    return setsockopt(fd, level, name, v, n);
}

static inline int sys_getsockopt(int fd, int level, int name, void *v, socklen_t *n)
{
    SYS_ASK(SC_GETSOCKOPT, NULL, -1);
    return getsockopt(fd, level, name, v, n);
}

static inline int sys_getsockname(int fd, struct sockaddr *a, socklen_t *n)
{
    SYS_ASK(SC_GETNAME, NULL, -1);
    return getsockname(fd, a, n);
}

static inline int sys_getpeername(int fd, struct sockaddr *a, socklen_t *n)
{
    SYS_ASK(SC_GETNAME, NULL, -1);
    return getpeername(fd, a, n);
}

static inline int sys_open(const char *path)
{
    SYS_ASK(SC_OPEN, NULL, -1);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static inline int sys_fcntl(int fd, int op, int arg)
{
    SYS_ASK(SC_FCNTL, NULL, -1);
    return fcntl(fd, op, arg);
}


static inline ssize_t sys_read(int fd, void *p, size_t n)
{
    SYS_ASK(SC_READ, &n, -1);
    return read(fd, p, n);
}

static inline int sys_connect(int fd, const struct sockaddr *a, socklen_t n)
{
#ifdef NL_FAULTS
    int e = sys_fault(SC_CONNECT, NULL);
    if (e == EINTR)                     /* an interrupted connect goes on by itself */
        connect(fd, a, n);
    if (e) {
        errno = e;
        return -1;
    }
#endif
    return connect(fd, a, n);
}

static inline int sys_thread(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
#ifdef NL_FAULTS
    int e = sys_fault(SC_THREAD, NULL);
    if (e)
        return e;
#endif
    return pthread_create(t, attr, run, arg);
}

/* Between two looks at what another processor will change. */
static inline void sys_relax(void)
{
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static inline int64_t sys_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Sleeps while *word is `value`, until the absolute monotonic deadline. 0 woken or changed, else EINTR, ETIMEDOUT. A
 * condition variable would not do: it never returns EINTR, and Ctrl-C needs it. */
static inline int sys_futex_wait(atomic_uint *word, unsigned value, int64_t deadline_ns)
{
    struct timespec ts = { (time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000) };
    int e = 0;

#ifdef NL_FAULTS
    if ((e = sys_fault(SC_FUTEX, NULL)))
        return e;
#endif
    SYS_POINT(SP_FUTEX);
    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline_ns == INT64_MAX ? NULL : &ts, NULL,
                FUTEX_BITSET_MATCH_ANY) != 0 && errno != EAGAIN)
        e = errno;
    SYS_POINT(SP_SLEPT);
    return e;
}

static inline void sys_futex_wake(atomic_uint *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

#endif
