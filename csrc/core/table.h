/* The id table of a link: (who opened it, id) to an open Conn, or to the memory that there was one.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Open addressing with linear probing and backward-shift deletion: no per-entry allocation, O(1), and it shrinks again:
 * to a thousand slots by itself, to what it needs when its link is idle.
 * Tombs are what is left of a Conn that was closed (its id still answers "connection closed") or of an ask that was
 * given up (its answer counts as late). They live for a time and there is a bounded number of them: a ring remembers
 * their order, and each carries its place in that order, so that a tomb that expires never takes a new Conn of the same
 * id with it. The caller locks.
 */
#ifndef NL_TABLE_H
#define NL_TABLE_H

#include "neolink.h"

#define NL_TOMBS_MAX 1024u      /* per link; the oldest goes first. More would make an idle link heavy for a courtesy */

typedef enum nl_entry { NL_ENTRY_NONE, NL_ENTRY_CONN, NL_ENTRY_CLOSED, NL_ENTRY_LATE } nl_entry;

typedef struct nl_slot { uint64_t key; uint64_t val; } nl_slot;
typedef struct nl_tomb { uint64_t key; int64_t expires_ns; } nl_tomb;

typedef struct nl_table {
    nl_slot *slots;             /* cap of them; val 0 is empty */
    size_t   cap, used;
    size_t   conns;             /* entries that are Conns */
    nl_tomb *tombs;             /* ring: tomb number s is tombs[s % tomb_cap] */
    size_t   tomb_cap;
    uint64_t tomb_first, tomb_next;
} nl_table;

static inline uint64_t nl_key(bool ours, uint32_t id) { return (uint64_t)id << 1 | ours; }

void     nl_table_fini(nl_table *t);
nl_entry nl_table_find(const nl_table *t, uint64_t key, nl_conn **conn);
nl_err   nl_table_put(nl_table *t, uint64_t key, nl_conn *conn);        /* over a tomb too. NL_ENOMEM;
                                                                         * NL_EINVAL: there is a Conn already */
void     nl_table_drop(nl_table *t, uint64_t key);
void     nl_table_trim(nl_table *t);                                    /* nobody is in a hurry: it may be small */
/* Replaces what stands at key. Out of memory it is simply dropped: a tomb is a courtesy. */
void     nl_table_bury(nl_table *t, uint64_t key, nl_entry kind, int64_t expires_ns);
void     nl_table_expire(nl_table *t, int64_t now_ns);
/* Walks the Conns: *at starts at 0; NULL at the end. No change of the table in between. */
nl_conn *nl_table_next(const nl_table *t, size_t *at);

#endif
