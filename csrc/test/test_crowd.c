/* Tests of many threads on one link: they are all woken, and what they send meanwhile leaves together, and in time.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Which thread comes when is the scheduler's choice. So the rules of a crowd are looked at with threads that are on
 * their way for as long as the test likes, because they exist only as a number in the link; real threads have a test of
 * their own.
 */
#include "link.h"

#include "kit.h"

#define ASKERS 12
#define ROUNDS 100

static void job_ask_often(job *j)
{
    for (j->n = 0; j->n < ROUNDS; j->n++) {
        nl_packet *answer;
        nl_ask ask;

        must_be(nl_ask_begin(j->link, &ask, ASK, NULL, 0, in_ms(PATIENCE_MS), NULL), NL_OK);
        must_be(retried(nl_ask_wait(&ask, in_ms(PATIENCE_MS), &answer)), NL_OK);
        nl_ask_end(&ask);
        must(answer->conn_id == ask.conn_id);
        nl_packet_free(answer);
    }
}

/* Also where the test has one processor only. */
static void set_in_turn(nl_link *link, bool in_turn)
{
    nl_link_lock(link);
    link->in_turn = in_turn;
    nl_link_unlock(link);
}

/* The peer answers whoever has asked in one write, so one read wakes them all. */
static void all_are_woken(bool in_turn)
{
    for_each_kind(k) {
        nl_link_config c = config_of(NL_CLIENT, *k);
        int peer;
        nl_link *link = link_and_peer(&c, true, &peer);
        job j[ASKERS];

        set_in_turn(link, in_turn);
        for (int i = 0; i < ASKERS; i++) {
            j[i] = (job){ .link = link };
            job_start(&j[i], job_ask_often);
        }
        for (int round = 0; round < ROUNDS; round++) {
            uint32_t ids[ASKERS];

            for (int i = 0; i < ASKERS; i++)
                ids[i] = peer_recv(peer, c.wire).id;
            for (int i = 0; i < ASKERS; i++)
                peer_send(peer, c.wire, ids[i], ANSWER, NULL, 0);
        }
        for (int i = 0; i < ASKERS; i++)
            job_join(&j[i]);
        must(stats_of(link).packets_received == ASKERS * ROUNDS && stats_of(link).waiters == 0);
        nl_link_lock(link);
        must(link->coming == 0 && link->called == 0 && nl_list_empty(&link->posted));
        nl_link_unlock(link);
        close(peer);
        link_free(link);
    }
}

static void test_all_are_woken(void **state)
{
    (void)state;
    all_are_woken(false);
    all_are_woken(true);
}

static bool is_left(nl_link *link, nl_waiter *w) NL_LOCKED
{
    (void)link;
    return !nl_list_empty(&w->posted);
}

/* Where they come in turn, one that was woken calls the next when it has had the lock (waiter_came); the next leader
 * waits for nobody. The waiters are threads that came to nl_waiter_sleep_locked() and no further. */
static void test_in_turn(void **state)
{
    (void)state;
    for (int in_turn = 0; in_turn < 2; in_turn++) {
        nl_link_config c = config_of(NL_CLIENT, KIND_2016);
        nl_waiter w[4];
        int peer;
        nl_link *link = link_and_peer(&c, false, &peer);

        set_in_turn(link, in_turn);
        nl_link_lock(link);
        for (int i = 0; i < 4; i++) {
            nl_waiter_init(&w[i]);
            w[i].asleep = true;
            w[i].leader = i == 3;
            nl_waiter_wake_locked(link, &w[i]);
        }
        must(link->coming == 4 && link->called == 0);
        nl_link_unlock(link);
        nl_link_lock(link);
        must(link->called == (in_turn ? 1 : 4) && w[3].called && is_left(link, &w[0]) == in_turn);
        for (int i = 3; i >= 0; i--) {
            /* the leader comes, and then, out of turn, who lost patience before it was called */
            must(nl_waiter_sleep_locked(link, &w[i], in_ms(PATIENCE_MS)) == 0);
            must(!w[i].called && !is_left(link, &w[i]) && link->coming == (unsigned)i);
            nl_link_unlock(link);
            nl_link_lock(link);
            must(link->called == (unsigned)(in_turn ? i > 0 : i));
            must(!in_turn || i == 0 || w[0].called);
        }
        nl_link_unlock(link);
        close(peer);
        link_free(link);
    }
}

/* A link whose waiters come in turn, and where threads may be so far ahead. Four wait to be called: w[0] was; the last one
 * is a thread of its own, `sleeper`, which waits for its turn when it was woken. */
typedef struct turns { nl_link *link; nl_waiter w[4]; job sleeper; int peer; } turns;

static void job_sleep(job *j)
{
    nl_waiter *w = j->arg;

    nl_link_lock(j->link);
    must(nl_waiter_sleep_locked(j->link, w, in_ms(PATIENCE_MS)) == 0);
    nl_link_unlock_and_leave(j->link);
}

static void turns_set_up(turns *t, unsigned ahead)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    nl_waiter *last = &t->w[3];

    t->link = link_and_peer(&c, false, &t->peer);
    wait_until(stats_of(t->link).rx_arms > 0);                  /* the poller lets go of the lock, too, when it watches */
    nl_link_lock(t->link);
    t->link->in_turn = true;
    t->link->rx.spin_ns = 1;                                    /* also with one processor */
    t->link->ahead = ahead;
    for (int i = 0; i < 4; i++)
        nl_waiter_init(&t->w[i]);
    t->sleeper = (job){ .link = t->link, .arg = last };
    job_start(&t->sleeper, job_sleep);
    while (!last->asleep) {                                     /* it may need the lock */
        nl_link_unlock(t->link);
        sched_yield();
        nl_link_lock(t->link);
    }
    for (int i = 0; i < 3; i++) {
        t->w[i].asleep = true;
        nl_waiter_wake_locked(t->link, &t->w[i]);
    }
    nl_list_push(&t->link->posted, &last->posted);              /* but its word is not set yet, or it might come at once */
    nl_link_unlock_and_leave(t->link);
    must(t->link->called == 1);
}

static void turns_tear_down(turns *t)
{
    nl_link_lock(t->link);
    for (int i = 0; i < 3; i++)
        nl_list_del(&t->w[i].posted);
    t->link->coming = t->link->called = 0;
    nl_link_unlock(t->link);
    close(t->peer);
    link_free(t->link);
}

/* Somebody else, with something to read already, falls asleep and comes. Returns how many are called by then. */
static unsigned another_sleeps(turns *t)
{
    unsigned called;
    nl_waiter w;

    nl_link_lock(t->link);
    nl_waiter_init(&w);
    atomic_store(&w.word, 1);
    must(nl_waiter_sleep_locked(t->link, &w, in_ms(PATIENCE_MS)) == 0);
    called = t->link->called;
    nl_link_unlock_and_leave(t->link);
    return called;
}

/* Somebody else falls asleep, and nobody wakes him. */
static bool times_out(turns *t)
{
    nl_waiter w;
    int r;

    nl_link_lock(t->link);
    nl_waiter_init(&w);
    r = nl_waiter_sleep_locked(t->link, &w, in_ms(1));
    nl_link_unlock_and_leave(t->link);
    return r == ETIMEDOUT;
}

/* Calls the last one, who finds the turn as it is. */
static void sleeper_comes(turns *t)
{
    nl_waiter *last = &t->w[3];

    nl_link_lock(t->link);
    atomic_store(&last->word, 1);
    nl_list_del(&last->posted);             /* and calls it at once, as if it had got the read token */
    nl_list_push(t->link->posted.next, &last->posted);
    last->leader = true;
    nl_link_unlock_and_leave(t->link);
    job_join(&t->sleeper);
}

/* Who goes to sleep calls as many as may be ahead; who leaves, or lets go of the lock for another reason, none beside the
 * one who is on the way. */
static void test_ahead(void **state)
{
    turns t;

    (void)state;
    turns_set_up(&t, 3 * NL_AHEAD_ONE);
    must(nl_link_enter(t.link));
    nl_link_leave(t.link);
    nl_link_lock(t.link);
    nl_link_unlock(t.link);
    must(t.link->called == 1);
    must(another_sleeps(&t) == 3);
    must(another_sleeps(&t) == 3 && is_left(t.link, &t.w[3]));
    sleeper_comes(&t);
    turns_tear_down(&t);
}

/* How many may be ahead is learnt: one more for each NL_AHEAD_ONE who went to sleep when nobody waited for the turn, up to
 * six; unless there is nobody to call, or nothing is to be tried. */
static void test_ahead_is_learnt(void **state)
{
    turns t;

    (void)state;
    turns_set_up(&t, NL_AHEAD_ONE);
    for (unsigned i = 1; i < NL_AHEAD_ONE; i++)
        must(another_sleeps(&t) == 1);
    must(another_sleeps(&t) == 2 && t.link->ahead == 2 * NL_AHEAD_ONE);
    atomic_store(&t.link->turn_awaited, true);
    another_sleeps(&t);
    atomic_store(&t.link->turn_awaited, false);
    t.link->rx.spin_ns = 0;
    another_sleeps(&t);
    t.link->rx.spin_ns = 1;
    t.link->in_turn = false;
    atomic_store(&t.w[3].word, 1);
    another_sleeps(&t);                                 /* which calls everybody */
    t.link->in_turn = true;
    must(t.link->ahead == 2 * NL_AHEAD_ONE && nl_list_empty(&t.link->posted));
    another_sleeps(&t);
    must(t.link->ahead == 2 * NL_AHEAD_ONE);
    job_join(&t.sleeper);
    turns_tear_down(&t);

    turns_set_up(&t, 6 * NL_AHEAD_ONE - 1);
    t.link->called = 6;
    another_sleeps(&t);
    another_sleeps(&t);
    must(t.link->ahead == 6 * NL_AHEAD_ONE && is_left(t.link, &t.w[3]));
    sleeper_comes(&t);
    turns_tear_down(&t);
}

/* The turn is taken by who comes, and kept when he leaves, until somebody lets go of the lock for another reason. Not
 * where nobody is ahead of it. */
static void test_turn(void **state)
{
    turns t;

    (void)state;
    turns_set_up(&t, NL_AHEAD_ONE);
    another_sleeps(&t);
    must(!atomic_load(&t.link->turn));
    t.link->ahead = 2 * NL_AHEAD_ONE;
    another_sleeps(&t);
    must(atomic_load(&t.link->turn));
    must(nl_link_enter(t.link));
    nl_link_leave(t.link);
    must(atomic_load(&t.link->turn));
    another_sleeps(&t);                     /* gives it up as he falls asleep, and finds it free as he comes */
    must(atomic_load(&t.link->turn) && stats_of(t.link).turn_waits == 0);
    must(!atomic_load(&t.link->turn));      /* for who asked for the statistics did not leave */
    must(times_out(&t) && !atomic_load(&t.link->turn));
    sleeper_comes(&t);                      /* it fell asleep when nobody was ahead */
    must(!atomic_load(&t.link->turn));
    while (!nl_list_empty(&t.link->posted))
        nl_list_del(t.link->posted.next);
    atomic_store(&t.link->turn, true);
    nl_link_lock(t.link);
    nl_link_unlock(t.link);                 /* also when there is nobody to call */
    must(!atomic_load(&t.link->turn));
    turns_tear_down(&t);
}

/* Who finds it taken waits, but not for ever; unless somebody waits already: then he is one too many. */
static void test_turn_is_taken(void **state)
{
    turns t;

    (void)state;
    turns_set_up(&t, 3 * NL_AHEAD_ONE);
    atomic_store(&t.link->turn, true);
    sleeper_comes(&t);
    must(atomic_load(&t.link->turn) && !atomic_load(&t.link->turn_awaited));
    must(t.link->ahead == 3 * NL_AHEAD_ONE && stats_of(t.link).turn_waits == 1);
    turns_tear_down(&t);

    for (unsigned n = 2; n > 0; n--) {
        turns_set_up(&t, 2 * NL_AHEAD_ONE);
        atomic_store(&t.link->turn, true);
        atomic_store(&t.link->turn_awaited, true);
        t.link->ahead = n * NL_AHEAD_ONE;
        sleeper_comes(&t);
        must(t.link->ahead == NL_AHEAD_ONE && stats_of(t.link).turn_waits == 0);
        turns_tear_down(&t);
    }
}

static void test_in_turn_is_asked_for(void **state)
{
    cpu_set_t all, one;
    size_t first = 0;

    (void)state;
    must(sched_getaffinity(0, sizeof all, &all) == 0);
    while (!CPU_ISSET(first, &all))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    for (int asked = 0; asked < 2; asked++) {
        for (int alone = 0; alone < 2; alone++) {
            nl_link_config c = config_of(NL_CLIENT, KIND_2016);
            nl_link *link;
            int peer;

            must(sched_setaffinity(0, sizeof all, alone ? &one : &all) == 0);
            c.in_turn = asked;
            link = link_and_peer(&c, false, &peer);
            must(link->in_turn == (asked && !alone && CPU_COUNT(&all) > 1));
            close(peer);
            link_free(link);
        }
    }
    must(sched_setaffinity(0, sizeof all, &all) == 0);
}

/* A link for which `n` woken threads are on their way. */
typedef struct crowd { nl_link *link; nl_conn *conn; int peer; } crowd;

static crowd crowd_of(unsigned n)
{
    nl_link_config c = config_of(NL_CLIENT, KIND_2016);
    crowd w;

    w.link = link_and_peer(&c, false, &w.peer);
    w.conn = conn_new(w.link);
    nl_link_lock(w.link);
    w.link->coming = n;
    nl_link_unlock(w.link);
    return w;
}

/* One of them has the lock. */
static void one_comes(crowd *w)
{
    nl_link_lock(w->link);
    w->link->coming--;
    nl_tx_came_locked(w->link);
    nl_link_unlock(w->link);
}

/* From now on nothing leaves by the timer: it is said to be set already. */
static void stop_timer(crowd *w)
{
    nl_link_lock(w->link);
    w->link->tx.corked = true;
    nl_link_unlock(w->link);
}

static void tell(crowd *w, size_t len)
{
    static const uint8_t bytes[4096];

    send_ok(w->conn, ASK, bytes, len);
}

static void crowd_free(crowd *w)
{
    nl_link_lock(w->link);
    w->link->coming = 0;
    nl_link_unlock(w->link);
    nl_conn_rele(w->conn);
    close(w->peer);
    link_free(w->link);
}

static void test_last_one_writes(void **state)
{
    crowd w = crowd_of(3);

    (void)state;
    stop_timer(&w);
    tell(&w, 8);
    one_comes(&w);
    tell(&w, 8);                                /* it does not wait for more than the first one does */
    one_comes(&w);
    peer_silent(w.peer);
    must(stats_of(w.link).tx_for_others == 2 && stats_of(w.link).tx_turns == 0);
    one_comes(&w);
    must(stats_of(w.link).tx_turns == 1 && stats_of(w.link).tx_bytes_queued == 0);
    peer_recv(w.peer, NL_WIRE_2016);
    peer_recv(w.peer, NL_WIRE_2016);
    crowd_free(&w);
}

/* Those who come are counted, not who they are: threads that are woken later count as well, so the wait has an end. */
static void test_others_count(void **state)
{
    crowd w = crowd_of(2);

    (void)state;
    stop_timer(&w);
    tell(&w, 8);
    for (int i = 0; i < 2; i++) {
        nl_link_lock(w.link);
        w.link->coming++;
        nl_link_unlock(w.link);
        one_comes(&w);
    }
    must(w.link->coming == 2 && stats_of(w.link).tx_bytes_queued == 0);
    peer_recv(w.peer, NL_WIRE_2016);
    crowd_free(&w);
}

/* One that is never given the processor does not keep what the others have sent. */
static void test_starved_thread(void **state)
{
    crowd w = crowd_of(2);

    (void)state;
    tell(&w, 8);
    must(stats_of(w.link).tx_for_others == 1);
    peer_recv(w.peer, NL_WIRE_2016);
    crowd_free(&w);
}

/* One thread on its way is no crowd; a large packet waits for nobody, and takes along what does. */
static void test_no_crowd(void **state)
{
    crowd w = crowd_of(1);

    (void)state;
    stop_timer(&w);
    tell(&w, 8);
    peer_recv(w.peer, NL_WIRE_2016);
    must(stats_of(w.link).tx_for_others == 0);
    crowd_free(&w);

    w = crowd_of(5);
    stop_timer(&w);
    tell(&w, 8);
    peer_silent(w.peer);
    tell(&w, 4096);
    peer_recv(w.peer, NL_WIRE_2016);
    peer_recv(w.peer, NL_WIRE_2016);
    for (int i = 0; i < 17; i++)                /* nor do many small ones */
        tell(&w, 1024);
    for (int i = 0; i < 17; i++)
        peer_recv(w.peer, NL_WIRE_2016);
    crowd_free(&w);
}

/* A close delivers what waits for a crowd that does not come. */
static void test_close_with_a_crowd(void **state)
{
    crowd w = crowd_of(2);

    (void)state;
    stop_timer(&w);
    tell(&w, 8);
    peer_silent(w.peer);
    must_be(nl_link_close(w.link, in_ms(PATIENCE_MS)), NL_OK);
    peer_recv(w.peer, NL_WIRE_2016);
    peer_eof(w.peer);
    crowd_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_are_woken), TEST(test_in_turn), TEST(test_ahead), TEST(test_ahead_is_learnt),
        TEST(test_turn), TEST(test_turn_is_taken), TEST(test_in_turn_is_asked_for), TEST(test_last_one_writes),
        TEST(test_others_count), TEST(test_starved_thread), TEST(test_no_crowd), TEST(test_close_with_a_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
