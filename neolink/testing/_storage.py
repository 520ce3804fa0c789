# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""A storage: reads from the database what its cells allow, and keeps what clients store until it is committed.

A transaction locks the objects that it stores or checks, at each storage. A second one that wants the same object waits
until the first has ended, and then usually meets a conflict. An older transaction that meets a younger one waits too,
while the younger one is told to give way (NotifyDeadlock). On M it gives up that lock and queues behind the older one
(AskRelockObject). On N it gets a new age for its locks from the master and gives up all of them (AskRebaseTransaction);
those that it does not get back at once it queues for (AskRebaseObject).
"""
from __future__ import annotations

import hashlib
from typing import Any

from neolink import proto
from neolink.proto import ALL_PARTITIONS, ZERO_TID, ClusterStates, ErrorCodes, NodeTypes, id_hex
from neolink.testing._database import Data, NoSuchObject, NoSuchRevision, Record, Transaction
from neolink.testing._node import Call, Delay, Refusal, ServerNode, Session, handles, protocol_error
from neolink.testing._partition import READABLE

CLIENT = (NodeTypes.CLIENT,)


class Conflict(Exception):
    """The object has a newer revision than the one that the transaction is based on."""

    def __init__(self, serial: bytes) -> None:
        super().__init__(serial)
        self.serial = serial


class Held:
    """A transaction that is not committed yet, as one storage has it."""

    def __init__(self, ttid: bytes, session: Session) -> None:
        self.ttid = ttid
        self.age = ttid             # the smaller, the older, as far as locks are concerned; a rebase makes it younger
        self.session = session
        self.stored: dict[bytes, Record] = {}
        self.serials: dict[bytes, bytes] = {}   # of all objects stored or checked: what they are based on
        self.deadlocks: set[bytes] = set()      # objects that the client was asked to relock
        self.metadata: Transaction | None = None
        self.voted = False


class StorageNode(ServerNode):
    """A storage with a number and an address of its own; which cells it has says the partition table."""

    type = NodeTypes.STORAGE

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.transactions: dict[bytes, Held] = {}
        self.locks: dict[bytes, bytes] = {}     # oid: the transaction that has locked it

    def handler_name(self, session: Session) -> str:
        return "IdentificationHandler" if session.role is None else "ClientOperationHandler"

    def stop(self) -> None:
        super().stop()
        self.transactions.clear()
        self.locks.clear()

    def session_ended(self, session: Session) -> None:
        for held in [held for held in self.transactions.values() if held.session is session and not held.voted]:
            self.forget_transaction(held.ttid)

    # ---- identification

    @handles("RequestIdentification", roles=(None,))
    def _identify(self, call: Call, message: Any) -> None:
        state = self.state
        if message.cluster != state.name:
            raise protocol_error("invalid cluster name")
        if state.cluster_state not in (ClusterStates.RUNNING, ClusterStates.BACKINGUP) \
                or self.nid not in state.running():
            raise Refusal(ErrorCodes.NOT_READY, "Retry Later", close=True)
        if message.nid is None:
            raise protocol_error("reject anonymous non-storage node")
        if message.nid == self.nid:
            raise protocol_error("uuid conflict or loopback connection")
        node = state.nodes.get(message.nid)
        if node is None or node.id_timestamp != message.id_timestamp:
            if message.id_timestamp is not None and message.id_timestamp > state.last_timestamp:
                raise Delay
            raise Refusal(ErrorCodes.NOT_READY, "unknown by master", close=True)
        if message.node_type is not NodeTypes.CLIENT:
            raise protocol_error("reject non-client-or-storage node")
        if any(session.nid == message.nid for session in self.sessions):
            raise protocol_error("already connected")
        call.session.role, call.session.nid = message.node_type, message.nid
        call.reply(state.messages.AcceptIdentification(NodeTypes.STORAGE, self.nid, message.nid))

    # ---- reading

    def _check_readable(self, id_: bytes) -> None:
        self._check_partition(self.state.table.partition(id_))

    def _check_partition(self, offset: int) -> None:
        rows = self.state.table.rows
        if offset >= len(rows) or rows[offset].get(self.nid) not in READABLE:
            raise Refusal(ErrorCodes.NON_READABLE_CELL)

    @handles("AskObject", roles=CLIENT)
    def _object(self, call: Call, message: Any) -> Any:
        oid = message.oid
        self._check_readable(oid)
        try:
            record, following = self.state.database.load(oid, message.at, message.before)
        except NoSuchObject:
            raise Refusal(ErrorCodes.OID_DOES_NOT_EXIST, id_hex(oid)) from None
        except NoSuchRevision:
            raise Refusal(ErrorCodes.OID_NOT_FOUND, id_hex(oid)) from None
        content = record.content
        compression = None if content.deleted and self.state.wire == "M" else content.compression
        return self.state.messages.AnswerObject(oid, record.serial, following, compression, content.checksum,
                                                content.data, record.data_serial)

    @handles("AskObjectHistory", roles=CLIENT)
    def _history(self, call: Call, message: Any) -> Any:
        if message.first >= message.last:
            raise protocol_error("invalid offsets")
        self._check_readable(message.oid)
        try:
            history = self.state.database.history(message.oid, message.first, message.last)
        except NoSuchObject:
            raise Refusal(ErrorCodes.OID_NOT_FOUND, id_hex(message.oid)) from None
        return self.state.messages.AnswerObjectHistory(message.oid, history)

    @handles("AskTransactionInformation", roles=CLIENT)
    def _transaction(self, call: Call, message: Any) -> Any:
        self._check_readable(message.tid)
        found = self.state.database.transactions.get(message.tid)
        if found is None:
            raise Refusal(ErrorCodes.TID_NOT_FOUND, f"{id_hex(message.tid)} does not exist")
        return self.state.messages.AnswerTransactionInformation(
            found.tid, found.user, found.description, found.extension, found.packed, list(found.oids))

    @handles("AskTIDs", roles=CLIENT)
    def _tids(self, call: Call, message: Any) -> Any:
        if message.first >= message.last:
            raise protocol_error("invalid offsets")
        readable = self.state.table.readable(self.nid)
        partitions = readable if message.partition == ALL_PARTITIONS else [message.partition]
        tids = self.state.database.tids(partitions, len(self.state.table.rows))
        return self.state.messages.AnswerTIDs(tids[::-1][message.first:message.last])

    @handles("AskTIDsFrom", roles=CLIENT)
    def _tids_from(self, call: Call, message: Any) -> Any:
        self._check_partition(message.partition)
        tids = self.state.database.tids([message.partition], len(self.state.table.rows))
        between = [tid for tid in tids if message.min_tid <= tid <= message.max_tid]
        return self.state.messages.AnswerTIDsFrom(between[:message.length])

    @handles("AskOIDsFrom", roles=CLIENT)
    def _oids_from(self, call: Call, message: Any) -> Any:
        self._check_partition(message.partition)
        return proto.AnswerOIDsFrom(*self.state.database.oids_from(
            message.partition, len(self.state.table.rows), message.length, message.min_oid, message.tid))

    @handles("AskObjectUndoSerial", roles=CLIENT)
    def _undo_serial(self, call: Call, message: Any) -> Any:
        held = self.transactions.get(message.ttid)
        answer = {}
        for oid in message.oids:
            self._check_readable(oid)
            stored = held.stored.get(oid) if held else None
            pending = (stored.data_serial or message.ttid) if stored else None
            try:
                undo = self.state.database.undo(oid, message.ltid, message.undone_tid, pending)
            except NoSuchRevision:
                raise Refusal(ErrorCodes.OID_NOT_FOUND, id_hex(oid)) from None
            if undo is not None:
                answer[oid] = undo
        return self.state.messages.AnswerObjectUndoSerial(answer)

    # ---- writing

    def _check_writable(self) -> None:
        if self.state.cluster_state is ClusterStates.BACKINGUP:
            raise Refusal(ErrorCodes.READ_ONLY_ACCESS, "read-only access because cluster is in backuping mode")

    def _register(self, call: Call, ttid: bytes) -> Held | None:
        """The transaction; None if it was aborted while the call waited."""
        if call.waited:
            return self.transactions.get(ttid)
        return self.transactions.setdefault(ttid, Held(ttid, call.session))

    def _lock(self, held: Held, oid: bytes, serial: bytes) -> bool:
        """Lock an object that is still as of `serial`. False: the cell is out of date, others will check."""
        if self.state.table.rows[self.state.table.partition(oid)][self.nid] not in READABLE:
            return False
        previous = self.state.database.last_serial(oid)
        owner = self.transactions.get(self.locks.get(oid, b""))
        if owner is held:
            if oid in held.stored:      # stored before: fine, unless that was an undo, whose target counts then
                previous = held.stored[oid].data_serial
        elif owner is not None:
            self._wait_for(owner, held, oid)
        if previous is not None and previous != serial:
            if serial > previous:
                raise protocol_error(f"object {id_hex(oid)} has no revision {id_hex(serial)}")
            raise Conflict(previous)
        self.locks[oid] = held.ttid
        return True

    def _wait_for(self, owner: Held, held: Held, oid: bytes) -> None:
        if held.age < owner.age and not owner.voted:
            if self.state.wire == "M" and oid not in owner.deadlocks:
                owner.session.push(proto.NotifyDeadlock(owner.ttid, oid))
            elif self.state.wire == "N" and not owner.deadlocks and owner.session.nid is not None:
                self.state.tell_client(owner.session.nid, proto.n6.NotifyDeadlock(owner.ttid, self.state.next_tid()))
            owner.deadlocks.add(oid)
        raise Delay

    def _has_cell(self, oid: bytes) -> bool:
        return self.nid in self.state.table.rows[self.state.table.partition(oid)]

    @handles("AskStoreObject", roles=CLIENT)
    def _store(self, call: Call, message: Any) -> Any:
        self._check_writable()
        content = Data(message.compression, message.checksum, message.data)
        if content.compression > 1:
            raise protocol_error("invalid compression value")
        if not content.deleted and hashlib.sha1(content.data).digest() != content.checksum:
            raise protocol_error("invalid checksum")
        held = self._register(call, message.ttid)
        locked, conflict = False, None
        if held is not None and self._has_cell(message.oid):
            self._check_not_voted(held)
            try:
                locked = self._lock(held, message.oid, message.serial)
            except Conflict as error:
                conflict = error.serial
            else:
                held.serials[message.oid] = message.serial
                held.stored[message.oid] = Record(ZERO_TID, content, message.data_serial)
        return self.state.messages.AnswerStoreObject(conflict or (None if locked else ZERO_TID))

    @handles("AskCheckCurrentSerial", roles=CLIENT)
    def _check_current(self, call: Call, message: Any) -> Any:
        self._check_writable()
        held = self._register(call, message.ttid)
        locked, conflict = False, None
        if held is not None and self._has_cell(message.oid):
            try:
                locked = self._lock(held, message.oid, message.serial)
            except Conflict as error:
                conflict = error.serial
            else:
                held.serials[message.oid] = message.serial
        return self.state.messages.AnswerCheckCurrentSerial(conflict or (None if locked else ZERO_TID))

    @handles("AskRelockObject", roles=CLIENT)
    def _relock(self, call: Call, message: Any) -> Any:
        self._check_writable()
        oid, held = message.oid, self.transactions.get(message.ttid)
        if held is None or oid not in held.serials:
            return proto.AnswerRelockObject(None)
        if not call.waited:     # let those who wait have it first
            held.deadlocks.discard(oid)
            if self.locks.get(oid) == held.ttid:
                del self.locks[oid]
            self.state.wake()
            raise Delay
        return proto.AnswerRelockObject(self._lock_again(held, oid))

    @handles("AskRebaseTransaction", roles=CLIENT)
    def _rebase(self, call: Call, message: Any) -> Any:
        self._check_writable()
        held = self.transactions.get(message.ttid)
        if held is None:
            return proto.AnswerRebaseTransaction([])
        self._check_not_voted(held)
        if not call.waited:     # as above
            held.age = message.locking_tid
            held.deadlocks.clear()
            self._release(held.ttid)
            raise Delay
        return proto.AnswerRebaseTransaction([oid for oid in held.serials if not self._got_back(held, oid)])

    @handles("AskRebaseObject", roles=CLIENT)
    def _rebase_object(self, call: Call, message: Any) -> Any:
        self._check_writable()
        held = self.transactions.get(message.ttid)
        if held is None or message.oid not in held.serials:
            return proto.AnswerRebaseObject(None)
        return proto.AnswerRebaseObject(self._lock_again(held, message.oid))

    def _got_back(self, held: Held, oid: bytes) -> bool:
        """Lock an object again if it is free and has not changed."""
        if self.locks.get(oid, held.ttid) != held.ttid:
            return False
        try:
            self._lock(held, oid, held.serials[oid])
        except Conflict:
            return False
        return True

    def _lock_again(self, held: Held, oid: bytes) -> proto.Conflict | None:
        """Lock an object again. If it has changed, the client gets back what it had stored, to resolve the conflict."""
        try:
            self._lock(held, oid, held.serials[oid])
        except Conflict as error:
            serial, stored = held.serials.pop(oid), held.stored.pop(oid, None)
            data = None if stored is None or stored.content.deleted else proto.StoredData(*stored.content)
            return proto.Conflict(serial, error.serial, data)
        return None

    def _check_not_voted(self, held: Held) -> None:
        if held.voted:      # a real storage ends here
            raise protocol_error(f"ttid {id_hex(held.ttid)} has been voted for already")

    @handles("AskStoreTransaction", roles=CLIENT)
    def _store_transaction(self, call: Call, message: Any) -> Any:
        self._check_writable()
        held = self._register(call, message.ttid)
        assert held is not None
        self._check_not_voted(held)
        held.metadata = Transaction(message.ttid, message.ttid, message.user, message.description,
                                    message.extension, tuple(message.oids))
        held.voted = True
        self.state.wake()       # nobody can deadlock with it now
        return self.state.messages.AnswerStoreTransaction()

    @handles("AskVoteTransaction", roles=CLIENT)
    def _vote(self, call: Call, message: Any) -> Any:
        self._check_writable()
        held = self.transactions.get(message.ttid)
        if held is None:
            raise protocol_error(f"unknown ttid {id_hex(message.ttid)}")
        held.voted = True
        return self.state.messages.AnswerVoteTransaction()

    @handles("AbortTransaction", roles=CLIENT)
    def _abort(self, call: Call, message: Any) -> None:
        self.forget_transaction(message.ttid)

    @handles("AskFinalTID", roles=CLIENT)
    def _final_tid(self, call: Call, message: Any) -> Any:
        self._check_writable()
        return self.state.messages.AnswerFinalTID(self.state.database.final_tid(message.ttid))

    # ---- for the master

    def has_voted(self, ttid: bytes) -> bool:
        """Whether the transaction can be committed as far as this storage is concerned."""
        held = self.transactions.get(ttid)
        return held is not None and held.voted

    def forget_transaction(self, ttid: bytes) -> None:
        """Release the locks of a transaction that has ended."""
        if self.transactions.pop(ttid, None) is not None:
            self._release(ttid)

    def _release(self, ttid: bytes) -> None:
        self.locks = {oid: owner for oid, owner in self.locks.items() if owner != ttid}
        self.state.wake()
