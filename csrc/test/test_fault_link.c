/* Fault injection: in every step of a link's life the n-th call into the system fails, for every n there is.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A scenario runs again and again; in run n the n-th call of one kind fails, until a run ends without having come so far.
 * Each run must end, in success or in an error that is on the list, with nothing left behind: the links' budgets at zero,
 * threads and descriptors as before, and under a leak checker no memory.
 */
#include "kit.h"

#include "buf.h"
#include "sys.h"

#include <fcntl.h>

/* ---- the fault --------------------------------------------------------------------------------------------------- */

static struct { sys_call call; int error; bool cut; atomic_long left; } plan;   /* fails the call that finds left at 1 */

int sys_fault(sys_call call, size_t *len)
{
    if (call != plan.call || atomic_load(&plan.left) <= 0 || atomic_fetch_sub(&plan.left, 1) != 1)
        return 0;
    if (plan.cut && len)
        *len = 1;
    return plan.cut ? 0 : plan.error;
}

static void plan_none(void) { atomic_store(&plan.left, 0); }

/* The error is one that a caller can do something with. */
static bool ok(nl_err e)
{
    switch (e) {
    case NL_OK:
        return true;
    case NL_ENOMEM:
    case NL_ESYS:
    case NL_ELINKDOWN:
        return false;
    default:
        kit_fail(__FILE__, __LINE__, "a failing call made %s", nl_err_name(e));
    }
}

static nl_err again(nl_err e) { return e == NL_EINTR || e == NL_ETIMEOUT ? NL_OK : e; }

/* ---- the scenarios ----------------------------------------------------------------------------------------------- */

/* A link that fails to be made leaves the descriptor as it was. */
static nl_link *try_link(int fd, const nl_link_config *c)
{
    nl_link *link = NULL;
    nl_fault why = { 0 };
    int flags = O_RDWR | O_NONBLOCK;

    must(fcntl(fd, F_SETFL, flags) == 0 && fcntl(fd, F_SETFD, 0) == 0);
    if (ok(nl_link_new(fd, c, in_ms(PATIENCE_MS), &link, &why)))
        return link;
    must(why.code != NL_OK && why.text[0]);
    must((fcntl(fd, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD) == 0);
    close(fd);
    return NULL;
}

static bool try_pair(pair *p)
{
    pair_config c = pair_default(KIND_2016);
    int fd[2];

    sockets_unix(fd);
    p->client = try_link(fd[0], &c.client);
    p->server = try_link(fd[1], &c.server);
    return p->client && p->server;
}

static void make(pair *p) { try_pair(p); }

static void open_conns(pair *p)
{
    nl_conn *conn[20] = { NULL };

    if (!try_pair(p))
        return;
    for (int i = 0; i < 20 && ok(nl_conn_new(p->client, &conn[i])); i++) ;
    for (int i = 0; i < 20; i++)
        nl_conn_rele(conn[i]);
}

static void send_and_accept(pair *p)
{
    nl_conn *c = NULL, *s = NULL;
    nl_packet *got = NULL;
    static char bytes[100000];

    if (!try_pair(p))
        return;
    if (ok(nl_conn_new(p->client, &c)) && ok(nl_conn_send(c, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL)) &&
        ok(again(nl_link_accept(p->server, in_ms(PATIENCE_MS), &s))) && s) {
        if (ok(nl_conn_send(c, ASK, bytes, sizeof bytes, in_ms(PATIENCE_MS), NULL)))
            for (int i = 0; i < 2; i++) {
                nl_err e;
                do
                    e = nl_conn_recv(s, in_ms(PATIENCE_MS), &got);
                while (e == NL_EINTR);
                if (!ok(e))
                    break;
                must(got->len == (i ? sizeof bytes : 3));
                nl_packet_free(got);
            }
    }
    nl_conn_rele(c);
    nl_conn_rele(s);
}

static void ask_and_answer(pair *p)
{
    job echo = { 0 };
    nl_ask ask;
    nl_packet *answer = NULL;
    nl_err e = NL_OK;

    if (!try_pair(p))
        return;
    echo.link = p->server;
    job_start(&echo, job_echo);
    for (int i = 0; i < 3 && e == NL_OK; i++) {
        if (!ok(e = nl_ask_begin(p->client, &ask, ASK, "abc", 3, in_ms(PATIENCE_MS), NULL)))
            break;
        /* The server may be unable to answer and live on: that is for the asker's own patience. */
        do
            e = nl_ask_wait(&ask, in_ms(300), &answer);
        while (e == NL_EINTR);
        if (again(e) == NL_OK)
            must((e == NL_OK) == (answer != NULL));
        else
            must(!ok(e));
        nl_ask_end(&ask);
        nl_packet_free(answer);
        answer = NULL;
    }
    nl_link_abort(p->client);
    nl_link_abort(p->server);
    job_join(&echo);
}

static void give_up_and_bury(pair *p)
{
    nl_conn *s = NULL;
    nl_ask ask;

    if (!try_pair(p))
        return;
    for (int i = 0; i < 40; i++) {
        if (!ok(nl_ask_begin(p->client, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL)))
            break;
        nl_ask_end(&ask);
        if (!ok(again(nl_link_accept(p->server, in_ms(300), &s))) || !s)
            break;
        nl_conn_rele(s);
        s = NULL;
    }
}

static void refuse(pair *p)
{
    nl_conn *c = NULL;
    nl_packet *got = NULL;
    nl_err e;

    if (!try_pair(p))
        return;
    nl_link_close_accept(p->server);
    if (ok(nl_conn_new(p->client, &c)) && ok(nl_conn_send(c, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL))) {
        do
            e = nl_conn_recv(c, in_ms(300), &got);      /* a reply is a courtesy: without memory there is none */
        while (e == NL_EINTR);
        if (again(e) != NL_OK)
            must(!ok(e));
        nl_packet_free(got);
    }
    nl_conn_rele(c);
}

static void many(pair *p)
{
    nl_out requests[30];
    nl_packet *answers[30] = { NULL };
    nl_ask_many *batch;
    job echo = { 0 };
    nl_err e;

    if (!try_pair(p))
        return;
    echo.link = p->server;
    job_start(&echo, job_echo);
    for (int i = 0; i < 30; i++)
        requests[i] = (nl_out){ "abc", 3, ASK };
    if (ok(nl_ask_many_begin(p->client, requests, answers, 30, &batch))) {
        do
            e = nl_ask_many_wait(batch, in_ms(300), NULL);
        while (e == NL_EINTR);
        if (again(e) != NL_OK)
            must(!ok(e));
        nl_ask_many_end(batch);
    }
    for (int i = 0; i < 30; i++)
        nl_packet_free(answers[i]);
    nl_link_abort(p->client);
    nl_link_abort(p->server);
    job_join(&echo);
}

/* close with bytes that wait for a slow peer. */
static void deliver_and_close(pair *p)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    static char bytes[1000000];
    nl_conn *conn = NULL;
    nl_err e;
    int fd[2];

    sockets_unix(fd);
    if ((p->client = try_link(fd[0], &c))) {
        if (ok(nl_conn_new(p->client, &conn)) &&
            ok(nl_conn_send(conn, ASK, bytes, sizeof bytes, in_ms(20), NULL))) {
            while ((e = nl_link_close(p->client, in_ms(2))) == NL_EINTR) ;
            must(e == NL_OK || e == NL_ETIMEOUT);
        }
        nl_conn_rele(conn);
    }
    close(fd[1]);
}

static const struct { const char *name; void (*run)(pair *); } scenarios[] = {
    { "make", make }, { "open_conns", open_conns }, { "send_and_accept", send_and_accept },
    { "ask_and_answer", ask_and_answer }, { "give_up_and_bury", give_up_and_bury }, { "refuse", refuse },
    { "many", many }, { "deliver_and_close", deliver_and_close },
};

/* ---- running them ------------------------------------------------------------------------------------------------ */

/* Links whose poller ends here are gone before what they left is counted. */
static void end(pair *p)
{
    plan_none();
    pair_free(p);
    nl_shutdown();
    nl_block_cache_clear();
}

static void run_all(sys_call call, int error, bool cut, long most)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        bool came = true;

        for (long n = 1; came && n <= most; n++) {
            size_t threads = kit_threads(), descriptors = kit_descriptors();
            pair p = { NULL, NULL };

            plan.call = call;
            plan.error = error;
            plan.cut = cut;
            atomic_store(&plan.left, n);
            scenarios[i].run(&p);
            came = atomic_load(&plan.left) <= 0;
            end(&p);
            wait_until(kit_threads() == threads);
            if (kit_descriptors() != descriptors)
                kit_fail(__FILE__, __LINE__, "%s, call %d, time %ld: descriptors are left", scenarios[i].name, call, n);
        }
        if (came && most > 30)
            kit_fail(__FILE__, __LINE__, "%s never came to its end", scenarios[i].name);
    }
}

/* S60 */
static void test_memory(void **state)       { (void)state; run_all(SC_MALLOC, ENOMEM, false, 200); }
static void test_recv(void **state)         { (void)state; run_all(SC_RECV, ECONNRESET, false, 30); }
static void test_recv_interrupted(void **state) { (void)state; run_all(SC_RECV, EINTR, false, 30); }
static void test_recv_short(void **state)   { (void)state; run_all(SC_RECV, 0, true, 30); }
static void test_sendmsg(void **state)      { (void)state; run_all(SC_SENDMSG, ECONNRESET, false, 30); }
static void test_sendmsg_interrupted(void **state) { (void)state; run_all(SC_SENDMSG, EINTR, false, 30); }
static void test_sendmsg_full(void **state) { (void)state; run_all(SC_SENDMSG, EAGAIN, false, 30); }
static void test_sendmsg_short(void **state) { (void)state; run_all(SC_SENDMSG, 0, true, 30); }
static void test_poll(void **state)         { (void)state; run_all(SC_POLL, ENOMEM, false, 30); }
static void test_poll_interrupted(void **state) { (void)state; run_all(SC_POLL, EINTR, false, 30); }
static void test_eventfd(void **state)      { (void)state; run_all(SC_EVENTFD, EMFILE, false, 30); }
static void test_epoll_create(void **state) { (void)state; run_all(SC_EPOLL_CREATE, EMFILE, false, 30); }
static void test_epoll_ctl(void **state)    { (void)state; run_all(SC_EPOLL_CTL, ENOSPC, false, 30); }
static void test_epoll_wait(void **state)   { (void)state; run_all(SC_EPOLL_WAIT, EINTR, false, 30); }
static void test_fcntl(void **state)        { (void)state; run_all(SC_FCNTL, EBADF, false, 30); }
static void test_setsockopt(void **state)   { (void)state; run_all(SC_SETSOCKOPT, ENOMEM, false, 30); }
static void test_thread(void **state)       { (void)state; run_all(SC_THREAD, EAGAIN, false, 30); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_memory), TEST(test_recv), TEST(test_recv_interrupted), TEST(test_recv_short), TEST(test_sendmsg),
        TEST(test_sendmsg_interrupted), TEST(test_sendmsg_full), TEST(test_sendmsg_short), TEST(test_poll),
        TEST(test_poll_interrupted), TEST(test_eventfd), TEST(test_epoll_create), TEST(test_epoll_ctl),
        TEST(test_epoll_wait), TEST(test_fcntl), TEST(test_setsockopt), TEST(test_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
