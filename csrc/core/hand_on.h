/* The lines that hand a token on or wake somebody, marked and named, so that each can be knocked out.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * HAND_ON(site, call) is the call, no more. In a build with -DNL_KNOCKOUTS it does nothing when the environment's
 * NL_KNOCKOUT is the name of its site: so one build serves to show that some test fails without each of these lines
 * (make -C csrc knockouts). csrc/model/link.pml marks its lines with the same names. HANDED_ON() is for a call that
 * tells whether it did so.
 */
#ifndef NL_HAND_ON_H
#define NL_HAND_ON_H

#ifdef NL_KNOCKOUTS
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool nl_is_knocked_out(const char *site)
{
    const char *out = getenv("NL_KNOCKOUT");

    return out && strcmp(out, site) == 0;
}

#define HAND_ON(site, call)     do { if (!nl_is_knocked_out(#site)) { call; } } while (0)
#define HANDED_ON(site, call)   (!nl_is_knocked_out(#site) && (call))
#else
#define HAND_ON(site, call)     do { call; } while (0)
#define HANDED_ON(site, call)   (call)
#endif

#endif
