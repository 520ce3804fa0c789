/* Wire M: a packet is one msgpack array of three, [id, code, args], and nothing says how long it is.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A scan goes through four stages: the head of the outer array, the id, the code, the args. The first three are read
 * here, one item each; the args are walked over by the skipper (mpskip.h) and handed on as the raw bytes they are, head
 * of their array included: that is the payload of a packet on this wire.
 *
 * An id that is not an unsigned integer below 2^32 is refused, although NEO/py sends one in a single case: to a peer
 * whose first packet is an answer that nobody asked for it sends an Error with the id nil, and hangs up. No connection
 * is there to give such a packet to, so it ends the link here, too, and the fault tells of the nil.
 */
#include "wire_in.h"

#include <inttypes.h>

#include "mpskip.h"

enum { STAGE_ARRAY, STAGE_ID, STAGE_CODE, STAGE_ARGS, STAGE_SKIP };
static const char *const stage_names[] = { "packet", "id", "code", "args" };

#define ARRAY_FIRST 0x90u       /* fixarray: 0x90 to 0x9f */
#define ARRAY16     0xdcu
#define ARRAY32     0xddu
#define UINT8       0xccu       /* then 16, 32, 64 */
#define UINT16      0xcdu
#define UINT32      0xceu
#define UINT64      0xcfu

/* Where a fault stands; gathered because every refusal needs all of it. */
typedef struct where {
    const uint8_t *p;
    size_t         n, limit;
    uint64_t       offset;
    nl_fault      *why;
} where;

static nl_scan_result bad_type(const where *w, const nl_scan *scan)
{
    uint8_t first = w->p[scan->seen];
    bool number = scan->stage == STAGE_ID || scan->stage == STAGE_CODE;
    return nl_scan_bad(w->why, w->p, w->n, w->offset,
                       "%s is %s (0x%02x at byte %" PRIu64 " of the stream), not %s (wire M)", stage_names[scan->stage],
                       nl_mp_name(first), first, w->offset + scan->seen,
                       number ? "an unsigned integer" : scan->stage == STAGE_ARRAY ? "an array of 3" : "an array");
}

static nl_scan_result bad_value(const where *w, const nl_scan *scan, uint64_t value)
{
    if (scan->stage == STAGE_ARRAY)
        return nl_scan_bad(w->why, w->p, w->n, w->offset, "packet is an array of %" PRIu64 ", not of 3 (wire M)",
                           value);
    return nl_scan_bad(w->why, w->p, w->n, w->offset, "%s %" PRIu64 " does not fit in %u bits (wire M)",
                       stage_names[scan->stage], value, scan->stage == STAGE_ID ? 32u : 16u);
}

static nl_scan_result bad_size(const where *w, size_t at)
{
    return nl_scan_bad(w->why, w->p, w->n, w->offset,
                       "packet is over the limit of %zu bytes (wire M), by %s at byte %" PRIu64 " of the stream",
                       w->limit, nl_mp_name(w->p[at]), w->offset + at);
}

/* Bytes of the unsigned integer that begins with `first`; 0: something else begins so. */
static inline size_t uint_size(uint8_t first)
{
    if (first < 0x80)
        return 1;
    return first >= UINT8 && first <= UINT64 ? (size_t)1 + ((size_t)1 << (first - UINT8)) : 0;
}

/* Bytes of the head of the array that begins with `first`; 0: no array. */
static inline size_t array_head_size(uint8_t first)
{
    if ((first & 0xf0u) == ARRAY_FIRST)
        return 1;
    return first == ARRAY16 ? 3 : first == ARRAY32 ? 5 : 0;
}

/* The number in a head of `size` bytes: the rest of its bytes, or what the first holds beyond `fix`. */
static inline uint64_t head_value(const uint8_t *p, size_t size, uint8_t fix)
{
    switch (size) {
    case 1:  return (uint8_t)(p[0] - fix);
    case 2:  return p[1];
    case 3:  return nl_get16(p + 1);
    case 5:  return nl_get32(p + 1);
    default: return (uint64_t)nl_get32(p + 1) << 32 | nl_get32(p + 5);
    }
}

/* Reads what comes before args, as far as the bytes go. NL_SCAN_PACKET: all of it, args begin at p[seen]. */
static inline nl_scan_result scan_head(const where *w, nl_scan *scan)
{
    for (; scan->stage < STAGE_ARGS; scan->stage++) {
        if (scan->seen >= w->n)
            return nl_scan_more(scan, scan->seen + 1);
        const uint8_t *item = w->p + scan->seen;
        bool array = scan->stage == STAGE_ARRAY;
        size_t size = array ? array_head_size(*item) : uint_size(*item);
        if (size == 0)
            return bad_type(w, scan);
        size_t due = 3u - scan->stage;                                  /* bytes to come after it, at the least */
        if (size + due > w->limit - scan->seen)
            return bad_size(w, scan->seen);
        if (size > w->n - scan->seen)
            return nl_scan_more(scan, scan->seen + size);
        uint64_t value = head_value(item, size, array ? ARRAY_FIRST : 0);
        if (array ? value != 3 : value > (scan->stage == STAGE_ID ? UINT32_MAX : UINT16_MAX))
            return bad_value(w, scan, value);
        if (scan->stage == STAGE_ID)
            scan->id = (uint32_t)value;
        else if (scan->stage == STAGE_CODE)
            scan->code = (uint16_t)value;
        scan->seen += size;
    }
    return NL_SCAN_PACKET;
}

static inline nl_scan_result scan_args(const where *w, nl_scan *scan)
{
    nl_mpskip skip = { scan->seen, scan->due, 0 };
    nl_mp_result result = nl_mp_skip(&skip, w->p, w->n, w->limit);
    scan->seen = skip.at;
    scan->due = skip.due;
    switch (result) {
    case NL_MP_DONE:
        scan->total = skip.at;
        scan->payload_len = skip.at - scan->payload_at;
        return NL_SCAN_PACKET;
    case NL_MP_MORE:
        return nl_scan_more(scan, skip.need);
    case NL_MP_OVER:
        return bad_size(w, skip.at);
    default:
        return nl_scan_bad(w->why, w->p, w->n, w->offset,
                           "byte 0x%02x at byte %" PRIu64 " of the stream is not msgpack (wire M)", w->p[skip.at],
                           w->offset + skip.at);
    }
}

nl_scan_result nl_m_scan(const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_scan *scan, nl_fault *why)
{
    where w = { p, n, limit, offset, why };
    if (scan->stage < STAGE_ARGS) {
        nl_scan_result head = scan_head(&w, scan);
        if (head != NL_SCAN_PACKET)
            return head;
    }
    if (scan->stage == STAGE_ARGS) {
        if (scan->seen >= n)
            return nl_scan_more(scan, scan->seen + 1);
        if (array_head_size(p[scan->seen]) == 0)
            return bad_type(&w, scan);
        scan->payload_at = scan->seen;
        scan->due = 1;
        scan->stage = STAGE_SKIP;
    }
    return scan_args(&w, scan);
}

static size_t put_uint(uint8_t *p, uint32_t v)
{
    if (v < 0x80) {
        p[0] = (uint8_t)v;
        return 1;
    }
    if (v <= UINT8_MAX) {
        p[0] = UINT8;
        p[1] = (uint8_t)v;
        return 2;
    }
    if (v <= UINT16_MAX) {
        p[0] = UINT16;
        nl_put16(p + 1, v);
        return 3;
    }
    p[0] = UINT32;
    nl_put32(p + 1, v);
    return 5;
}

size_t nl_m_head(uint32_t id, uint16_t code, size_t len, uint8_t *head)
{
    uint8_t *end = head;
    *end++ = ARRAY_FIRST + 3;
    end += put_uint(end, id);
    end += put_uint(end, code);
    if (len == 0)
        *end++ = ARRAY_FIRST;
    return (size_t)(end - head);
}

nl_err nl_m_check(const uint8_t *payload, size_t len)
{
    if (len == 0)
        return NL_OK;
    if (array_head_size(payload[0]) == 0)
        return NL_EENCODE;
    nl_mpskip skip = { 0, 1, 0 };
    return nl_mp_skip(&skip, payload, len, len) == NL_MP_DONE && skip.at == len ? NL_OK : NL_EENCODE;
}
