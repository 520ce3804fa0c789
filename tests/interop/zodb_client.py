# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""NEO/py's own ZODB client, as a program for the peer's interpreter (Python 2.7 or 3): what it writes, what it reads.

    zodb_client.py write MASTERS NAME       commits, an undo, an undone creation; prints the number of transactions
    zodb_client.py dump MASTERS NAME        all that can be read, as JSON; ids and data in hex
    zodb_client.py dump MASTERS NAME read_only

It knows nothing of neolink, and neolink's tests compare what both read.
"""
from __future__ import print_function

import json
import sys
from binascii import hexlify

import transaction
from neo.client.Storage import Storage
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.POSException import POSKeyError


def hexed(value):
    return None if value is None else hexlify(value).decode()


def text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def write(storage):
    db = DB(storage)
    root = db.open().root()
    for i in range(3):
        root["key%d" % i] = u"v" * 1000
        transaction.get().note(u"commit %d" % i)
        transaction.commit()
    root["made"] = PersistentMapping(made=u"here")
    transaction.get().note(u"made")
    transaction.commit()
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.get().note(u"unmade")
    transaction.commit()
    print(len(list(storage.iterator())))
    db.close()


def revision(call, *arguments):
    """(data, serial, serial of the next one) of a load; None for an object that is not there."""
    try:
        found = call(*arguments)
    except POSKeyError:
        return None
    return found and [hexed(one) for one in (found if len(found) == 3 else found + (None,))]


def dump(storage):
    transactions, oids = [], set()
    for one in storage.iterator():
        records = sorted(record.oid for record in one)
        oids.update(records)
        transactions.append({"tid": hexed(one.tid), "user": text(one.user), "description": text(one.description),
                             "oids": [hexed(oid) for oid in records]})
    objects = {}
    for oid in oids:
        after = [("%016x" % (int(one["tid"], 16) + 1)) for one in transactions]
        objects[hexed(oid)] = {
            "now": revision(storage.load, oid, ""),
            "before": dict((tid, revision(storage.loadBefore, oid, bytes(bytearray.fromhex(tid)))) for tid in after),
            "history": [[hexed(one["tid"]), one["size"]] for one in storage.history(oid, 100)],
        }
    log = [[hexed(one["id"]), text(one["description"])] for one in storage.undoLog(0, 100)]
    print(json.dumps({"last_tid": hexed(storage.lastTransaction()), "transactions": transactions, "objects": objects,
                      "undo_log": log}))
    storage.close()


if __name__ == "__main__":
    what, masters, name = sys.argv[1:4]
    options = {"read_only": True} if sys.argv[4:] == ["read_only"] else {}
    {"write": write, "dump": dump}[what](Storage(masters, name, **options))
