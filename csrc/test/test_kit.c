/* Tests of the test words: what must fail, fails.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each bad thing is done in a child process, which must end badly.
 */
#include "kit.h"

#include "buf.h"

static void nothing(void *arg)          { (void)arg; }
static void lie(void *arg)              { (void)arg; must(1 + 1 == 3); }
static void wrong_error(void *arg)      { (void)arg; must_be(NL_OK, NL_ETIMEOUT); }
static void leak_descriptor(void *arg)  { (void)arg; kit_enter(NULL); must(dup(1) >= 0); kit_leave(NULL); }
static void balanced(void *arg)         { (void)arg; kit_enter(NULL); close(dup(1)); kit_leave(NULL); }
static void wait_in_vain(void *arg)     { (void)arg; wait_until(0); }
static void sleep_for_ever(job *j)      { (void)j; pause(); }
static void fail_in_thread(job *j)      { (void)j; must(0); }

static void leak_thread(void *arg)
{
    static job j;

    (void)arg;
    kit_enter(NULL);
    job_start(&j, sleep_for_ever);
    kit_leave(NULL);
}

static void hang_in_job(void *arg)
{
    static job j;

    (void)arg;
    job_start(&j, sleep_for_ever);
    job_join(&j);
}

static void thread_that_fails(void *arg)
{
    static job j;

    (void)arg;
    job_start(&j, fail_in_thread);
    for (;;)
        pause();
}

static void leave_a_link(void *arg)
{
    pair p;

    (void)arg;
    kit_enter(NULL);
    p = pair_new(KIND_2016);
    link_free(p.client);
    kit_leave(NULL);
}

static void test_good_things_pass(void **state)
{
    (void)state;
    must(!fails(nothing, NULL));
    must(!fails(balanced, NULL));
}

static void test_bad_things_fail(void **state)
{
    (void)state;
    must(fails(lie, NULL));
    must(fails(wrong_error, NULL));
    must(fails(thread_that_fails, NULL));
}

/* These fail when patience ends, which a child has less of. */
static void short_of_patience(void *arg)
{
    kit_patience_ms = 200;
    ((void (*)(void *))arg)(NULL);
}

static void test_what_is_left_behind_is_seen(void **state)
{
    void (*acts[])(void *) = { leak_descriptor, leak_thread, leave_a_link, wait_in_vain, hang_in_job };

    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        must(fails(short_of_patience, (void *)acts[i]));
}

static void test_payloads_are_what_the_wire_takes(void **state)
{
    (void)state;
    for_each_kind(k)
        for (size_t n = 0; n < 300; n++) {
            uint8_t *p = payload_new(k->wire, n, 3), *q = payload_new(k->wire, n, 4);
            nl_packet packet = { .payload = p, .len = n };
            must_be(nl_wire_check(k->wire, p, n), NL_OK);
            must(n == 0 || payload_is(k->wire, &packet, n, 3));
            must(n < 20 || !payload_is(k->wire, &packet, n, 4));
            free(p);
            free(q);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_things_pass), cmocka_unit_test(test_bad_things_fail),
        cmocka_unit_test(test_what_is_left_behind_is_seen), cmocka_unit_test(test_payloads_are_what_the_wire_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
