/* Wires: bytes to packets and back, for each generation of NEO. Pure: no socket, no lock, no allocation.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A scan looks at one contiguous run of bytes that begins where a packet begins. It may be called again and again with
 * more bytes of the same run; what it has seen it remembers in nl_scan and never looks at twice. The run may move in
 * memory between calls, for nl_scan keeps offsets only. nl_scan is cheap to zero: do so before each packet.
 */
#ifndef NL_WIRE_H
#define NL_WIRE_H

#include "neolink.h"

#define NL_HEAD_MAX 16              /* longest header of any wire, the empty args of M included */
#define NL_ANSWER_BIT 0x8000u
#define NL_CODE_ERROR 0x8000u
#define NL_PACKET_BYTES_DEFAULT ((size_t)0x4000000)

typedef enum nl_scan_result {
    NL_SCAN_PACKET,                 /* a whole packet: id .. total are set */
    NL_SCAN_MORE,                   /* not yet: `need` bytes at the least before a call can tell more */
    NL_SCAN_BAD                     /* never: the fault tells; the stream is lost */
} nl_scan_result;

typedef struct nl_scan {
    size_t   seen;                  /* bytes examined; private to the scan */
    uint64_t due;                   /* M: items still to come; private */
    uint32_t depth_;                /* private, spare */
    uint8_t  stage;                 /* M: which of id, code, args comes next; private */

    uint16_t code;                  /* results of NL_SCAN_PACKET ... */
    uint32_t id;
    size_t   payload_at, payload_len;
    size_t   total;                 /* bytes of the whole packet: where the next one begins */
    size_t   need;                  /* result of NL_SCAN_MORE: more than n; at most what `limit` allows */
} nl_scan;

/* `limit` is nl_limits.packet_bytes. `offset` is where p[0] stands in the stream, for the text of the fault only
 * ("at byte 1234 of the stream"). A packet over the limit is NL_SCAN_BAD as soon as its header says so. On M a packet
 * is malformed unless it is an array of 3 whose first two are unsigned integers (id < 2^32, code < 2^16) and whose
 * third is an array; other msgpack (bytes 0xc1, strings, counts beyond what the limit could hold) is skipped or refused
 * as it must be, in O(bytes seen), never by recursion or by memory of declared size. */
nl_scan_result nl_wire_scan(nl_wire wire, const uint8_t *p, size_t n, size_t limit, uint64_t offset,
                            nl_scan *scan, nl_fault *why);

/* Writes the header of a packet whose payload of `len` bytes follows; returns its length. On M an empty payload stands
 * for the empty array and is written here. */
size_t nl_wire_head(nl_wire wire, uint32_t id, uint16_t code, size_t len, uint8_t head[NL_HEAD_MAX]);

/* Can a payload of `len` bytes be sent under `limit`? */
bool nl_wire_fits(nl_wire wire, uint32_t id, uint16_t code, size_t len, size_t limit);

/* NL_OK, or NL_EENCODE: on M the payload must be empty or exactly one msgpack array. Other wires: NL_OK. */
nl_err nl_wire_check(nl_wire wire, const void *payload, size_t len);

/* The payload of an Error message PROTOCOL_ERROR with `text`, in the dialect of (wire, version). Returns its length,
 * at most cap; text is cut if it must. */
size_t nl_wire_error(nl_wire wire, int version, const char *text, uint8_t *out, size_t cap);

/* What a code is, by the catalogue of (wire, version); version -1: the newest of that wire. A code the catalogue does
 * not know is a request, unless it has the answer bit. On 2016 every code without the answer bit but 5 and 6 is a
 * request. */
bool nl_code_is_request(nl_wire wire, int version, uint16_t code);
/* AddTransaction and AddObject: pushed on the asker's id without the answer bit. */
bool nl_code_is_push(nl_wire wire, int version, uint16_t code);

/* "NEO M protocol 5" */
int nl_wire_version_default(nl_wire wire);              /* N: 6, M: 5, 2016: -1 */
const char *nl_wire_name(nl_wire wire);                 /* "2016", "N", "M", "auto" */

#endif
