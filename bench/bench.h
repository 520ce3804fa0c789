/* What the C programs of the benchmarks share: sockets on the loopback, packets of wire 2016, and the rounds.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A contender is a process that does one kind of operation. It sets itself up and writes "ready"; then, for each line
 * with a number n on its standard input, it does n operations and answers with one line: wall time and CPU time of the
 * process, in nanoseconds. run.py gives the contenders of a comparison their rounds in turn, so that a machine that is
 * slow for a while is slow for all of them. A contender that waits for its round sleeps in a read.
 *
 * With BENCH_GAP_NS set, operations begin at moments of a schedule instead of one after the other: gaps of that mean,
 * exponentially distributed, so that sometimes two are due at once. The line then begins with three more numbers: the
 * 50th, 99th and 99.9th percentile of the times from the moment an operation was due to its end. Measured from there,
 * an operation that is late counts as late for those behind it, too.
 *
 * Codes of the test traffic: a node of peer.c drops packets of code NOTE, returns a packet of code ASK as its own
 * answer, and answers TAKE, whose payload is two 32-bit numbers, with so many packets of so many bytes of payload.
 */
#ifndef BENCH_H
#define BENCH_H

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HEAD   10u              /* 2016: id 4, code 2, length with the header 4, all big-endian */
#define NOTE   1u
#define ASK    2u
#define TAKE   3u
#define ANSWER 0x8000u
#define BULK   (1u << 20)       /* payload of the bulk rows */

static inline void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static inline int64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline uint32_t load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static inline void store32(uint8_t *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); }

static inline void put_head(uint8_t *p, uint32_t id, unsigned code, size_t payload)
{
    store32(p, id);
    p[4] = (uint8_t)(code >> 8);
    p[5] = (uint8_t)code;
    store32(p + 6, (uint32_t)(HEAD + payload));
}

static inline void no_delay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Listens on a free port of the loopback and prints it: the first line of every server. */
static inline int listen_and_tell(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) || listen(fd, 4096)
            || getsockname(fd, (struct sockaddr *)&a, &len))
        die("listen");
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static inline int connect_to(const char *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)atoi(port)) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
        die("connect");
    no_delay(fd);
    return fd;
}

static inline void read_all(int fd, void *p, size_t n)
{
    for (char *at = p; n;) {
        ssize_t got = recv(fd, at, n, 0);
        if (got <= 0)
            die("recv");
        at += got;
        n -= (size_t)got;
    }
}

static inline void write_all(int fd, const void *p, size_t n)
{
    for (const char *at = p; n;) {
        ssize_t done = send(fd, at, n, MSG_NOSIGNAL);
        if (done < 0)
            die("send");
        at += done;
        n -= (size_t)done;
    }
}

/* Pins the calling thread to the CPU that $BENCH_CPU names, if it does. Done after the set-up, so that whoever looks
 * how many CPUs there are while a link is made sees those of the machine. */
static inline void pin_self(void)
{
    const char *cpu = getenv("BENCH_CPU");
    cpu_set_t set;

    if (!cpu || !*cpu)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(cpu), &set);
    if (sched_setaffinity(0, sizeof set, &set))
        die("sched_setaffinity");
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* n operations by the schedule, and its percentiles printed. */
static void by_schedule(void (*operations)(long n), long n, double gap)
{
    int64_t *late = malloc((size_t)n * sizeof *late);
    double due = (double)clock_ns(CLOCK_MONOTONIC);

    for (long i = 0; i < n; i++) {
        struct timespec t;
        due -= gap * log1p(-drand48());
        t.tv_sec = (time_t)(due / 1e9);
        t.tv_nsec = (long)(due - (double)t.tv_sec * 1e9);
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        operations(1);
        late[i] = clock_ns(CLOCK_MONOTONIC) - (int64_t)due;
    }
    qsort(late, (size_t)n, sizeof *late, by_value);
    printf("%lld %lld %lld ", (long long)late[n / 2], (long long)late[n * 99 / 100], (long long)late[n * 999 / 1000]);
    free(late);
}

/* Does the rounds until the end of the standard input. */
static inline void do_rounds(void (*operations)(long n))
{
    const char *gap = getenv("BENCH_GAP_NS");
    char line[32];

    prctl(PR_SET_TIMERSLACK, 1);
    pin_self();
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ns(CLOCK_MONOTONIC);
        if (gap)
            by_schedule(operations, atol(line), atof(gap));
        else
            operations(atol(line));
        wall = clock_ns(CLOCK_MONOTONIC) - wall;
        cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        printf("%lld %lld\n", (long long)wall, (long long)cpu);
        fflush(stdout);
    }
}

#endif
