/* The id table. See table.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A slot's val: a Conn's address (low bits 00), or the tomb's number shifted over a tag.
 */
#include "table.h"

#include "sys.h"

#define TAG_CLOSED 1u
#define TAG_LATE   2u
#define CAP_MIN    ((size_t)8)
#define CAP_KEPT   ((size_t)1024)       /* stays so large until it is trimmed: what came in a batch comes again */

static size_t home(const nl_table *t, uint64_t key)     /* Fibonacci hashing: ids come in steps of two */
{
    return (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & (t->cap - 1);
}

/* The slot of a key, or the empty one where it belongs. There is always an empty one. */
static nl_slot *probe(const nl_table *t, uint64_t key)
{
    size_t i = home(t, key);

    while (t->slots[i].val && t->slots[i].key != key)
        i = (i + 1) & (t->cap - 1);
    return &t->slots[i];
}

static nl_slot *find(const nl_table *t, uint64_t key)
{
    nl_slot *s = t->cap ? probe(t, key) : NULL;

    return s && s->val ? s : NULL;
}

static bool is_tomb(uint64_t val)   { return (val & 3) != 0; }

static bool resize(nl_table *t, size_t cap)
{
    nl_slot *old = t->slots, *slots = sys_calloc(cap, sizeof *slots);
    size_t n = t->cap;

    if (!slots)
        return false;
    t->slots = slots;
    t->cap = cap;
    for (size_t i = 0; i < n; i++)
        if (old[i].val)
            *probe(t, old[i].key) = old[i];
    sys_free(old);
    return true;
}

void nl_table_fini(nl_table *t)
{
    sys_free(t->slots);
    sys_free(t->tombs);
    *t = (nl_table){ 0 };
}

nl_entry nl_table_find(const nl_table *t, uint64_t key, nl_conn **conn)
{
    const nl_slot *s = find(t, key);

    if (!s)
        return NL_ENTRY_NONE;
    if (is_tomb(s->val))
        return (s->val & 3) == TAG_LATE ? NL_ENTRY_LATE : NL_ENTRY_CLOSED;
    *conn = (nl_conn *)(uintptr_t)s->val;
    return NL_ENTRY_CONN;
}

/* The slot of a key, made for it if there was none: then its val is 0, and must not remain so. NULL: no memory. */
static nl_slot *claim(nl_table *t, uint64_t key)
{
    nl_slot *s = t->cap ? probe(t, key) : NULL;

    if (s && s->val)
        return s;
    if ((t->used + 1) * 4 > t->cap * 3) {
        if (!resize(t, t->cap ? t->cap * 2 : CAP_MIN))
            return NULL;
        s = probe(t, key);
    }
    s->key = key;
    t->used++;
    return s;
}

nl_err nl_table_put(nl_table *t, uint64_t key, nl_conn *conn)
{
    nl_slot *s = claim(t, key);

    if (!s)
        return NL_ENOMEM;
    if (s->val && !is_tomb(s->val))
        return NL_EINVAL;
    s->val = (uint64_t)(uintptr_t)conn;
    t->conns++;
    return NL_OK;
}

/* To where a quarter of it to a half is in use, or to cap_min. When there is no memory for it, it just stays large. */
static void shrink(nl_table *t, size_t cap_min)
{
    size_t cap = t->cap;

    while (cap > cap_min && t->used * 4 < cap)
        cap /= 2;
    resize(t, cap);
}

/* Takes a slot out and moves later ones of its run back, so that no probe ever meets a hole it should not. */
static void drop_slot(nl_table *t, nl_slot *s)
{
    size_t mask = t->cap - 1, hole = (size_t)(s - t->slots);

    if (!is_tomb(s->val))
        t->conns--;
    t->used--;
    for (size_t i = (hole + 1) & mask; t->slots[i].val; i = (i + 1) & mask)
        if (((i - home(t, t->slots[i].key)) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    t->slots[hole].val = 0;
    if (t->cap > CAP_KEPT && t->used * 8 < t->cap)
        shrink(t, CAP_KEPT);
}

void nl_table_trim(nl_table *t)
{
    if (t->cap > CAP_MIN && t->used * 8 < t->cap)
        shrink(t, CAP_MIN);
}

void nl_table_drop(nl_table *t, uint64_t key)
{
    nl_slot *s = find(t, key);

    if (s)
        drop_slot(t, s);
}

static void expire_oldest(nl_table *t)
{
    uint64_t number = t->tomb_first++;
    nl_slot *s = find(t, t->tombs[number & (t->tomb_cap - 1)].key);

    if (s && is_tomb(s->val) && s->val >> 2 == number)      /* else: dug up, or a Conn of that id lives again */
        drop_slot(t, s);
}

void nl_table_expire(nl_table *t, int64_t now_ns)
{
    while (t->tomb_first < t->tomb_next && t->tombs[t->tomb_first & (t->tomb_cap - 1)].expires_ns <= now_ns)
        expire_oldest(t);
}

static bool grow_ring(nl_table *t)
{
    size_t cap = t->tomb_cap ? t->tomb_cap * 2 : 16;
    nl_tomb *ring = sys_malloc(cap * sizeof *ring);

    if (!ring)
        return false;
    for (uint64_t n = t->tomb_first; n < t->tomb_next; n++)
        ring[n & (cap - 1)] = t->tombs[n & (t->tomb_cap - 1)];
    sys_free(t->tombs);
    t->tombs = ring;
    t->tomb_cap = cap;
    return true;
}

void nl_table_bury(nl_table *t, uint64_t key, nl_entry kind, int64_t expires_ns)
{
    nl_slot *s;

    if (t->tomb_next - t->tomb_first == t->tomb_cap && (t->tomb_cap >= NL_TOMBS_MAX || !grow_ring(t))) {
        if (!t->tomb_cap) {
            nl_table_drop(t, key);
            return;
        }
        expire_oldest(t);
    }
    if (!(s = claim(t, key)))
        return;
    t->conns -= s->val && !is_tomb(s->val);
    s->val = t->tomb_next << 2 | (kind == NL_ENTRY_LATE ? TAG_LATE : TAG_CLOSED);
    t->tombs[t->tomb_next++ & (t->tomb_cap - 1)] = (nl_tomb){ key, expires_ns };
}

nl_conn *nl_table_next(const nl_table *t, size_t *at)
{
    while (*at < t->cap) {
        uint64_t val = t->slots[(*at)++].val;
        if (val && !is_tomb(val))
            return (nl_conn *)(uintptr_t)val;
    }
    return NULL;
}
