/* The test words of the house. See kit.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "link.h"

#include "kit.h"

#include "buf.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* Tests fork while threads run, and go on in the child. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "die_after_fork=0"; }

/* Cores with faults stop here (sys.h); a test program that uses it has its own. */
void sys_pause(int point);
__attribute__((weak)) void sys_pause(int point) { (void)point; }

/* ---- claims ----------------------------------------------------------------------------------------------------- */

#ifndef NL_PATIENCE_MS
#define NL_PATIENCE_MS 20000
#endif

int kit_patience_ms = NL_PATIENCE_MS;
const char *kit_context;

static _Thread_local bool not_the_tests_thread;

_Noreturn void kit_fail(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    print_error("%s:%d: %s\n", file, line, text);
    if (kit_context)
        print_error("  repeat it with %s\n", kit_context);
    if (!not_the_tests_thread)
        _fail(file, line);
    abort();
}

void kit_must_be(const char *file, int line, const char *call, nl_err got, nl_err want)
{
    if (got != want)
        kit_fail(file, line, "%s is %s, not %s", call, nl_err_name(got), nl_err_name(want));
}

void kit_pause(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

int64_t in_ms(int64_t ms) { return nl_now_ns() + ms * 1000000; }

#ifdef NL_COVERAGE
extern void __gcov_dump(void);          /* _exit writes no counts; libgcov's function does */
#endif

bool fails(void (*act)(void *), void *arg)
{
    pid_t pid;
    int status = 0;

    fflush(NULL);
    if ((pid = fork()) == 0) {
        not_the_tests_thread = true;        /* so that a failure ends the child and is not this test's */
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        act(arg);
#ifdef NL_COVERAGE
        __gcov_dump();
#endif
        _exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, 0) == pid);
    return status != 0;
}

/* ---- fixture ---------------------------------------------------------------------------------------------------- */

static size_t entries(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;

    must(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

size_t kit_threads(void)        { return entries("/proc/self/task"); }
size_t kit_descriptors(void)    { return entries("/proc/self/fd"); }

static struct { size_t threads, descriptors; } before;

static void *tell_name(void *arg)
{
    snprintf(arg, 64, "/proc/self/task/%d", (int)gettid());
    return NULL;
}

int kit_enter(void **state)
{
    pthread_t first;
    char name[64];

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    must(pthread_create(&first, NULL, tell_name, name) == 0);       /* a sanitizer may start one of its own with it */
    pthread_join(first, NULL);
    wait_until(access(name, F_OK) != 0);                            /* a joined thread is seen for a moment more */
    nl_shutdown();
    before.threads = kit_threads();
    before.descriptors = kit_descriptors();
    return 0;
}

int kit_leave(void **state)
{
    (void)state;
    nl_shutdown();
    nl_block_cache_clear();
    wait_until(kit_threads() == before.threads);        /* a joined thread may still be on its way out */
    wait_until(kit_descriptors() == before.descriptors);
    must(nl_block_cached_bytes() == 0);
    return 0;
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

uint16_t notification(nl_wire wire) { return wire == NL_WIRE_2016 ? 5 : 3; }
uint16_t push(nl_wire wire)         { return wire == NL_WIRE_2016 ? 94 : wire == NL_WIRE_N ? 63 : 67; }

uint8_t *payload_new(nl_wire wire, size_t n, unsigned seed)
{
    uint8_t *p = malloc(n + 1);
    size_t at = 0;

    must(p);
    if (wire == NL_WIRE_M && n >= 8) {                  /* [bin of the rest] */
        memcpy(p, "\x91\xc6", 2);
        for (at = 2; at < 6; at++)
            p[at] = (uint8_t)((n - 6) >> (8 * (5 - at)));
    } else if (wire == NL_WIRE_M && n) {                /* [small integers] */
        p[at++] = (uint8_t)(0x90 + n - 1);
    }
    for (; at < n; at++)
        p[at] = (uint8_t)((at * 31 + seed * 7 + (at >> 8)) & 0x7f);
    return p;
}

bool payload_is(nl_wire wire, const nl_packet *p, size_t n, unsigned seed)
{
    uint8_t *want = payload_new(wire, n, seed);
    bool same;

    if (wire == NL_WIRE_M && n == 0)
        same = p->len == 1 && p->payload[0] == 0x90;
    else
        same = p->len == n && memcmp(p->payload, want, n) == 0;
    free(want);
    return same;
}

/* ---- links ------------------------------------------------------------------------------------------------------ */

const kind KINDS[6] = {
    { NL_WIRE_2016, NL_ROUTE_STREAM }, { NL_WIRE_2016, NL_ROUTE_NEO }, { NL_WIRE_N, NL_ROUTE_STREAM },
    { NL_WIRE_N, NL_ROUTE_NEO }, { NL_WIRE_M, NL_ROUTE_STREAM }, { NL_WIRE_M, NL_ROUTE_NEO },
};

nl_link_config config_of(nl_role role, kind k)
{
    nl_link_config c;

    nl_link_config_default(&c);
    c.role = role;
    c.wire = k.wire;
    c.routing = k.routing;
    return c;
}

pair_config pair_default(kind k)
{
    return (pair_config){ config_of(NL_CLIENT, k), config_of(NL_SERVER, k), false };
}

nl_link *link_over(int fd, const nl_link_config *config)
{
    nl_link *link = NULL;
    nl_fault why;

    if (nl_link_new(fd, config, in_ms(PATIENCE_MS), &link, &why) != NL_OK)
        kit_fail(__FILE__, __LINE__, "no link: %s", why.text);
    return link;
}

pair pair_of(const pair_config *config)
{
    int fd[2];

    if (config->tcp)
        sockets_tcp(fd);
    else
        sockets_unix(fd);
    return (pair){ link_over(fd[0], &config->client), link_over(fd[1], &config->server) };
}

pair pair_new(kind k)
{
    pair_config c = pair_default(k);

    return pair_of(&c);
}

void link_free(nl_link *link)
{
    nl_stats s;

    if (!link)
        return;
    nl_link_abort(link);
    must_be(nl_link_close(link, in_ms(PATIENCE_MS)), NL_OK);
    s = stats_of(link);
    if (s.rx_bytes_queued || s.tx_bytes_queued || s.conns || s.inside || s.waiters)
        kit_fail(__FILE__, __LINE__, "left behind: %zu bytes received, %zu to send, %zu Conns, %zu calls, %zu waiters",
                 (size_t)s.rx_bytes_queued, (size_t)s.tx_bytes_queued, (size_t)s.conns, (size_t)s.inside,
                 (size_t)s.waiters);
    nl_link_rele(link);
}

void pair_free(pair *p)
{
    link_free(p->client);
    link_free(p->server);
    *p = (pair){ NULL, NULL };
}

nl_stats stats_of(nl_link *link)
{
    nl_stats s;

    nl_link_stats(link, &s);
    return s;
}

nl_fault fault_of(nl_link *link)
{
    nl_fault f = { 0 };

    nl_link_fault(link, &f);
    return f;
}

bool end_was_read(nl_link *link)
{
    bool was;

    nl_link_lock(link);
    was = link->rx.ending || link->state != NL_LINK_OPEN;
    nl_link_unlock(link);
    return was;
}

nl_conn *conn_new(nl_link *link)
{
    nl_conn *conn = NULL;

    must_be(nl_conn_new(link, &conn), NL_OK);
    return conn;
}

void send_ok(nl_conn *conn, uint16_t code, const void *payload, size_t len)
{
    must_be(nl_conn_send(conn, code, payload, len, in_ms(PATIENCE_MS), NULL), NL_OK);
}

nl_packet *recv_ok(nl_conn *conn)
{
    nl_packet *p = NULL;

    must_be(retried(nl_conn_recv(conn, in_ms(PATIENCE_MS), &p)), NL_OK);
    return p;
}

void recv_is(nl_conn *conn, uint16_t code)
{
    nl_packet *p = recv_ok(conn);

    must(p->code == code);
    nl_packet_free(p);
}

nl_conn *accept_ok(nl_link *link)
{
    nl_conn *conn = NULL;

    must_be(retried(nl_link_accept(link, in_ms(PATIENCE_MS), &conn)), NL_OK);
    return conn;
}

/* ---- plain peers ------------------------------------------------------------------------------------------------ */

void sockets_unix(int fd[2])
{
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
}

static void sockets_inet(int fd[2], int buffer)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    must(listener >= 0 && bind(listener, (struct sockaddr *)&a, n) == 0);
    if (buffer)
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    must(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&a, &n) == 0);
    fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (buffer) {
        setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        setsockopt(fd[0], SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    }
    must(connect(fd[0], (struct sockaddr *)&a, n) == 0);
    must((fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    if (buffer)
        setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    setsockopt(fd[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

void sockets_tcp(int fd[2])     { sockets_inet(fd, 0); }
void sockets_small(int fd[2])   { sockets_inet(fd, 16384); }

nl_link *link_and_peer(const nl_link_config *config, bool tcp, int *peer)
{
    int fd[2];

    if (tcp)
        sockets_tcp(fd);
    else
        sockets_unix(fd);
    *peer = fd[1];
    return link_over(fd[0], config);
}

static void peer_ready(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    while (poll(&p, 1, PATIENCE_MS) < 0)
        must(errno == EINTR);
    must(p.revents);
}

void peer_write(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n;) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0) {
            must(errno == EAGAIN || errno == EINTR);
            peer_ready(fd, POLLOUT);
            continue;
        }
        p += done;
        n -= (size_t)done;
    }
}

void peer_send(int fd, nl_wire wire, uint32_t id, uint16_t code, const void *payload, size_t n)
{
    uint8_t head[NL_HEAD_MAX];

    peer_write(fd, head, nl_wire_head(wire, id, code, n, head));
    peer_write(fd, payload, n);
}

peer_packet peer_recv(int fd, nl_wire wire)
{
    static _Thread_local uint8_t bytes[1 << 20];
    peer_packet out = { 0 };
    nl_scan scan = { 0 };
    nl_fault why = { 0 };
    size_t n = 0;

    for (;;) {
        nl_scan_result r = nl_wire_scan(wire, bytes, n, sizeof bytes, 0, &scan, &why);
        size_t want = scan.need;
        ssize_t got;

        if (r == NL_SCAN_BAD)
            kit_fail(__FILE__, __LINE__, "the link sent what is no packet: %s", why.text);
        if (r == NL_SCAN_PACKET)
            break;
        must(want > n && want <= sizeof bytes);
        peer_ready(fd, POLLIN);
        got = recv(fd, bytes + n, want - n, 0);         /* never more than the packet needs */
        must(got > 0);
        n += (size_t)got;
    }
    out.id = scan.id;
    out.code = scan.code;
    out.len = scan.payload_len;
    memcpy(out.payload, bytes + scan.payload_at, out.len < sizeof out.payload ? out.len : sizeof out.payload);
    return out;
}

bool peer_says(const peer_packet *p, const char *text)
{
    return p->code == ERROR && memmem(p->payload, p->len < sizeof p->payload ? p->len : sizeof p->payload, text,
                                      strlen(text));
}

void peer_silent(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    must(poll(&p, 1, 0) == 0);
}

size_t peer_drain(int fd)
{
    char waste[65536];
    size_t n = 0;

    for (;;) {
        ssize_t got;
        peer_ready(fd, POLLIN);
        if ((got = recv(fd, waste, sizeof waste, MSG_DONTWAIT)) > 0)
            n += (size_t)got;
        else if (got == 0 || (errno != EAGAIN && errno != EINTR))
            return n;
    }
}

void peer_eof(int fd) { peer_drain(fd); }

void peer_reset(int fd)
{
    struct linger l = { .l_onoff = 1, .l_linger = 0 };

    must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l) == 0);
    close(fd);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static void *job_thread(void *arg)
{
    job *j = arg;

    not_the_tests_thread = true;
    atomic_store(&j->tid, gettid());
    j->run(j);
    atomic_store(&j->done, true);
    return NULL;
}

void job_start(job *j, void (*run)(job *))
{
    j->run = run;
    atomic_store(&j->done, false);
    if (!j->deadline)
        j->deadline = in_ms(PATIENCE_MS);
    must(pthread_create(&j->thread, NULL, job_thread, j) == 0);
}

void job_join(job *j)
{
    wait_until(atomic_load(&j->done));
    pthread_join(j->thread, NULL);
}

void job_recv(job *j)       { j->result = retried(nl_conn_recv(j->conn, j->deadline, &j->packet)); }
void job_accept(job *j)     { j->result = retried(nl_link_accept(j->link, j->deadline, &j->conn)); }
void job_recv1(job *j)      { j->result = retried(nl_link_recv1(j->link, j->deadline, &j->conn, &j->packet)); }
void job_close(job *j)      { j->result = retried(nl_link_close(j->link, j->deadline)); }

void job_ask(job *j)
{
    nl_ask ask;

    j->result = retried(nl_ask_begin(j->link, &ask, ASK, NULL, 0, j->deadline, NULL));
    if (j->result != NL_OK)
        return;
    j->result = retried(nl_ask_wait(&ask, j->deadline, &j->packet));
    nl_ask_end(&ask);
}

void job_fill(job *j)
{
    uint8_t *p = payload_new(nl_link_wire(nl_conn_link(j->conn)), 32768, 1);

    do {
        j->result = retried(nl_conn_send(j->conn, ASK, p, 32768, j->deadline, NULL));
        j->n += j->result == NL_OK;
    } while (j->result == NL_OK);
    free(p);
}

void job_echo(job *j)
{
    for (;;) {
        nl_conn *conn;
        nl_packet *p;
        nl_err e;

        j->result = retried(nl_link_recv1(j->link, NL_FOREVER, &conn, &p));
        if (j->result != NL_OK)
            return;
        do
            e = nl_conn_send(conn, (uint16_t)(p->code | NL_ANSWER_BIT), p->payload, p->len, NL_FOREVER, NULL);
        while (e == NL_EINTR);
        j->n += e == NL_OK;
        nl_packet_free(p);
        nl_conn_rele(conn);
    }
}
