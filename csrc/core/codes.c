/* What a message code is: a request, which is answered; a notification, which is not; a push, which is a notification
 * that travels on the id of a request of its receiver's.
 *
 * Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rule is short: with the answer bit a code is an answer; of the rest all are requests but those listed here. So a
 * code that no catalogue knows counts as a request. NEO renumbered its messages from protocol to protocol, hence a
 * column for each. A protocol that has no column (2 and 3 of N were never released, those of M before 5 are not
 * catalogued) is taken for the newest of its wire.
 */
#include "wire.h"

enum { N1, N4, N5, N6, M5, PROTOCOLS };

typedef struct notification {
    const char *name;
    uint8_t     code[PROTOCOLS];        /* 0: not in that protocol */
} notification;

static const notification notifications[] = {
    /*                                N-1 N-4 N-5 N-6 M-5 */
    { "CloseClient",                 {   5,  3,  3,  3,  3 } },
    { "NotPrimaryMaster",            {   8,  5,  5,  5,  5 } },
    { "NotifyNodeInformation",       {   9,  6,  6,  6,  6 } },
    { "SendPartitionTable",          {  16, 10, 10, 10, 10 } },
    { "NotifyPartitionChanges",      {  17, 11, 11, 11, 11 } },
    { "StartOperation",              {  18, 12, 12, 12, 12 } },
    { "StopOperation",               {  19, 13, 13, 13, 13 } },
    { "ValidateTransaction",         {  26, 17, 17, 17, 17 } },
    { "InvalidateObjects",           {  34, 22, 22, 22, 22 } },
    { "InvalidatePartitions",        {   0,  0,  0,  0, 23 } },
    { "NotifyUnlockInformation",     {  35, 23, 23, 23, 24 } },
    { "NotifyDeadlock",              {  38, 25, 25, 25, 26 } },
    { "AbortTransaction",            {  45, 29, 29, 29, 29 } },
    { "NotifyRepair",                {  67, 43, 43, 44, 44 } },
    { "NotifyClusterInformation",    {  68, 44, 44, 45, 45 } },
    { "NotifyPackSigned",            {   0,  0,  0,  0, 52 } },
    { "NotifyPackCompleted",         {   0,  0,  0,  0, 53 } },
    { "CheckPartition",              {  78, 50, 50, 51, 55 } },
    { "NotifyPartitionCorrupted",    {  83, 53, 53, 54, 58 } },
    { "NotifyReady",                 {  84, 54, 54, 55, 59 } },
    { "NotifyTransactionFinished",   {  89, 57, 57, 58, 62 } },
    { "Replicate",                   {  90, 58, 58, 59, 63 } },
    { "NotifyReplicationDone",       {  91, 59, 59, 60, 64 } },
    { "AddTransaction",              {  96, 62, 62, 63, 67 } },      /* the two pushes: see pushes[] */
    { "AddObject",                   {  97, 63, 63, 64, 68 } },
    { "FlushLog",                    {   0,  0, 65, 66, 70 } },
    { "NotifyMonitorInformation",    {   0,  0,  0,  0, 72 } },
    { "NotifyUpstreamAdmin",         {   0,  0,  0,  0, 73 } },
};

/* AddTransaction by protocol; AddObject is the code after it. */
static const uint8_t pushes[PROTOCOLS] = { [N1] = 96, [N4] = 62, [N5] = 62, [N6] = 63, [M5] = 67 };

static int protocol_of(nl_wire wire, int version)
{
    if (wire == NL_WIRE_M)
        return M5;
    return version == 1 ? N1 : version == 4 ? N4 : version == 5 ? N5 : N6;
}

bool nl_code_is_request(nl_wire wire, int version, uint16_t code)
{
    enum { CLOSE_CLIENT_2016 = 5, NOTIFY_2016 = 6 };
    if (code & NL_ANSWER_BIT)
        return false;
    if (wire == NL_WIRE_2016)
        return code != CLOSE_CLIENT_2016 && code != NOTIFY_2016;
    int protocol = protocol_of(wire, version);
    for (size_t i = 0; i < sizeof notifications / sizeof *notifications; i++)
        if (code != 0 && notifications[i].code[protocol] == code)
            return false;
    return true;
}

bool nl_code_is_push(nl_wire wire, int version, uint16_t code)
{
    uint16_t first = pushes[protocol_of(wire, version)];
    if (wire == NL_WIRE_2016)
        first = version == 8 ? 92 : 94;                 /* 1.7.0, which lacks a message; 1.6.3, 1.7.1 */
    return code == first || code == first + 1;
}
