/* What links and Conns cost when nothing happens on them, and what the end of many costs.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *   state links N      bytes of user memory of an idle link
 *   state conns N      bytes of user memory of an idle Conn, and nanoseconds to make and end one beside few, and
 *                      beside N
 *   state idle N       wake-ups of the process, all threads, in one second with N idle links
 *   state ends N       seconds of CPU time until N links whose peer goes away at once are closed
 *
 * Prints lines of a name and a number. The peers of the links are socket pairs' other ends in a child process, so that
 * nothing of theirs is counted.
 */
#include "bench.h"
#include "neolink.h"

#include <dirent.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>

static size_t count;
static nl_link **links;
static int *near, *far;
static int child_pipe[2];
static pid_t child;

static void must(nl_err e, const char *what)
{
    if (e != NL_OK) {
        fprintf(stderr, "%s: %s\n", what, nl_err_name(e));
        exit(1);
    }
}

static void show(const char *name, double value) { printf("%s %.6g\n", name, value); }

static void pause_ms(long ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

    nanosleep(&t, NULL);
}

static size_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

static double cpu_seconds(void) { return (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9; }

/* ---- links ------------------------------------------------------------------------------------------------------ */

/* Socket pairs whose far ends a child holds until `child_pipe` is closed. Before any thread is there. */
static void make_pairs(void)
{
    struct rlimit r;

    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < 2 * count + 64)            /* the hard limit: fewer links then, and the output says so */
        count = (r.rlim_cur - 64) / 2;
    near = calloc(count, sizeof *near);
    far = calloc(count, sizeof *far);
    links = calloc(count, sizeof *links);
    for (size_t i = 0; i < count; i++) {
        int two[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two))
            die("socketpair");
        near[i] = two[0];
        far[i] = two[1];
    }
    if (pipe(child_pipe) || (child = fork()) < 0)
        die("fork");
    if (child == 0) {
        char c;
        close(child_pipe[1]);
        for (size_t i = 0; i < count; i++)
            close(near[i]);
        _exit(read(child_pipe[0], &c, 1) != 0);
    }
    close(child_pipe[0]);
    for (size_t i = 0; i < count; i++)
        close(far[i]);
}

static void make_links(void)
{
    nl_link_config config;
    nl_fault why;

    nl_link_config_default(&config);
    for (size_t i = 0; i < count; i++)
        must(nl_link_new(near[i], &config, NL_FOREVER, &links[i], &why), "nl_link_new");
}

static void end_links(void)
{
    close(child_pipe[1]);
    for (size_t i = 0; i < count; i++) {
        nl_link_abort(links[i]);
        nl_link_rele(links[i]);
    }
    nl_shutdown();
    waitpid(child, NULL, 0);
}

/* How often any thread of the process was given a CPU. */
static long switches(void)
{
    long sum = 0;
    struct dirent *d;
    DIR *tasks = opendir("/proc/self/task");

    while ((d = readdir(tasks))) {
        char path[300], line[128];
        long n;
        FILE *f;
        if (d->d_name[0] == '.' || atoi(d->d_name) == getpid())     /* the main thread sleeps by itself */
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", d->d_name);
        if (!(f = fopen(path, "r")))
            continue;
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
                sum += n;
        fclose(f);
    }
    closedir(tasks);
    return sum;
}

/* Waits until the links have been swept: the other threads have slept for a while. */
static void settle(void)
{
    long before = -1;

    for (int i = 0; i < 100 && switches() != before; i++) {
        before = switches();
        pause_ms(100);
    }
}

static void measure_links(void)
{
    size_t before;

    make_pairs();
    before = heap_bytes();
    make_links();
    settle();
    show("links", (double)count);
    show("bytes_per_link", (double)(heap_bytes() - before) / (double)count);
    end_links();
}

static void measure_idle(void)
{
    long before;

    make_pairs();
    make_links();
    settle();
    before = switches();
    pause_ms(1000);
    show("links", (double)count);
    show("wakeups", (double)(switches() - before));
    end_links();
}

static void measure_ends(void)
{
    int64_t end = nl_now_ns() + INT64_C(20000000000);
    double before;
    size_t closed = 0;

    make_pairs();
    make_links();
    settle();
    before = cpu_seconds();
    close(child_pipe[1]);
    while (closed < count && nl_now_ns() < end) {
        if (nl_link_is_closed(links[closed]))
            closed++;
        else
            pause_ms(1);
    }
    for (size_t i = 0; i < count; i++)
        must(nl_link_close(links[i], NL_FOREVER), "nl_link_close");
    show("links", (double)count);
    show("closed", (double)closed);
    show("cpu_seconds", cpu_seconds() - before);
    for (size_t i = 0; i < count; i++)
        nl_link_rele(links[i]);
    nl_shutdown();
    waitpid(child, NULL, 0);
}

/* ---- Conns ------------------------------------------------------------------------------------------------------ */

static double ns_per_conn(nl_link *link)
{
    enum { N = 20000 };
    int64_t t = nl_now_ns();

    for (int i = 0; i < N; i++) {
        nl_conn *c;
        must(nl_conn_new(link, &c), "nl_conn_new");
        nl_conn_rele(c);
    }
    return (double)(nl_now_ns() - t) / N;
}

static void measure_conns(void)
{
    nl_link_config config;
    nl_fault why;
    nl_link *link;
    nl_conn **conns = calloc(count, sizeof *conns);
    size_t before, conns_len = count;
    int two[2];

    nl_link_config_default(&config);
    config.limits.conns = NL_UNLIMITED;
    config.limits.closed_ns = 0;                /* no tombs of the Conns that are timed */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two))
        die("socketpair");
    must(nl_link_new(two[0], &config, NL_FOREVER, &link, &why), "nl_link_new");
    ns_per_conn(link);
    show("ns_per_conn_beside_few", ns_per_conn(link));
    before = heap_bytes();
    for (size_t i = 0; i < conns_len; i++)
        must(nl_conn_new(link, &conns[i]), "nl_conn_new");
    show("conns", (double)conns_len);
    show("bytes_per_conn", (double)(heap_bytes() - before) / (double)conns_len);
    ns_per_conn(link);
    show("ns_per_conn_beside_many", ns_per_conn(link));
    nl_link_abort(link);
    for (size_t i = 0; i < conns_len; i++)
        nl_conn_rele(conns[i]);
    nl_link_rele(link);
    nl_shutdown();
    close(two[1]);
}

int main(int argc, char **argv)
{
    const char *what = argc == 3 ? argv[1] : "";

    count = argc == 3 ? (size_t)atol(argv[2]) : 0;
    if (!strcmp(what, "links"))
        measure_links();
    else if (!strcmp(what, "conns"))
        measure_conns();
    else if (!strcmp(what, "idle"))
        measure_idle();
    else if (!strcmp(what, "ends"))
        measure_ends();
    else
        die("usage: see the top of state.c");
    return 0;
}
