/* Tests of blocks, their cache, and packets.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "kit.h"

#include "buf.h"

static void test_block_cache_takes_back(void **state)
{
    nl_block *b = nl_block_new(NL_BLOCK_BYTES), *again;
    size_t cap = b->cap;

    (void)state;
    must(cap >= NL_BLOCK_BYTES && nl_block_is_mine(b) && nl_block_cached_bytes() == 0);
    must(!nl_block_cached(NL_BLOCK_BYTES));
    nl_block_hold(b);
    must(!nl_block_is_mine(b));
    nl_block_rele(b);
    must(nl_block_is_mine(b) && nl_block_cached_bytes() == 0);
    nl_block_rele(b);
    must(nl_block_cached_bytes() == cap);
    again = nl_block_new(NL_BLOCK_BYTES);
    must(again == b && nl_block_cached_bytes() == 0 && again->len == 0 && again->off == 0);
    nl_block_rele(again);
    nl_block_rele(NULL);
}

static void test_block_cache_is_bounded(void **state)
{
    nl_block *b[40];

    (void)state;
    for (int i = 0; i < 40; i++)
        must((b[i] = nl_block_new((size_t)1 << 20)));
    for (int i = 0; i < 40; i++)
        nl_block_rele(b[i]);
    must(nl_block_cached_bytes() > NL_CACHE_BYTES / 2 && nl_block_cached_bytes() <= NL_CACHE_BYTES);
}

static void test_odd_sizes_are_not_cached(void **state)
{
    size_t sizes[] = { 1, 100, NL_BLOCK_BYTES - 1, (size_t)8 << 20 };

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        nl_block *b = nl_block_new(sizes[i]);
        must(b && b->cap >= sizes[i]);
        memset(b->data, 1, b->cap);
        nl_block_rele(b);
        must(nl_block_cached_bytes() == 0);
    }
}

static void test_block_grows_with_its_bytes(void **state)
{
    nl_block *b = nl_block_new(100);

    (void)state;
    for (size_t n = 100; n < (size_t)20 << 20; n *= 3) {
        memset(b->data, (int)(n % 251), b->cap);
        must((b = nl_block_grow(b, n * 3)) && b->cap >= n * 3);
        for (size_t i = 0; i < n; i++)
            must(b->data[i] == n % 251);
    }
    nl_block_rele(b);
}

/* Every boundary of where a payload lives. */
static void test_packet_sizes(void **state)
{
    size_t sizes[] = { 0, 1, NL_INLINE_BYTES, NL_INLINE_BYTES + 1, NL_SLICE_BYTES, NL_SLICE_BYTES + 1, NL_BLOCK_BYTES };
    nl_pool *pool = nl_pool_new();
    nl_block *b = nl_block_new(NL_BLOCK_BYTES);

    (void)state;
    for (size_t i = 0; i < NL_BLOCK_BYTES; i++)
        b->data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        nl_pkt *p = nl_pool_take(pool, b, b->data, sizes[i], 7, 9);
        must(p && p->pub.len == sizes[i] && p->pub.conn_id == 7 && p->pub.code == 9 && !p->next);
        must(sizes[i] == 0 || memcmp(p->pub.payload, b->data, sizes[i]) == 0);
        must((p->block == b) == (sizes[i] > NL_SLICE_BYTES));
        must(nl_block_is_mine(b) == (sizes[i] <= NL_SLICE_BYTES));
        must(p->charge >= 64 && p->charge >= sizes[i]);
        nl_packet_free(&p->pub);
        must(nl_block_is_mine(b));
    }
    nl_packet_free(NULL);
    nl_block_rele(b);
    nl_pool_rele(pool);
}

static void test_packets_outlive_pool_and_block(void **state)
{
    nl_pool *pool = nl_pool_new();
    nl_block *b = nl_block_new(NL_BLOCK_BYTES);
    nl_pkt *small, *large;

    (void)state;
    memset(b->data, 5, NL_BLOCK_BYTES);
    small = nl_pool_take(pool, b, b->data, 10, 1, 1);
    large = nl_pool_take(pool, b, b->data, 10000, 1, 1);
    nl_block_rele(b);
    nl_pool_rele(pool);
    for (size_t i = 0; i < 10000; i++)
        must(large->pub.payload[i] == 5 && small->pub.payload[i % 10] == 5);
    nl_packet_free(&small->pub);
    nl_packet_free(&large->pub);
}

static void test_pool_reuses_and_is_bounded(void **state)
{
    enum { N = NL_POOL_PACKETS + 50 };
    static nl_pkt *p[N];
    nl_pool *pool = nl_pool_new();
    unsigned pooled = 0;
    nl_pkt *one = nl_pool_take(pool, NULL, (const uint8_t *)"x", 1, 1, 1), *same;

    (void)state;
    nl_packet_free(&one->pub);
    same = nl_pool_take(pool, NULL, (const uint8_t *)"y", 1, 1, 1);
    must(same == one && same->pub.payload[0] == 'y');
    nl_packet_free(&same->pub);
    for (int i = 0; i < N; i++) {
        must((p[i] = nl_pool_take(pool, NULL, (const uint8_t *)"z", 1, (uint32_t)i, 1)));
        pooled += p[i]->pool != NULL;
    }
    must(pooled == NL_POOL_PACKETS);
    for (int i = 0; i < N; i++) {
        must(p[i]->pub.conn_id == (uint32_t)i);
        nl_packet_free(&p[i]->pub);
    }
    nl_pool_trim(pool);
    must((one = nl_pool_take(pool, NULL, (const uint8_t *)"t", 1, 1, 1)) && one->pool == pool);
    nl_packet_free(&one->pub);
    nl_pool_rele(pool);
}

/* One thread takes, three give back, and in the end the pool goes while packets are out. */
#define TURNS 40000u
static struct { nl_pkt *_Atomic slot[64]; atomic_bool stop; } table;

static void give_back(job *j)
{
    for (unsigned i = 0; !atomic_load(&table.stop); i++) {
        nl_pkt *p = atomic_exchange(&table.slot[(i * 7 + j->n) % 64], NULL);
        if (p) {
            if (p->pub.payload[0] != (uint8_t)p->pub.conn_id)
                abort();
            nl_packet_free(&p->pub);
        }
    }
}

static void test_pool_with_threads(void **state)
{
    job j[3] = { { .n = 0 }, { .n = 1 }, { .n = 2 } };
    nl_pool *pool = nl_pool_new();

    (void)state;
    atomic_store(&table.stop, false);
    for (int i = 0; i < 3; i++)
        job_start(&j[i], give_back);
    for (uint32_t i = 0; i < TURNS; i++) {
        uint8_t byte = (uint8_t)i;
        nl_pkt *p = nl_pool_take(pool, NULL, &byte, 1, i, 0);
        must(p);
        if ((p = atomic_exchange(&table.slot[i % 64], p)))
            nl_packet_free(&p->pub);
        if (i % 1000 == 999)
            nl_pool_trim(pool);
    }
    nl_pool_rele(pool);
    atomic_store(&table.stop, true);
    for (int i = 0; i < 3; i++)
        job_join(&j[i]);
    for (int i = 0; i < 64; i++) {
        nl_pkt *p = atomic_exchange(&table.slot[i], NULL);
        if (p)
            nl_packet_free(&p->pub);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_block_cache_takes_back), TEST(test_block_cache_is_bounded), TEST(test_odd_sizes_are_not_cached),
        TEST(test_block_grows_with_its_bytes), TEST(test_packet_sizes), TEST(test_packets_outlive_pool_and_block),
        TEST(test_pool_reuses_and_is_bounded), TEST(test_pool_with_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
