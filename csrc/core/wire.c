/* The wires as one: which of them a call goes to, and what they have in common. See wire.h.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "wire_in.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

nl_scan_result nl_wire_scan(nl_wire wire, const uint8_t *p, size_t n, size_t limit, uint64_t offset, nl_scan *scan,
                            nl_fault *why)
{
    if (wire == NL_WIRE_M)
        return nl_m_scan(p, n, limit, offset, scan, why);
    return nl_bin_scan(wire, p, n, limit, offset, scan, why);
}

size_t nl_wire_head(nl_wire wire, uint32_t id, uint16_t code, size_t len, uint8_t head[NL_HEAD_MAX])
{
    return wire == NL_WIRE_M ? nl_m_head(id, code, len, head) : nl_bin_head(wire, id, code, len, head);
}

bool nl_wire_fits(nl_wire wire, uint32_t id, uint16_t code, size_t len, size_t limit)
{
    if (wire != NL_WIRE_M)
        return nl_bin_fits(wire, len, limit);
    uint8_t head[NL_HEAD_MAX];
    size_t head_len = nl_m_head(id, code, len, head);
    return head_len <= limit && len <= limit - head_len;
}

nl_err nl_wire_check(nl_wire wire, const void *payload, size_t len)
{
    return wire == NL_WIRE_M ? nl_m_check(payload, len) : NL_OK;
}

int nl_wire_version_default(nl_wire wire)
{
    return wire == NL_WIRE_M ? 5 : wire == NL_WIRE_N ? 6 : -1;
}

const char *nl_wire_name(nl_wire wire)
{
    static const char *const names[] = { "2016", "N", "M", "auto" };
    return (unsigned)wire < sizeof names / sizeof *names ? names[wire] : "?";
}

/* ---- faults ------------------------------------------------------------------------------------------------- */

#define SHOWN 12u               /* bytes of a bad packet that its fault quotes */

/* Whose bytes are these, if not NEO's? Strangers are told by their first bytes: a TLS record, or a line of text. */
static const char *stranger(const uint8_t *p, size_t n)
{
    static const char *const http[] = { "GET ", "POST", "PUT ", "HEAD", "HTTP", "OPTI", "DELE", "PATC", "CONN" };
    if (n >= 2 && p[0] >= 0x14 && p[0] <= 0x17 && p[1] == 3)
        return ", which looks like TLS";
    if (n < 4)
        return "";
    for (size_t i = 0; i < sizeof http / sizeof *http; i++)
        if (memcmp(p, http[i], 4) == 0)
            return ", which looks like HTTP";
    for (size_t i = 0; i < n && i < SHOWN; i++)
        if ((p[i] < ' ' || p[i] > '~') && p[i] != '\r' && p[i] != '\n' && p[i] != '\t')
            return "";
    return ", which looks like text";
}

nl_scan_result nl_scan_bad(nl_fault *why, const uint8_t *p, size_t n, uint64_t offset, const char *what, ...)
{
    if (!why)
        return NL_SCAN_BAD;
    char said[160], bytes[3 * SHOWN + 1] = "";
    va_list args;
    va_start(args, what);
    vsnprintf(said, sizeof said, what, args);
    va_end(args);
    for (size_t i = 0; i < n && i < SHOWN; i++)
        snprintf(bytes + 3 * i, 4, " %02x", p[i]);
    *why = (nl_fault){ .code = NL_EPROTO };
    snprintf(why->text, sizeof why->text, "%s; the packet at byte %" PRIu64 " begins%s%s", said, offset, bytes,
             stranger(p, n));
    return NL_SCAN_BAD;
}

/* ---- the Error message -------------------------------------------------------------------------------------- */

/* The longest beginning of `text` in at most `room` bytes that does not end inside a UTF-8 character. */
static size_t cut_text(const char *text, size_t room)
{
    size_t len = strlen(text);
    if (len <= room)
        return len;
    while (room > 0 && ((uint8_t)text[room] & 0xc0u) == 0x80u)
        room--;
    return room;
}

/* u32 code, u32 length, text. */
static size_t error_bin(uint32_t code, const char *text, uint8_t *out, size_t cap)
{
    const size_t head = 8;
    if (cap < head)
        return 0;
    size_t len = cut_text(text, cap - head);
    nl_put32(out, code);
    nl_put32(out + 4, (uint32_t)len);
    memcpy(out + head, text, len);
    return head + len;
}

/* The array [code, bin]. */
static size_t error_m(uint8_t code, const char *text, uint8_t *out, size_t cap)
{
    const size_t head = 4;                                              /* a bin 8: 255 bytes say enough */
    if (cap < head)
        return 0;
    size_t len = cut_text(text, cap - head < UINT8_MAX ? cap - head : UINT8_MAX);
    out[0] = 0x92;
    out[1] = code;
    out[2] = 0xc4;
    out[3] = (uint8_t)len;
    memcpy(out + head, text, len);
    return head + len;
}

size_t nl_wire_error(nl_wire wire, int version, const char *text, uint8_t *out, size_t cap)
{
    enum { PROTOCOL_ERROR_OLD = 5, PROTOCOL_ERROR = 6 };                /* N-6 put DENIED before it */
    if (wire == NL_WIRE_M)
        return error_m(PROTOCOL_ERROR, text, out, cap);
    bool old = wire == NL_WIRE_2016 || (version >= 0 && version < 6);
    return error_bin(old ? PROTOCOL_ERROR_OLD : PROTOCOL_ERROR, text, out, cap);
}
