/* What the files of the wires share among themselves. The rest of the core includes wire.h only.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NL_WIRE_IN_H
#define NL_WIRE_IN_H

#include "wire.h"

#define NL_BIN_HEAD 10u         /* id 4, code 2, length 4 */

static inline void nl_put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void nl_put32(uint8_t *p, uint32_t v)
{
    nl_put16(p, v >> 16);
    nl_put16(p + 2, v);
}

static inline uint32_t nl_get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t nl_get32(const uint8_t *p)
{
    return nl_get16(p) << 16 | nl_get16(p + 2);
}

static inline nl_scan_result nl_scan_more(nl_scan *scan, size_t need)
{
    scan->need = need;
    return NL_SCAN_MORE;
}

/* Fills `why` (if not NULL) with NL_EPROTO and one sentence: what is wrong, where the packet stands in the stream, its
 * first bytes, and whose bytes they look like if not NEO's. Always NL_SCAN_BAD. */
nl_scan_result nl_scan_bad(nl_fault *why, const uint8_t *p, size_t n, uint64_t offset, const char *what, ...)
    __attribute__((format(printf, 5, 6)));

/* wire_bin.c: 2016 and N */
nl_scan_result nl_bin_scan(nl_wire wire, const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_scan *scan,
                           nl_fault *why);
size_t nl_bin_head(nl_wire wire, uint32_t id, uint16_t code, size_t len, uint8_t *head);
bool   nl_bin_fits(nl_wire wire, size_t len, size_t limit);

/* wire_m.c */
nl_scan_result nl_m_scan(const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_scan *scan, nl_fault *why);
size_t nl_m_head(uint32_t id, uint16_t code, size_t len, uint8_t *head);
nl_err nl_m_check(const uint8_t *payload, size_t len);

#endif
