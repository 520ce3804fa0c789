/* Throttle: at most one line for each reason in a second, and how many there would have been.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Strangers decide how often something fails, and in part also what the reason reads. So reasons are kept in a fixed
 * number of slots; when each slot has a reason of the last second, the others share one more. The memory and the
 * lines of a second are bounded, whatever comes: NL_THROTTLE_REASONS + 1. The caller brings the time.
 */
#ifndef NL_THROTTLE_H
#define NL_THROTTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NL_THROTTLE_REASONS 8
#define NL_THROTTLE_NS      INT64_C(1000000000)

typedef struct nl_throttle_slot {
    uint64_t reason;        /* a hash of its text */
    int64_t  said_ns;       /* when the last line was let through; of a slot with `used` */
    uint64_t held_back;     /* since then */
    bool     used;
} nl_throttle_slot;

typedef struct nl_throttle {
    nl_throttle_slot slots[NL_THROTTLE_REASONS + 1];    /* zeroed at first; the last one is for all that find no room */
} nl_throttle;

/* Whether this one shall be told, which stands for `*others` more of its kind; then *others is how many were not told
 * since the last that was, these included. */
bool nl_throttle_pass(nl_throttle *throttle, const char *reason, int64_t now_ns, uint64_t *others);

#endif
