/* Fuzzing the wires: bytes in parts must give what the same bytes give at once.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The first byte of an input picks the wire and the limit, the second the pace at which bytes arrive, the rest is the
 * stream. Each packet of it is scanned whole and in parts; whatever is found must be consistent, and when the packet
 * is as short as we would have made it, our header for it must be its header.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define MUST(what) do { if (!(what)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many bytes the next call of a scan in parts is given: `pace` more, or (0) as many as it says it needs. */
static size_t next_n(size_t n, size_t need, size_t pace, size_t all)
{
    size_t next = pace == 0 ? need : n + pace;
    return next < all ? next : all;
}

/* Scans in parts, each a copy of its own, until the result is known or all bytes were given. */
static nl_scan_result scan_parts(nl_wire wire, const uint8_t *p, size_t all, size_t limit, size_t pace, nl_scan *scan)
{
    size_t n = 0, needed = 0;
    for (;;) {
        uint8_t *exact = malloc(n ? n : 1);
        MUST(exact);
        if (n > 0)
            memcpy(exact, p, n);
        nl_fault why;
        nl_scan_result result = nl_wire_scan(wire, exact, n, limit, 7, scan, &why);
        free(exact);
        MUST(n >= needed || (result == NL_SCAN_MORE && scan->need == needed));      /* below `need` nothing changes */
        if (result != NL_SCAN_MORE || n == all)
            return result;
        MUST(scan->need > n);
        needed = scan->need;
        n = next_n(n, needed, pace, all);
    }
}

static void check_packet(nl_wire wire, const uint8_t *p, size_t n, size_t limit, const nl_scan *scan)
{
    uint8_t head[NL_HEAD_MAX];
    MUST(scan->total <= n && scan->total > 0);
    MUST(scan->payload_at + scan->payload_len == scan->total);
    MUST(wire == NL_WIRE_N ? scan->payload_len <= limit : scan->total <= limit);
    MUST(nl_wire_fits(wire, scan->id, scan->code, scan->payload_len, limit));
    MUST(nl_wire_check(wire, p + scan->payload_at, scan->payload_len) == NL_OK);
    size_t head_len = nl_wire_head(wire, scan->id, scan->code, scan->payload_len, head);
    MUST(head_len <= scan->payload_at);                 /* ours is the shortest */
    if (head_len == scan->payload_at)
        MUST(memcmp(head, p, head_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t limits[] = { 40, 1000, NL_PACKET_BYTES_DEFAULT, NL_UNLIMITED };
    if (size < 2)
        return 0;
    nl_wire wire = (nl_wire)(data[0] % 3);
    size_t limit = limits[data[0] / 3 % 4], pace = data[1] % 8;
    for (data += 2, size -= 2; size > 0;) {
        nl_scan whole = { 0 }, parts = { 0 };
        nl_fault why;
        nl_scan_result result = nl_wire_scan(wire, data, size, limit, 7, &whole, &why);
        MUST(scan_parts(wire, data, size, limit, pace, &parts) == result);
        nl_wire_check(NL_WIRE_M, data, size);
        if (result == NL_SCAN_MORE) {
            MUST(whole.need == parts.need && whole.need > size);
            MUST(wire != NL_WIRE_M || whole.need <= limit);
        }
        if (result == NL_SCAN_BAD)
            MUST(why.code == NL_EPROTO && why.text[0] != '\0' && strlen(why.text) < sizeof why.text - 1);
        if (result != NL_SCAN_PACKET)
            break;
        MUST(whole.id == parts.id && whole.code == parts.code && whole.total == parts.total);
        MUST(whole.payload_at == parts.payload_at && whole.payload_len == parts.payload_len);
        check_packet(wire, data, size, limit, &whole);
        data += whole.total;
        size -= whole.total;
    }
    return 0;
}
