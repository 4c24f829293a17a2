"""Bucket: a JetStream key/value bucket, read through its leader, with a deadline for every call.

Ours and not nats-py's, for three reasons that exactly-once rests on: reads never go to a follower, a write that was
cut off by a lost connection is repeated inside its deadline, and each call costs one round trip. A write that was
repeated may find itself: a caller tells its own entry by what it wrote into it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from bridge.errors import Refusal, Refused
from bridge.exchange import Exchange
from bridge.messages import read_entry, read_subjects

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_OPERATION: Final = "KV-Operation"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's last value. ``stored_at`` is the server's time of it, as the server writes it (RFC 3339)."""

    value: bytes
    revision: int
    stored_at: str


class Taken(Refused):
    """The key exists: ``entry`` is what is there, or None where it was gone again when it was looked for."""

    def __init__(self, message: str, entry: Entry | None) -> None:
        super().__init__(message, reason=Refusal.REVISION)
        self.entry = entry


class Bucket:
    """One bucket on one connection. With NATS away every call raises NotSent at once."""

    def __init__(self, name: str, exchange: Exchange, *, ttl_ms: int | None) -> None:
        self.name = name
        self.ttl_ms = ttl_ms
        """How long an entry lives after its last change, as the server has it; None: for ever."""
        self._exchange = exchange

    async def create(self, key: str, value: bytes, *, deadline: float) -> int:
        """Write a key that must not exist; its revision. Raises Taken when it does."""
        try:
            return await self._write(key, value, 0, deadline)
        except Refused as error:
            if error.reason is not Refusal.REVISION:
                raise
            there = await self._read(key, deadline)
            if there is None or not there.deleted:
                raise Taken(str(error), None if there is None else there.entry) from None
            try:
                return await self._write(key, value, there.entry.revision, deadline)
            except Refused as again:
                if again.reason is not Refusal.REVISION:
                    raise
                raise Taken(str(again), await self.get(key, deadline=deadline)) from None

    async def update(self, key: str, value: bytes, revision: int, *, deadline: float) -> int:
        """Write a key that must be at ``revision``; its new one. Raises Refused (REVISION) when it is not."""
        return await self._write(key, value, revision, deadline)

    async def settle(self, key: str, value: bytes, revision: int, *, deadline: float) -> None:
        """As `update`, for writers that would all write the same: one that was there first is as good."""
        try:
            await self._write(key, value, revision, deadline)
        except Refused as error:
            if error.reason is not Refusal.REVISION:
                raise

    async def get(self, key: str, *, deadline: float) -> Entry | None:
        """The key's last value, or None: never written, deleted, or expired."""
        found = await self._read(key, deadline)
        return None if found is None or found.deleted else found.entry

    async def entries(self, pattern: str, *, deadline: float) -> list[Entry]:
        """The last values of all keys that match ``pattern`` (``*`` and ``>`` as in subjects), oldest first."""
        if "*" not in pattern and ">" not in pattern:
            entry = await self.get(pattern, deadline=deadline)
            return [] if entry is None else [entry]
        question = json.dumps({"subjects_filter": self._subject(pattern)}).encode()
        reply = await self._exchange.read(f"$JS.API.STREAM.INFO.KV_{self.name}", question, deadline)
        prefix = len(self._subject(""))
        keys = [subject[prefix:] for subject in read_subjects(reply.data)]
        entries = [await self.get(key, deadline=deadline) for key in keys]
        return sorted((e for e in entries if e is not None), key=lambda entry: entry.revision)

    async def delete(self, key: str, *, deadline: float, revision: int | None = None) -> None:
        """Leave a marker instead of the value; with ``revision``, only if that is the key's last one (Refused)."""
        headers = {_OPERATION: "DEL"}
        if revision is not None:
            headers[_EXPECTED] = str(revision)
        await self._exchange.store(self._subject(key), b"", headers, deadline)

    async def _write(self, key: str, value: bytes, revision: int, deadline: float) -> int:
        headers = {_EXPECTED: str(revision)}
        ack = await self._exchange.store(self._subject(key), value, headers, deadline)
        return ack.seq

    async def _read(self, key: str, deadline: float) -> _Stored | None:
        question = json.dumps({"last_by_subj": self._subject(key)}).encode()
        subject = f"$JS.API.STREAM.MSG.GET.KV_{self.name}"
        reply = await self._exchange.read(subject, question, deadline)
        found = read_entry(reply.data)
        if found is None:
            return None
        message, revision, stored_at = found
        entry = Entry(message.payload, revision, stored_at)
        return _Stored(entry, deleted=_OPERATION in message.headers)

    def _subject(self, key: str) -> str:
        return f"$KV.{self.name}.{key}"


@dataclass(frozen=True, slots=True)
class _Stored:
    entry: Entry
    deleted: bool
