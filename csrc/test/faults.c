/* Fails everything once. See faults.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "faults.h"

#include "buf.h"

#include <signal.h>

#define HANG_S 120u                     /* longer than any patience of the kit: what comes here hangs */

atomic_long fault_openssl_live;

/* ---- what can fail, and how -------------------------------------------------------------------------------------- */

typedef struct failing {
    const char *name;
    bool        short_too;              /* it may handle less than it was asked to */
    int         errors[12];
} failing;

static const failing CALLS[FAULT_KINDS] = {
    [SC_MALLOC] = { "malloc", false, { ENOMEM } },
    [SC_RECV] = { "recv", true, { EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, ENOMEM, EHOSTUNREACH } },
    [SC_SENDMSG] = { "sendmsg", true, { EINTR, EAGAIN, EPIPE, ECONNRESET, ETIMEDOUT, ENOBUFS, ENOMEM, EPERM,
                                         ENETDOWN } },
    [SC_POLL] = { "poll", false, { EINTR, ENOMEM } },
    [SC_EPOLL_CREATE] = { "epoll_create", false, { EMFILE, ENFILE, ENOMEM } },
    [SC_EPOLL_CTL] = { "epoll_ctl", false, { ENOMEM, ENOSPC } },
    [SC_EPOLL_WAIT] = { "epoll_wait", false, { EINTR } },
    [SC_EVENTFD] = { "eventfd", false, { EMFILE, ENFILE, ENOMEM, ENODEV } },
    [SC_ACCEPT] = { "accept", false, { EINTR, EAGAIN, ECONNABORTED, EPROTO, EPERM, ENETDOWN, EMFILE, ENFILE, ENOBUFS,
                                       ENOMEM } },
    [SC_CONNECT] = { "connect", false, { EINTR, EAGAIN, ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EADDRINUSE,
                                         EADDRNOTAVAIL, EPERM, EACCES, ECONNRESET } },
    [SC_SOCKET] = { "socket", false, { EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES, EAFNOSUPPORT } },
    [SC_FCNTL] = { "fcntl", false, { EBADF, EPERM } },
    [SC_SETSOCKOPT] = { "setsockopt", false, { ENOMEM, ENOBUFS, EPERM, EINVAL, ENOPROTOOPT } },
    [SC_GETSOCKOPT] = { "getsockopt", false, { ENOBUFS, ENOMEM } },
    [SC_GETNAME] = { "getname", false, { ENOBUFS, ENOTCONN } },
    [SC_BIND] = { "bind", false, { EADDRINUSE, EACCES, EADDRNOTAVAIL, ENOMEM } },
    [SC_LISTEN] = { "listen", false, { EADDRINUSE, ENOMEM } },
    [SC_OPEN] = { "open", false, { EACCES, EMFILE, ENFILE, ENOMEM, EISDIR } },
    [SC_READ] = { "read", true, { EINTR, EIO, EISDIR, ENOMEM } },
    [SC_FUTEX] = { "futex", false, { EINTR } },
    [SC_THREAD] = { "thread", false, { EAGAIN, ENOMEM, EPERM } },
    [FAULT_OPENSSL] = { "openssl", false, { ENOMEM } },
};

/* ---- the fault --------------------------------------------------------------------------------------------------- */

typedef struct plan {
    unsigned call;
    int      error;
    size_t   cut;                       /* not 0: handle so many bytes, instead of an error */
    long     n;                         /* 0: every call */
} plan;

static plan now;
static atomic_long left = -1;           /* calls up to the failing one; it finds 1 */
static atomic_bool hit;
static char repeat[160];                /* the words that repeat this run */

static bool is_the_one(unsigned call)
{
    if (call != now.call || atomic_load(&left) <= 0 || (now.n && atomic_fetch_sub(&left, 1) != 1))
        return false;
    atomic_store(&hit, true);
    return true;
}

int sys_fault(sys_call call, size_t *len)
{
    if (!is_the_one(call))
        return 0;
    if (!now.cut)
        return now.error;
    if (len && *len > now.cut)
        *len = now.cut;
    return 0;
}

int fault_openssl(void) { return is_the_one(FAULT_OPENSSL) ? ENOMEM : 0; }

void fault_none(void) { atomic_store(&left, 0); }
bool fault_hit(void)  { return atomic_load(&hit); }

static void set(plan p)
{
    now = p;
    atomic_store(&hit, false);
    atomic_store(&left, p.n ? p.n : 1);
}

/* EAGAIN of a thread or a connect is no "later". */
static bool is_to_be_got_over(void)
{
    return now.cut || now.error == EINTR ||
           (now.error == EAGAIN && (now.call == SC_RECV || now.call == SC_SENDMSG || now.call == SC_ACCEPT));
}

bool fault_breaks_link(void)
{
    return now.call == SC_SENDMSG && !now.cut && (now.error == EPIPE || now.error == ECONNRESET ||
           now.error == ETIMEDOUT || now.error == EPERM || now.error == ENETDOWN);
}

bool fault_ok(nl_err e, nl_err also)
{
    if (e == NL_OK)
        return true;
    if (is_to_be_got_over() || (e != NL_ENOMEM && e != NL_ESYS && e != NL_ELINKDOWN && e != also))
        kit_fail(__FILE__, __LINE__, "a failing call made %s", nl_err_name(e));
    return false;
}

int64_t fault_patience(void) { return in_ms(is_to_be_got_over() ? PATIENCE_MS : 300); }

nl_err fault_again(nl_err e)
{
    if (e == NL_ETIMEOUT && is_to_be_got_over())
        kit_fail(__FILE__, __LINE__, "what should have come did not");
    return e == NL_EINTR || e == NL_ETIMEOUT ? NL_OK : e;
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static struct { unsigned long runs, faults; } total, mine;

static void describe(const fault_scenario *s, plan p)
{
    char what[32], n[24];

    if (p.cut)
        snprintf(what, sizeof what, "cut%zu", p.cut);
    else
        snprintf(what, sizeof what, "%s", strerrorname_np(p.error));
    if (p.n)
        snprintf(n, sizeof n, "%ld", p.n);
    else
        snprintf(n, sizeof n, "all");
    snprintf(repeat, sizeof repeat, "NL_FAULT=%s,%s,%s,%s", s->name, CALLS[p.call].name, what, n);
    kit_context = repeat;
}

static void on_alarm(int number)
{
    static const char text[] = "no end; repeat it with ";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof text - 1) > 0 && write(STDERR_FILENO, repeat, strlen(repeat)) > 0)
        abort();
    abort();
}

typedef struct census { size_t threads, descriptors; long live; } census;

static census count(void)
{
    return (census){ kit_threads(), kit_descriptors(), atomic_load(&sys_live) };
}

/* One run, and how many of OpenSSL's allocations it left. */
static long run_once(const fault_scenario *s, plan p)
{
    census before = count(), after;
    long openssl = atomic_load(&fault_openssl_live);

    alarm(HANG_S);
    set(p);
    s->run();
    fault_none();
    nl_shutdown();
    nl_block_cache_clear();
    wait_until(kit_threads() == before.threads);
    after = count();
    if (after.descriptors != before.descriptors)
        kit_fail(__FILE__, __LINE__, "%zu descriptors, %zu before", after.descriptors, before.descriptors);
    if (after.live != before.live)
        kit_fail(__FILE__, __LINE__, "%ld allocations are left", after.live - before.live);
    mine.runs++;
    mine.faults += fault_hit();
    return atomic_load(&fault_openssl_live) - openssl;
}

/* OpenSSL keeps things for later: what it keeps again and again, every time, is lost. */
static void run(const fault_scenario *s, plan p)
{
    long kept;

    describe(s, p);
    kept = run_once(s, p);
    for (int i = 0; i < 4 && kept > 0; i++)
        kept = run_once(s, p);
    if (kept > 0)
        kit_fail(__FILE__, __LINE__, "%ld of OpenSSL's allocations are left, every time", kept);
    kit_context = NULL;
}

/* ---- all runs ---------------------------------------------------------------------------------------------------- */

#define NO_END 20000                    /* a scenario that makes more calls than that goes round in circles */

/* Every n; of OpenSSL's allocations, which are thousands, fewer and fewer, unless all are asked for. */
static void run_each_n(const fault_scenario *s, plan p)
{
    bool all = p.call != FAULT_OPENSSL || getenv("FAULTS_ALL");

    do {
        p.n += all ? 1 : 1 + p.n / 32;
        run(s, p);
        if (p.n >= NO_END)
            kit_fail(__FILE__, __LINE__, "%s, %s: no end of calls", s->name, CALLS[p.call].name);
    } while (fault_hit());
}

/* Every length up to one that holds any header and opening, then doubling. */
static void run_each_cut(const fault_scenario *s, unsigned call)
{
    run_each_n(s, (plan){ .call = call, .cut = 1 });
    for (size_t cut = 1; cut <= 65536; cut = getenv("FAULTS_FEW") ? cut * 7 : cut < 24 ? cut + 1 : cut * 2)
        run(s, (plan){ .call = call, .cut = cut });
}

static void run_call(const fault_scenario *s, unsigned call)
{
    unsigned long before = mine.faults;
    int64_t begun = nl_now_ns();

    for (size_t i = 0; i < (getenv("FAULTS_FEW") ? 1 : 12) && CALLS[call].errors[i]; i++)
        run_each_n(s, (plan){ .call = call, .error = CALLS[call].errors[i] });
    if (CALLS[call].short_too)
        run_each_cut(s, call);
    if (getenv("FAULTS_VERBOSE"))
        print_message("  %-12s %5lu faults %8.3f s\n", CALLS[call].name, mine.faults - before,
                      (double)(nl_now_ns() - begun) / 1e9);
}

static unsigned call_named(const char *name)
{
    unsigned call = 0;

    while (call < FAULT_KINDS && strcmp(CALLS[call].name, name))
        call++;
    must(call < FAULT_KINDS);
    return call;
}

/* The one that NL_FAULT names. */
static void run_named(const fault_scenario *s, char *words)
{
    char *call = strtok(words, ","), *what = strtok(NULL, ","), *n = strtok(NULL, ",");
    plan p = { .call = call_named(call) };

    if (!what) {
        run_call(s, p.call);
        return;
    }
    must(n);
    p.n = atol(n);                      /* 0 for "all" */
    if (strncmp(what, "cut", 3) == 0)
        p.cut = (size_t)atol(what + 3);
    for (size_t i = 0; i < 12; i++)
        if (CALLS[p.call].errors[i] && strcmp(strerrorname_np(CALLS[p.call].errors[i]), what) == 0)
            p.error = CALLS[p.call].errors[i];
    must(p.cut || p.error);
    run(s, p);
}

static void run_scenario(void **state)
{
    const fault_scenario *s = *state;
    const char *only = getenv("NL_FAULT");
    size_t len = strlen(s->name);
    char words[160];
    uint32_t every = s->openssl ? FAULT_ALL : FAULT_ONLY(FAULT_OPENSSL) - 1;
    uint32_t kinds = s->kinds && !getenv("FAULTS_ALL") ? s->kinds : every;

    if (only && (strncmp(only, s->name, len) || only[len] != ','))
        return;
    mine.runs = mine.faults = 0;
    if (only && only[len + 1]) {
        snprintf(words, sizeof words, "%s", only + len + 1);
        run_named(s, words);
    } else {
        for (unsigned call = 0; call < FAULT_KINDS; call++)
            if (kinds & FAULT_ONLY(call))
                run_call(s, call);
    }
    alarm(0);
    total.runs += mine.runs;
    total.faults += mine.faults;
    print_message("%s: %lu runs, %lu of them with a fault\n", s->name, mine.runs, mine.faults);
}

int fault_main(const fault_scenario *scenarios, size_t n, void (*prepare)(void), void (*tidy)(void))
{
    struct CMUnitTest tests[64];
    int failed;

    must(n <= 64);
    signal(SIGALRM, on_alarm);
    if (prepare)
        prepare();
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ scenarios[i].name, run_scenario, kit_enter, kit_leave,
                                        (void *)(uintptr_t)&scenarios[i] };
    failed = _cmocka_run_group_tests("faults", tests, n, NULL, NULL);
    if (tidy)
        tidy();
    print_message("%lu runs, %lu of them with a fault\n", total.runs, total.faults);
    return failed;
}
