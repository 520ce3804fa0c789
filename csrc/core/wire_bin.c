/* Wires 2016 and N: a header of ten bytes, then the payload. All integers are big-endian.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 *     id (4) | code (2) | length (4) | payload
 *
 * The two differ in what length counts: the whole packet, this header included (2016), or the payload alone (N); and so
 * in what the limit bounds, for it bounds that number.
 */
#include "wire_in.h"

#include <inttypes.h>

static nl_scan_result bad_length(nl_wire wire, const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_fault *why)
{
    uint32_t length = nl_get32(p + 6);
    if (wire == NL_WIRE_2016 && length < NL_BIN_HEAD)
        return nl_scan_bad(why, p, n, offset, "packet length %" PRIu32 " is below the %u bytes of the header it counts "
                           "(wire 2016)", length, NL_BIN_HEAD);
    return nl_scan_bad(why, p, n, offset, "%s length %" PRIu32 " is over the limit of %zu bytes (wire %s)",
                       wire == NL_WIRE_2016 ? "packet" : "payload", length, limit, nl_wire_name(wire));
}

nl_scan_result nl_bin_scan(nl_wire wire, const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_scan *scan,
                           nl_fault *why)
{
    if (scan->seen == 0) {
        if (n < NL_BIN_HEAD)
            return nl_scan_more(scan, NL_BIN_HEAD);
        size_t length = nl_get32(p + 6);
        size_t least = wire == NL_WIRE_2016 ? NL_BIN_HEAD : 0;          /* what the length counts besides the payload */
        if (length < least || length > limit)
            return bad_length(wire, p, n, limit, offset, why);
        scan->id = nl_get32(p);
        scan->code = (uint16_t)nl_get16(p + 4);
        scan->payload_at = scan->seen = NL_BIN_HEAD;
        scan->payload_len = length - least;
        scan->total = NL_BIN_HEAD + scan->payload_len;
    }
    return n < scan->total ? nl_scan_more(scan, scan->total) : NL_SCAN_PACKET;
}

size_t nl_bin_head(nl_wire wire, uint32_t id, uint16_t code, size_t len, uint8_t *head)
{
    nl_put32(head, id);
    nl_put16(head + 4, code);
    nl_put32(head + 6, (uint32_t)(wire == NL_WIRE_2016 ? len + NL_BIN_HEAD : len));
    return NL_BIN_HEAD;
}

bool nl_bin_fits(nl_wire wire, size_t len, size_t limit)
{
    size_t most = limit < UINT32_MAX ? limit : UINT32_MAX;
    if (wire == NL_WIRE_N)
        return len <= most;
    return most >= NL_BIN_HEAD && len <= most - NL_BIN_HEAD;
}
