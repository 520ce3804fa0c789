/* Throttle: see throttle.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A slot whose second is over may be taken by another reason; what it held back is then told with that one's line, so
 * that no failure goes uncounted while any are told.
 */
#include "throttle.h"

static uint64_t hash(const char *text)
{
    uint64_t h = UINT64_C(14695981039346656037);                /* FNV-1a: who collides is told with another */
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * UINT64_C(1099511628211);
    return h;
}

static bool is_over(const nl_throttle_slot *slot, int64_t now_ns)
{
    return !slot->used || now_ns - slot->said_ns >= NL_THROTTLE_NS;
}

/* The reason's own slot, or one that nobody needs any more, or the one for all others. */
static nl_throttle_slot *find(nl_throttle *throttle, uint64_t reason, int64_t now_ns)
{
    nl_throttle_slot *free_slot = NULL;

    for (int i = 0; i < NL_THROTTLE_REASONS; i++) {
        nl_throttle_slot *slot = &throttle->slots[i];
        if (slot->used && slot->reason == reason)
            return slot;
        if (!free_slot && is_over(slot, now_ns))
            free_slot = slot;
    }
    return free_slot ? free_slot : &throttle->slots[NL_THROTTLE_REASONS];
}

bool nl_throttle_pass(nl_throttle *throttle, const char *reason, int64_t now_ns, uint64_t *others)
{
    uint64_t which = hash(reason);
    nl_throttle_slot *slot = find(throttle, which, now_ns);

    if (!is_over(slot, now_ns)) {
        slot->held_back += 1 + *others;
        return false;
    }
    *others += slot->held_back;
    *slot = (nl_throttle_slot){.reason = which, .said_ns = now_ns, .used = true};
    return true;
}
