# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the cluster stores: committed transactions and the revisions of objects, in memory.

All storages of a cluster look into one Database, each through its own cells of the partition table. So replicas always
agree, and a storage that comes back has nothing to copy; what a storage knows alone, the transactions that are not
committed yet, it keeps itself.

A revision that undoes a transaction repeats an older one and says so (`data_serial`); its data is copied when it is
committed, so that no pack can take it away.
"""
import hashlib
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from typing import NamedTuple

from neolink.proto import MAX_TID, ZERO_HASH, ZERO_TID, Revision, UndoSerial, id_from_int, id_to_int

INVALID_FIRST_TID = MAX_TID     # what an empty database says its first tid is


class Data(NamedTuple):
    """The data of a revision as it travels. A zero checksum and no data: nothing, the object is deleted."""
    compression: int
    checksum: bytes
    data: bytes

    @property
    def deleted(self) -> bool:
        return self.checksum == ZERO_HASH and not self.data

    def plain(self) -> bytes:
        """The data without compression."""
        return zlib.decompress(self.data) if self.compression else self.data


NOTHING = Data(0, ZERO_HASH, b"")


def pack_data(plain: bytes, compress: bool = False) -> Data:
    """Data as a client sends it; compressed only if that makes it shorter, as NEO's clients do."""
    packed = zlib.compress(plain) if compress else plain
    if len(packed) >= len(plain):
        return Data(0, hashlib.sha1(plain).digest(), plain)
    return Data(1, hashlib.sha1(packed).digest(), packed)


class Record(NamedTuple):
    """A revision of an object."""
    serial: bytes
    content: Data
    data_serial: bytes | None = None    # the older revision that this one repeats


class Transaction(NamedTuple):
    """A committed transaction."""
    tid: bytes
    ttid: bytes
    user: bytes = b""
    description: bytes = b""
    extension: bytes = b""
    oids: tuple[bytes, ...] = ()
    packed: bool = False


class NoSuchObject(KeyError):
    """The object never existed."""


class NoSuchRevision(KeyError):
    """The object exists, but not at that time."""


class Database:
    """Transactions in the order of their tids; records of each object in the order of their serials."""

    def __init__(self) -> None:
        self.transactions: dict[bytes, Transaction] = {}
        self.objects: dict[bytes, list[Record]] = {}
        self.last_oid = ZERO_TID

    @property
    def last_tid(self) -> bytes:
        return next(reversed(self.transactions), ZERO_TID)

    @property
    def first_tid(self) -> bytes:
        return next(iter(self.transactions), INVALID_FIRST_TID)

    # ---- writing

    def new_oids(self, count: int) -> list[bytes]:
        first = id_to_int(self.last_oid) + 1
        oids = [id_from_int(number) for number in range(first, first + count)]
        self.last_oid = oids[-1]
        return oids

    def commit(self, transaction: Transaction, objects: dict[bytes, Record]) -> None:
        """Store a transaction, whose tid must be the greatest so far. The records get it as their serial."""
        if transaction.tid <= self.last_tid:
            raise ValueError(f"tid {transaction.tid.hex()} is not above the last one, {self.last_tid.hex()}")
        for oid, record in objects.items():
            content = record.content
            if record.data_serial is not None:
                content = self.load(oid, at=record.data_serial)[0].content
            self.objects.setdefault(oid, []).append(Record(transaction.tid, content, record.data_serial))
            self.last_oid = max(self.last_oid, oid)
        self.transactions[transaction.tid] = transaction

    def truncate(self, tid: bytes) -> None:
        """Forget what came after `tid`."""
        self.transactions = {key: value for key, value in self.transactions.items() if key <= tid}
        kept = {oid: [record for record in records if record.serial <= tid] for oid, records in self.objects.items()}
        self.objects = {oid: records for oid, records in kept.items() if records}
        self.last_oid = max(self.objects, default=ZERO_TID)

    def pack(self, tid: bytes, oids: Collection[bytes] | None = None) -> None:
        """Forget the revisions that nobody sees who looks at `tid` or later; of all objects, or of some."""
        for oid in list(self.objects if oids is None else oids):
            records = self.objects.get(oid, [])
            current = bisect_right(records, tid, key=_serial) - 1
            if current >= 0:
                first = current + 1 if records[current].content.deleted else current
                self.objects[oid] = records[first:]
                if not self.objects[oid]:
                    del self.objects[oid]
        for key, transaction in self.transactions.items():
            if key <= tid:
                self.transactions[key] = transaction._replace(packed=True)

    # ---- reading

    def load(self, oid: bytes, at: bytes | None = None, before: bytes | None = None) -> tuple[Record, bytes | None]:
        """A revision and the serial of the next one: exactly `at`, the latest `before`, or the latest."""
        records = self.objects.get(oid)
        if records is None:
            raise NoSuchObject(oid)
        if at is not None:
            index = bisect_left(records, at, key=_serial)
            if index == len(records) or records[index].serial != at:
                raise NoSuchRevision(oid)
        else:
            index = (len(records) if before is None else bisect_left(records, before, key=_serial)) - 1
            if index < 0:
                raise NoSuchRevision(oid)
        following = records[index + 1].serial if index + 1 < len(records) else None
        return records[index], following

    def last_serial(self, oid: bytes) -> bytes | None:
        records = self.objects.get(oid)
        return records[-1].serial if records else None

    def history(self, oid: bytes, first: int, last: int) -> list[Revision]:
        """Revisions number first to last - 1, newest first."""
        if oid not in self.objects:
            raise NoSuchObject(oid)
        newest_first = self.objects[oid][::-1]
        return [Revision(record.serial, len(record.content.data)) for record in newest_first[first:last]]

    def tids(self, partitions: Collection[int], total: int) -> list[bytes]:
        """The tids of some of the `total` partitions, oldest first."""
        return [tid for tid in self.transactions if id_to_int(tid) % total in partitions]

    def oids_from(self, partition: int, total: int, length: int, min_oid: bytes,
                  tid: bytes) -> tuple[bytes | None, list[bytes]]:
        """The first oids of a partition that exist at `tid`, and where to go on."""
        found = []
        for oid in sorted(self.objects):
            if oid >= min_oid and id_to_int(oid) % total == partition:
                records = self.objects[oid]
                index = bisect_right(records, tid, key=_serial) - 1
                if index >= 0 and not records[index].content.deleted:
                    found.append(oid)
                    if len(found) == length:
                        return id_from_int(id_to_int(oid) + 1), found
        return None, found

    def final_tid(self, ttid: bytes) -> bytes | None:
        """What a transaction became; None if it was not committed."""
        return next((t.tid for t in reversed(self.transactions.values()) if t.ttid == ttid), None)

    # ---- undo

    def undo(self, oid: bytes, before: bytes, undone: bytes, pending: bytes | None = None) -> UndoSerial | None:
        """What undoing transaction `undone` does to an object, for one who sees what is `before` a tid.

        `pending` is the revision whose data the asking transaction has stored already, if it has. None: that
        transaction did not touch the object. Two revisions are the same if one repeats the other, maybe over several
        steps.
        """
        roots = self._roots(oid)
        if undone not in roots:
            return None
        earlier = [serial for serial in roots if serial < undone]
        target = roots[earlier[-1]] if earlier else None
        current = pending or next((serial for serial in reversed(roots) if serial < before), None)
        if current is None:
            raise NoSuchRevision(oid)
        back_to = [serial for serial, root in roots.items() if root == target]      # the latest of equals
        undo_serial = back_to[-1] if target is not None else None
        if undo_serial is not None and self.load(oid, at=undo_serial)[0].content.deleted:
            undo_serial = None
        return UndoSerial(current, undo_serial, roots.get(current, current) == roots[undone])

    def _roots(self, oid: bytes) -> dict[bytes, bytes]:
        """By serial, the first revision with the same data that is known."""
        roots: dict[bytes, bytes] = {}
        for record in self.objects.get(oid, []):
            source = record.data_serial
            roots[record.serial] = record.serial if source is None else roots.get(source, source)
        return roots


def _serial(record: Record) -> bytes:
    return record.serial


def partitions_of(ids: Iterable[bytes], total: int) -> set[int]:
    """The partitions of some oids or tids."""
    return {id_to_int(id_) % total for id_ in ids}
