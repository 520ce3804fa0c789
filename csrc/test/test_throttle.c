/* Tests of the throttle: which lines pass, how many are counted, whatever strangers make of the reasons.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The time is the tests' own: nothing here waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "throttle.h"

#define SECOND NL_THROTTLE_NS

static void test_the_first_of_each_kind_passes(void **state)
{
    nl_throttle throttle = {0};
    uint64_t others = 0;

    (void)state;
    assert_true(nl_throttle_pass(&throttle, "HTTP", 0, &others));
    assert_int_equal(others, 0);
    assert_true(nl_throttle_pass(&throttle, "TLS", 0, &others));
    assert_false(nl_throttle_pass(&throttle, "HTTP", SECOND - 1, &others));
}

static void test_one_a_second_and_none_uncounted(void **state)
{
    nl_throttle throttle = {0};
    uint64_t others, lines = 0, counted = 0;
    const int64_t step = SECOND / 1000;

    (void)state;
    for (int64_t i = 0; i <= 10000; i++) {
        others = 0;
        if (nl_throttle_pass(&throttle, "HTTP", i * step, &others)) {
            lines++;
            counted += 1 + others;
        }
    }
    assert_int_equal(lines, 11);
    assert_int_equal(counted, 10001);
}

/* A peer may send something else each time. */
static void test_reasons_without_end(void **state)
{
    nl_throttle throttle = {0};
    uint64_t others, lines = 0, counted = 0;

    (void)state;
    for (int i = 0; i < 5000; i++) {
        char reason[32];
        others = 0;
        snprintf(reason, sizeof reason, "nonsense %d", i);
        if (nl_throttle_pass(&throttle, reason, i, &others)) {
            lines++;
            counted += 1 + others;
        }
    }
    assert_int_equal(lines, NL_THROTTLE_REASONS + 1);
    for (int i = 0; i <= NL_THROTTLE_REASONS; i++)              /* a second later each slot tells what it held back */
        counted += throttle.slots[i].held_back;
    assert_int_equal(counted, 5000);
    uint64_t throttle_held = throttle.slots[0].held_back;       /* it comes first, and its second is over */
    others = 3;
    assert_true(nl_throttle_pass(&throttle, "nonsense 0", 2 * SECOND, &others));
    assert_int_equal(others, 3 + throttle_held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_of_each_kind_passes),
        cmocka_unit_test(test_one_a_second_and_none_uncounted),
        cmocka_unit_test(test_reasons_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
