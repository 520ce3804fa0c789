/* Memory that bytes live in: blocks that sockets read into and write from, and the packets cut out of them.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A block is a counted run of bytes. The reader of a link fills one, and large payloads are handed on as slices that
 * hold the block, so nothing is copied after the kernel. A small payload is moved into its packet instead: a slice of
 * twenty bytes would pin 64 KiB for as long as somebody keeps it, and the move costs less than the counting.
 * Blocks come from a process-wide cache by size class, so a busy link neither allocates nor faults pages in.
 */
#ifndef NL_BUF_H
#define NL_BUF_H

#include "guarded.h"
#include "neolink.h"

#include <stdatomic.h>

#define NL_BLOCK_BYTES   ((size_t)64 << 10)     /* what a reader starts with: most of a loopback read */
#define NL_SLICE_BYTES   ((size_t)4 << 10)      /* payloads up to this move into their packet; longer are slices, so
                                                 * a slice pins at most 16 times its size of a first block */
#define NL_INLINE_BYTES  ((size_t)128)          /* payloads up to this fit a pooled packet */
#define NL_POOL_PACKETS  1024u                  /* pooled packets a link makes at the most; later ones are malloc'd */
#define NL_CACHE_BYTES   ((size_t)16 << 20)     /* what the block cache of the process may keep */

typedef struct nl_block {
    struct nl_block *next;      /* in a transmit queue or the cache; the holder's */
    size_t      cap;            /* [const] bytes of data[] */
    size_t      off, len;       /* transmit queue: unsent bytes are data[off .. len) */
    atomic_uint refs;
    uint8_t     data[];
} nl_block;

nl_block *nl_block_new(size_t cap_min);                 /* NULL: no memory. One reference */
nl_block *nl_block_cached(size_t cap_min);              /* only from the cache: NULL when it has none */
nl_block *nl_block_grow(nl_block *b, size_t cap_min);   /* the only reference; keeps the bytes; NULL: b is as it was */
static inline void nl_block_hold(nl_block *b) { atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed); }
void nl_block_rele(nl_block *b);
/* True when nobody holds a slice: the bytes may be overwritten. Acquire: pairs with the release in nl_block_rele. */
static inline bool nl_block_is_mine(nl_block *b) { return atomic_load_explicit(&b->refs, memory_order_acquire) == 1; }
size_t nl_block_cached_bytes(void);                     /* for tests */
void nl_block_cache_clear(void);
extern nl_lock_class nl_block_cache_mu;
void nl_block_cache_lock(void) NL_ACQUIRE(nl_block_cache_mu);   /* for others around a fork only */
void nl_block_cache_unlock(void) NL_RELEASE(nl_block_cache_mu);

/* A packet as the core sees it; `pub` is what everybody else sees. */
typedef struct nl_pool nl_pool;
typedef struct nl_pkt {
    nl_packet      pub;
    nl_block      *block;       /* what the payload is a slice of, or NULL: it is in bytes[] */
    nl_pool       *pool;        /* where it goes back to, or NULL: free() */
    struct nl_pkt *next;        /* in a batch, an inbox, or the pool */
    size_t         charge;      /* what it counts against the receive budgets */
    uint8_t        bytes[];
} nl_pkt;

/* Packets of one link. Taking is the business of the link's read token; giving back (nl_packet_free) is anybody's, at
 * any time, even after the link is gone. */
nl_pool *nl_pool_new(void);
void     nl_pool_rele(nl_pool *pool);                   /* the link lets go; freed with the last packet */
void     nl_pool_trim(nl_pool *pool);                   /* read token: gives idle packets back to malloc */
/* A packet with this payload, cut out of `block`. NULL: no memory. */
nl_pkt  *nl_pool_take(nl_pool *pool, nl_block *block, const uint8_t *payload, size_t len, uint32_t id, uint16_t code);
static inline nl_pkt *nl_pkt_of(nl_packet *p) { return (nl_pkt *)(void *)p; }

#endif
