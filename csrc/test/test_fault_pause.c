/* A thread is held up at each point of a call that waits, and meanwhile comes what should end that wait.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A point is where a thread without a lock is about to take one or to sleep, or has just done so (core/sys.h): between
 * two points nothing of another thread's can come in. In run n the caller stops at its n-th point. Then the act
 * happens, to its end as far as it does not depend on the caller, and the caller goes on: it must find out. Runs go on
 * until a call ends without having come to so many points. A wake-up that is lost at one of them is a call that hangs
 * there.
 */
#include "kit.h"

#include "sys.h"

typedef enum wait_kind { RECV, ACCEPT, ASK_WAIT } wait_kind;
typedef enum event { CLOSE_IT, CLOSE_RECV, CLOSE_LINK, ABORT, PACKET, END, PACKET_AT_DEADLINE } event;

static struct {
    atomic_long left;               /* the thread stops at the point that finds it at 1 */
    atomic_bool held, go, asleep;   /* it stands there; it may go; it has come to its last sleep */
} plan;
static _Thread_local bool is_watched;

int sys_fault(sys_call call, size_t *len)
{
    (void)call;
    (void)len;
    return 0;
}

void sys_pause(sys_point point)
{
    if (!is_watched)
        return;
    if (atomic_fetch_sub(&plan.left, 1) == 1) {
        atomic_store(&plan.held, true);
        while (!atomic_load(&plan.go))
            kit_pause();
    }
    if (point == SP_POLL || point == SP_FUTEX)
        atomic_store(&plan.asleep, true);
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

/* A link over a plain peer, the call under watch, and whom it may follow. */
typedef struct run {
    nl_link *link;
    nl_conn *conn;
    int      peer;
    uint32_t peer_id;       /* of `conn`, or of the ask */
    nl_ask   ask;
    job      caller, leader, closer;
    wait_kind op;
    event    act;
    bool     follows;
} run;

static void watched_call(job *j)
{
    run *r = j->arg;

    is_watched = true;
    if (r->op == RECV)
        job_recv(j);
    else if (r->op == ACCEPT)
        job_accept(j);
    else
        do
            j->result = nl_ask_wait(&r->ask, j->deadline, &j->packet);
        while (j->result == NL_EINTR);
    is_watched = false;
}

static void run_begin(run *r, wait_kind op, event act, bool follows)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);

    c.limits.spin_ns = 0;
    *r = (run){ .op = op, .act = act, .follows = follows };
    r->link = link_and_peer(&c, false, &r->peer);
    if (op == RECV) {
        r->conn = conn_new(r->link);
        send_ok(r->conn, ASK, NULL, 0);
        r->peer_id = peer_recv(r->peer, c.wire).id;
    } else if (op == ASK_WAIT) {
        must_be(nl_ask_begin(r->link, &r->ask, ASK, NULL, 0, NL_FOREVER, NULL), NL_OK);
        r->peer_id = peer_recv(r->peer, c.wire).id;
    } else {
        r->peer_id = 2;
    }
    if (follows) {
        r->leader = (job){ .conn = conn_new(r->link) };
        job_start(&r->leader, job_recv);
        wait_until(stats_of(r->link).waiters == 1);
    }
    r->caller = (job){ .arg = r, .link = r->link, .conn = r->conn };
}

/* The caller itself has to read: nobody leads besides, or a signal that the test did not send interrupted who did. */
static bool caller_leads(const run *r)
{
    return !r->follows || stats_of(r->link).rx_handovers;
}

/* What comes while the caller is held up. It has come when this returns, unless the caller itself has to read it. */
static void run_act(run *r)
{
    switch (r->act) {
    case CLOSE_IT:
        if (r->op == RECV)
            nl_conn_close(r->conn);
        else
            nl_link_close_accept(r->link);
        break;
    case CLOSE_RECV:
        nl_conn_close_recv(r->conn);
        break;
    case CLOSE_LINK:
        r->closer = (job){ .link = r->link };
        job_start(&r->closer, job_close);
        wait_until(nl_link_is_closed(r->link));
        break;
    case ABORT:
        nl_link_abort(r->link);
        break;
    case END:
        close(r->peer);
        r->peer = -1;
        wait_until(caller_leads(r) || nl_link_is_closed(r->link));
        break;
    case PACKET_AT_DEADLINE:
        wait_until(nl_now_ns() > r->caller.deadline);
        __attribute__((fallthrough));
    case PACKET:
        peer_send(r->peer, NL_WIRE_2016, r->peer_id, r->op == ACCEPT ? ASK : ANSWER, NULL, 0);
        wait_until(caller_leads(r) || stats_of(r->link).packets_received == 1);
    }
}

/* The call that timed out had nothing; then the packet is there for the next one, or is counted as late. */
static void must_not_be_lost(run *r)
{
    if (r->op == RECV) {
        recv_is(r->conn, ANSWER);
    } else if (r->op == ACCEPT) {
        nl_conn_rele(accept_ok(r->link));
    } else {
        nl_ask_end(&r->ask);
        wait_until(stats_of(r->link).late_answers == 1);
    }
}

static void run_check(run *r)
{
    static const nl_err ends[] = { [CLOSE_RECV] = NL_ECONNCLOSED, [CLOSE_LINK] = NL_ELINKCLOSED,
                                   [ABORT] = NL_ELINKCLOSED, [PACKET] = NL_OK, [END] = NL_ELINKDOWN };
    nl_err got = r->caller.result;

    if (r->act == CLOSE_IT)
        must_be(got, r->op == RECV ? NL_ECONNCLOSED : NL_ENOTACCEPTING);
    else if (r->act == PACKET_AT_DEADLINE)
        must(got == NL_OK || got == NL_ETIMEOUT);
    else
        must_be(got, ends[r->act]);
    must((got == NL_OK) == (r->op == ACCEPT ? r->caller.conn != NULL : r->caller.packet != NULL));
    if (got == NL_ETIMEOUT)
        must_not_be_lost(r);
}

static void run_end(run *r)
{
    nl_link_abort(r->link);
    if (r->op == ASK_WAIT)
        nl_ask_end(&r->ask);
    if (r->act == CLOSE_LINK)
        job_join(&r->closer);
    if (r->follows) {
        job_join(&r->leader);
        nl_conn_rele(r->leader.conn);
    }
    nl_packet_free(r->caller.packet);
    nl_conn_rele(r->caller.conn);
    if (r->peer >= 0)
        close(r->peer);
    link_free(r->link);
}

/* The n-th run; false: the call has fewer points. */
static bool run_nth(long n, wait_kind op, event act, bool follows)
{
    run r;
    bool held;

    run_begin(&r, op, act, follows);
    atomic_store(&plan.left, n);
    atomic_store(&plan.held, false);
    atomic_store(&plan.go, false);
    atomic_store(&plan.asleep, false);
    if (act == PACKET_AT_DEADLINE)
        r.caller.deadline = in_ms(2);
    job_start(&r.caller, watched_call);
    if (act == PACKET_AT_DEADLINE)                  /* it wakes by itself, and passes all its points */
        wait_until(atomic_load(&plan.held) || atomic_load(&r.caller.done));
    else
        wait_until(atomic_load(&plan.held) || atomic_load(&plan.asleep));
    run_act(&r);
    atomic_store(&plan.go, true);
    job_join(&r.caller);
    held = atomic_load(&plan.held);
    run_check(&r);
    run_end(&r);
    return held;
}

static void run_all(wait_kind op, event act)
{
    for (int follows = 0; follows < 2; follows++) {
        long n = 1;

        while (run_nth(n, op, act, follows))
            n++;
        must(n > 5);                                /* or it never stood where it matters */
    }
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

/* S6: as the leader, who sleeps in read and poll, and as a follower, who sleeps on a futex. */
static void test_recv(void **state)
{
    (void)state;
    run_all(RECV, CLOSE_IT);
    run_all(RECV, CLOSE_RECV);
    run_all(RECV, CLOSE_LINK);
    run_all(RECV, ABORT);
    run_all(RECV, PACKET);
    run_all(RECV, END);
}

static void test_accept(void **state)
{
    (void)state;
    run_all(ACCEPT, CLOSE_IT);
    run_all(ACCEPT, CLOSE_LINK);
    run_all(ACCEPT, PACKET);
    run_all(ACCEPT, END);
}

static void test_ask(void **state)
{
    (void)state;
    run_all(ASK_WAIT, CLOSE_LINK);
    run_all(ASK_WAIT, ABORT);
    run_all(ASK_WAIT, PACKET);
    run_all(ASK_WAIT, END);
}

/* S33, S34: the packet comes when the deadline has passed, with the call at any of its points: it is had by this call
 * or is there for the next, and a late answer is counted. */
static void test_packet_at_the_deadline(void **state)
{
    (void)state;
    run_all(RECV, PACKET_AT_DEADLINE);
    run_all(ACCEPT, PACKET_AT_DEADLINE);
    run_all(ASK_WAIT, PACKET_AT_DEADLINE);
}

static void watched_send(job *j)
{
    is_watched = true;
    j->result = nl_conn_send(j->conn, ASK, "left", 4, NL_FOREVER, NULL);
    is_watched = false;
}

/* The n-th run of a send during which the peer takes what came and hangs up; *left: something had come. */
static bool send_nth(long n, bool *left)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    job caller = { 0 }, leader = { 0 };
    struct pollfd come = { .events = POLLIN };
    nl_link *link = link_and_peer(&c, false, &come.fd);

    leader.conn = conn_new(link);
    job_start(&leader, job_recv);
    wait_until(stats_of(link).waiters == 1);
    caller.conn = conn_new(link);
    atomic_store(&plan.left, n);
    atomic_store(&plan.held, false);
    atomic_store(&plan.go, false);
    job_start(&caller, watched_send);
    wait_until(atomic_load(&plan.held) || atomic_load(&caller.done));
    *left = poll(&come, 1, 0) > 0;
    close(come.fd);
    wait_until(end_was_read(link));
    atomic_store(&plan.go, true);
    job_join(&caller);
    job_join(&leader);
    if (*left)
        must_be(caller.result, NL_OK);
    nl_conn_rele(caller.conn);
    nl_conn_rele(leader.conn);
    link_free(link);
    return atomic_load(&plan.held);
}

/* What has left was sent: an end that is read before the sender has its lock again changes nothing. */
static void test_sent_before_the_end(void **state)
{
    bool left, ever = false;

    (void)state;
    for (long n = 1; send_nth(n, &left); n++)
        ever |= left;
    must(ever);                                     /* one of the points is behind the write */
}

/* S60: the count of locks, by which the bindings assert that none is held where the GIL is taken, does count. */
static void test_locks_are_counted(void **state)
{
    pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER, two = PTHREAD_MUTEX_INITIALIZER;

    (void)state;
    must(nl_locks_held() == 0);
    pthread_mutex_lock(&one);
    pthread_mutex_lock(&two);
    must(nl_locks_held() == 2);
    pthread_mutex_unlock(&one);
    pthread_mutex_unlock(&two);
    must(nl_locks_held() == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_recv), TEST(test_accept), TEST(test_ask), TEST(test_packet_at_the_deadline),
        TEST(test_sent_before_the_end), TEST(test_locks_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
