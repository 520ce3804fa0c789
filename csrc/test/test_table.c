/* Tests of the id table: random operations next to a plain model, and what tombs must never do.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The model is an array indexed by key. Few keys and many operations make runs of neighbours that wrap around the end
 * of the table, which is where backward-shift deletion goes wrong when it goes wrong.
 */
#include "kit.h"

#include "table.h"

#define KEYS 96u

typedef struct model { nl_entry kind[KEYS]; nl_conn *conn[KEYS]; int64_t expires[KEYS]; } model;

static uint32_t rnd(uint32_t *state)            /* xorshift: the same run every time */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static nl_conn *fake(uint32_t n) { return (nl_conn *)(uintptr_t)(0x1000 + n * 16); }

static void compare(const nl_table *t, const model *m, uint32_t first)
{
    size_t conns = 0, walked = 0, at = 0;

    for (uint32_t k = 0; k < KEYS; k++) {
        nl_conn *conn = NULL;
        must(nl_table_find(t, nl_key(k & 1, first + k / 2), &conn) == m->kind[k]);
        must(m->kind[k] != NL_ENTRY_CONN || conn == m->conn[k]);
        conns += m->kind[k] == NL_ENTRY_CONN;
    }
    must(t->conns == conns);
    while (nl_table_next(t, &at))
        walked++;
    must(walked == conns);
}

static void expire_model(model *m, int64_t now)
{
    for (uint32_t k = 0; k < KEYS; k++)
        if ((m->kind[k] == NL_ENTRY_CLOSED || m->kind[k] == NL_ENTRY_LATE) && m->expires[k] <= now)
            m->kind[k] = NL_ENTRY_NONE;
}

/* S29: among them a Conn put over its own tomb, whose expiry then comes. */
static void run_model(uint32_t seed, uint32_t first)
{
    nl_table t = { 0 };
    model m = { 0 };
    int64_t now = 0;
    uint32_t state = seed;

    for (uint32_t step = 0; step < 4000; step++) {
        uint32_t k = rnd(&state) % KEYS;
        uint64_t key = nl_key(k & 1, first + k / 2);

        switch (rnd(&state) % 5) {
        case 0:
        case 1:
            if (m.kind[k] == NL_ENTRY_CONN) {
                must_be(nl_table_put(&t, key, fake(step)), NL_EINVAL);
                break;
            }
            must_be(nl_table_put(&t, key, fake(step)), NL_OK);
            m.kind[k] = NL_ENTRY_CONN;
            m.conn[k] = fake(step);
            break;
        case 2:
            nl_table_drop(&t, key);
            m.kind[k] = NL_ENTRY_NONE;
            break;
        case 3:
            m.kind[k] = rnd(&state) & 1 ? NL_ENTRY_CLOSED : NL_ENTRY_LATE;
            m.expires[k] = now + 50;            /* one lifetime for all, as on a link: the ring is in order */
            nl_table_bury(&t, key, m.kind[k], m.expires[k]);
            break;
        default:
            now += rnd(&state) % 20;
            nl_table_expire(&t, now);
            expire_model(&m, now);
        }
        compare(&t, &m, first);
    }
    nl_table_fini(&t);
}

static void test_table_random_operations(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 12; seed++)
        run_model(seed * 2654435761u, seed * 0x10000001u);
    run_model(7, UINT32_MAX - KEYS / 4);        /* ids wrap around */
}

static void test_table_grows_and_shrinks(void **state)
{
    nl_table t = { 0 };
    nl_conn *conn;

    (void)state;
    for (uint32_t id = 0; id < 100000; id++)
        must_be(nl_table_put(&t, nl_key(true, id), fake(id)), NL_OK);
    must(t.conns == 100000);
    for (uint32_t id = 0; id < 100000; id++)
        must(nl_table_find(&t, nl_key(true, id), &conn) == NL_ENTRY_CONN && conn == fake(id));
    for (uint32_t id = 0; id < 100000; id++)
        nl_table_drop(&t, nl_key(true, id));
    must(t.conns == 0 && t.used == 0 && t.cap == 1024);
    nl_table_trim(&t);
    must(t.cap == 8);
    nl_table_fini(&t);
}

/* What comes and goes in batches has its table made once. When the link is idle it is small, and loses nothing. */
static void test_table_stays_for_the_next_batch(void **state)
{
    nl_table t = { 0 };
    nl_slot *slots = NULL;
    nl_conn *conn;

    (void)state;
    for (uint32_t batch = 0; batch < 3; batch++) {
        for (uint32_t id = 0; id < 512; id++)
            must_be(nl_table_put(&t, nl_key(true, batch * 512 + id), fake(id)), NL_OK);
        must(batch == 0 || t.slots == slots);
        slots = t.slots;
        for (uint32_t id = 0; id < 512; id++)
            nl_table_drop(&t, nl_key(true, batch * 512 + id));
        must(t.slots == slots && t.used == 0);
    }
    for (uint32_t id = 0; id < 20; id++)
        must_be(nl_table_put(&t, nl_key(true, id), fake(id)), NL_OK);
    nl_table_trim(&t);
    must(t.cap == 64);
    for (uint32_t id = 0; id < 20; id++)
        must(nl_table_find(&t, nl_key(true, id), &conn) == NL_ENTRY_CONN && conn == fake(id));
    nl_table_fini(&t);
}

/* S22, S26: tombs are bounded, and the oldest goes first. */
static void test_table_bounds_its_tombs(void **state)
{
    nl_table t = { 0 };
    nl_conn *conn;
    uint32_t n = NL_TOMBS_MAX * 3;

    (void)state;
    for (uint32_t id = 0; id < n; id++)
        nl_table_bury(&t, nl_key(false, id), NL_ENTRY_CLOSED, 1000);
    must(t.used == NL_TOMBS_MAX && t.tomb_cap == NL_TOMBS_MAX);
    must(nl_table_find(&t, nl_key(false, n - NL_TOMBS_MAX - 1), &conn) == NL_ENTRY_NONE);
    must(nl_table_find(&t, nl_key(false, n - NL_TOMBS_MAX), &conn) == NL_ENTRY_CLOSED);
    must(nl_table_find(&t, nl_key(false, n - 1), &conn) == NL_ENTRY_CLOSED);
    nl_table_expire(&t, 1000);
    must(t.used == 0);
    nl_table_fini(&t);
}

/* S29 */
static void test_tomb_never_takes_a_new_conn(void **state)
{
    nl_table t = { 0 };
    nl_conn *conn = NULL;
    uint64_t key = nl_key(false, 8);

    (void)state;
    nl_table_bury(&t, key, NL_ENTRY_CLOSED, 10);
    must_be(nl_table_put(&t, key, fake(1)), NL_OK);
    nl_table_expire(&t, 10);
    must(nl_table_find(&t, key, &conn) == NL_ENTRY_CONN && conn == fake(1));
    nl_table_bury(&t, key, NL_ENTRY_CLOSED, 30);        /* closed again: the new tomb has a time of its own */
    nl_table_expire(&t, 20);
    must(nl_table_find(&t, key, &conn) == NL_ENTRY_CLOSED);
    nl_table_bury(&t, key, NL_ENTRY_LATE, 40);          /* and a tomb over a tomb lives by the second one's */
    nl_table_expire(&t, 30);
    must(nl_table_find(&t, key, &conn) == NL_ENTRY_LATE);
    nl_table_expire(&t, 40);
    must(nl_table_find(&t, key, &conn) == NL_ENTRY_NONE && t.used == 0);
    nl_table_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_table_random_operations), TEST(test_table_grows_and_shrinks),
        TEST(test_table_stays_for_the_next_batch), TEST(test_table_bounds_its_tombs),
        TEST(test_tomb_never_takes_a_new_conn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
