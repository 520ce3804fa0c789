/* Blocks, their cache, and packets. See buf.h for who owns what.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "buf.h"

#include "sys.h"

/* ---- the block cache ------------------------------------------------------------------------------------------- */

/* Size classes 64 KiB, 256 KiB, 1 MiB, 4 MiB plus a little for headers. Anything larger is malloc's own business. */
#define CLASSES 4
#define CLASS_SLACK 64u         /* so that a payload of exactly 1 MiB and its header share a block of that class */

#define BY_MU NL_GUARDED_BY(nl_block_cache_mu)

static struct {
    pthread_mutex_t mu;         /* a leaf: nothing is locked or called under it */
    nl_block *free[CLASSES] BY_MU;
    size_t    bytes BY_MU;
} cache = { .mu = PTHREAD_MUTEX_INITIALIZER };

void nl_block_cache_lock(void) NL_UNCHECKED     { pthread_mutex_lock(&cache.mu); }
void nl_block_cache_unlock(void) NL_UNCHECKED   { pthread_mutex_unlock(&cache.mu); }

static size_t class_bytes(int k) { return (NL_BLOCK_BYTES << (2 * k)) + CLASS_SLACK; }

static int class_of(size_t n)           /* -1: none */
{
    for (int k = 0; k < CLASSES; k++)
        if (n <= class_bytes(k))
            return k;
    return -1;
}

static nl_block *block_init(nl_block *b)
{
    b->next = NULL;
    b->off = b->len = 0;
    atomic_init(&b->refs, 1);
    return b;
}

nl_block *nl_block_cached(size_t cap_min)
{
    int k = cap_min >= NL_BLOCK_BYTES ? class_of(cap_min) : -1;
    nl_block *b = NULL;

    if (k < 0)
        return NULL;
    nl_block_cache_lock();
    if ((b = cache.free[k])) {
        cache.free[k] = b->next;
        cache.bytes -= b->cap;
    }
    nl_block_cache_unlock();
    return b ? block_init(b) : NULL;
}

nl_block *nl_block_new(size_t cap_min)
{
    int k = cap_min >= NL_BLOCK_BYTES ? class_of(cap_min) : -1;
    nl_block *b = nl_block_cached(cap_min);
    size_t cap = k >= 0 ? class_bytes(k) : cap_min;

    if (b)
        return b;
    if (!(b = sys_malloc(sizeof *b + cap)))
        return NULL;
    b->cap = cap;
    return block_init(b);
}

nl_block *nl_block_grow(nl_block *b, size_t cap_min)
{
    int k = class_of(cap_min);
    size_t cap = k >= 0 ? class_bytes(k) : cap_min;
    nl_block *bigger = sys_realloc(b, sizeof *b + cap);      /* large ones are remapped, not copied */

    if (bigger)
        bigger->cap = cap;
    return bigger;
}

void nl_block_rele(nl_block *b)
{
    int k;

    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    k = class_of(b->cap);
    if (k >= 0 && b->cap == class_bytes(k)) {
        nl_block_cache_lock();
        if (cache.bytes + b->cap <= NL_CACHE_BYTES) {
            b->next = cache.free[k];
            cache.free[k] = b;
            cache.bytes += b->cap;
            b = NULL;
        }
        nl_block_cache_unlock();
    }
    sys_free(b);
}

size_t nl_block_cached_bytes(void)
{
    size_t n;

    nl_block_cache_lock();
    n = cache.bytes;
    nl_block_cache_unlock();
    return n;
}

void nl_block_cache_clear(void)
{
    nl_block_cache_lock();
    for (int k = 0; k < CLASSES; k++)
        for (nl_block *b; (b = cache.free[k]);) {
            cache.free[k] = b->next;
            sys_free(b);
        }
    cache.bytes = 0;
    nl_block_cache_unlock();
}

/* ---- packets --------------------------------------------------------------------------------------------------- */

/* `mine` belongs to the read token. `returned` is a stack that anybody pushes to and only the token empties, all at
 * once: so a pushed node cannot come back under a pusher's feet (no ABA). When the link goes it is GONE for ever, and
 * packets that are still out are freed one by one. Only then they are counted: `orphans` is raised by how many were
 * out, once, and each of them lowers it, perhaps before that. Whoever brings it to zero so frees the pool. */
struct nl_pool {
    nl_pkt *mine;                   /* [rx] */
    unsigned made;                  /* [rx] pooled packets that exist */
    nl_pkt *_Atomic returned;
    atomic_int orphans;
};

static nl_pkt gone;
#define GONE (&gone)

nl_pool *nl_pool_new(void)
{
    nl_pool *pool = sys_malloc(sizeof *pool);

    if (pool) {
        pool->mine = NULL;
        pool->made = 0;
        atomic_init(&pool->returned, NULL);
        atomic_init(&pool->orphans, 0);
    }
    return pool;
}

/* Frees them; how many they were. */
static unsigned free_list(nl_pkt *p)
{
    unsigned n = 0;

    for (; p; n++) {
        nl_pkt *next = p->next;
        sys_free(p);
        p = next;
    }
    return n;
}

static void pool_count(nl_pool *pool, int change)
{
    if (atomic_fetch_add_explicit(&pool->orphans, change, memory_order_acq_rel) + change == 0)
        sys_free(pool);
}

void nl_pool_rele(nl_pool *pool)
{
    if (!pool)
        return;
    pool->made -= free_list(pool->mine);
    pool->made -= free_list(atomic_exchange_explicit(&pool->returned, GONE, memory_order_acquire));
    pool_count(pool, (int)pool->made);
}

/* Pops a pooled packet, makes one, or returns NULL. */
static nl_pkt *pool_pop(nl_pool *pool)
{
    nl_pkt *p = pool->mine;

    if (!p)     /* acquire: pairs with the release of the push in nl_packet_free */
        p = atomic_exchange_explicit(&pool->returned, NULL, memory_order_acquire);
    if (p) {
        pool->mine = p->next;
    } else if (pool->made < NL_POOL_PACKETS && (p = sys_malloc(sizeof *p + NL_INLINE_BYTES))) {
        p->pool = pool;
        pool->made++;
    }
    return p;
}

void nl_pool_trim(nl_pool *pool)
{
    nl_pkt *lists[2] = { pool->mine, atomic_exchange_explicit(&pool->returned, NULL, memory_order_acquire) };

    pool->mine = NULL;
    pool->made -= free_list(lists[0]);
    pool->made -= free_list(lists[1]);
}

nl_pkt *nl_pool_take(nl_pool *pool, nl_block *block, const uint8_t *payload, size_t len, uint32_t id, uint16_t code)
{
    bool slice = len > NL_SLICE_BYTES;
    nl_pkt *p = slice || len <= NL_INLINE_BYTES ? pool_pop(pool) : NULL;

    if (!p) {
        if (!(p = sys_malloc(sizeof *p + (slice ? 0 : len))))
            return NULL;
        p->pool = NULL;
    }
    if (slice) {
        nl_block_hold(block);
        p->block = block;
        p->pub.payload = payload;
    } else {
        memcpy(p->bytes, payload, len);
        p->block = NULL;
        p->pub.payload = p->bytes;
    }
    p->pub.len = len;
    p->pub.conn_id = id;
    p->pub.code = code;
    p->charge = len < 64 ? 64 : len;        /* an empty packet is memory too: a flood of them must meet the budget */
    p->next = NULL;
    return p;
}

void nl_packet_free(nl_packet *packet)
{
    nl_pkt *p = packet ? nl_pkt_of(packet) : NULL;
    nl_pool *pool;
    nl_pkt *head;

    if (!p)
        return;
    nl_block_rele(p->block);
    p->block = NULL;
    if (!(pool = p->pool)) {
        sys_free(p);
        return;
    }
    head = atomic_load_explicit(&pool->returned, memory_order_relaxed);
    do {
        if (head == GONE) {
            sys_free(p);
            pool_count(pool, -1);       /* after this line the pool may be gone, too */
            return;
        }
        p->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&pool->returned, &head, p, memory_order_release,
                                                    memory_order_relaxed));
}
