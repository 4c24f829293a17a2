"""Snapshots: a whole stream with its consumers, as the server itself writes it down and reads it again.

JetStream's own protocol. Taken from a stream that serves, a snapshot is the stream at one moment; the server sends
it in chunks and waits for some of them to be acknowledged. Restored, a stream has its sequences, times, consumers and
what they have acknowledged. A restore that fails leaves a part of the stream behind; it is removed here.

What a restored stream does *not* have, as of nats-server 2.15, is the memory of its duplicate window, until its servers
are started again: `Snapshots.forgets_ids` tells.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from bridge.bus import MSG_ID_HEADER, Bus
from bridge.errors import WRONG_LAST_SEQUENCE, BridgeError, NotSent, Refusal, Refused, Unknown
from bridge.messages import refused

_CHUNK_BYTES: Final = 64 * 1024
_ANSWER_SECONDS: Final = 10.0
"""For one answer or chunk; how long all of it takes depends on the stream."""
_MAKING_SECONDS: Final = 120.0
"""For the server to put a stream together from all that it was sent."""
_PAUSE_SECONDS: Final = 0.1
_NEVER_ONE: Final = {"Nats-Expected-Last-Msg-Id": "of-no-message-there-is"}
_NEVER_REPLICATED: Final = {"Nats-Expected-Last-Sequence": str(2**62)}
"""Conditions that no stream meets. Which of them is looked at after the id depends on whether the stream has one
replica or more; and a replicated stream would have to agree on the first."""
_WRONG_LAST_ID: Final = 10070
_RESTORE_FAILED: Final = 10062
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What JetStream says of a stream: its ``config`` and ``state``, as the server spells them."""

    config: Mapping[str, Any]
    state: Mapping[str, Any]

    def replicated(self, replicas: int) -> Snapshot:
        """The same with so many replicas."""
        return replace(self, config={**self.config, "num_replicas": replicas})


class Snapshots:
    """Takes and restores snapshots on the loop of a bus. All raise BridgeError; what is said is in the text."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def describe(self, stream: str) -> Snapshot | None:
        """The stream as it is now; None where there is none."""
        try:
            answer = await self._info(stream)
        except Refused as error:
            if error.reason is Refusal.NOT_FOUND:
                return None
            raise
        return Snapshot(answer["config"], answer["state"])

    async def take(self, stream: str, sink: Callable[[bytes], object]) -> Snapshot:
        """Hand the stream to ``sink``, chunk by chunk. What came before an error is worth nothing."""
        inbox = self._bus.inbox()
        async with self._bus.subscribe(inbox) as chunks:
            question = {"deliver_subject": inbox, "chunk_size": _CHUNK_BYTES, "jsck": True}
            answer = await self._ask(f"$JS.API.STREAM.SNAPSHOT.{stream}", question)
            while True:
                try:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        chunk = await anext(chunks)
                except (TimeoutError, StopAsyncIteration):
                    raise Unknown(f"{stream}: the rest of the snapshot did not come") from None
                if not chunk.payload:
                    break
                sink(chunk.payload)
                await self._bus.reply(chunk, b"")
        status = chunk.headers.get("Status", "204")
        if status != "204":
            raise Unknown(f"{stream}: {chunk.headers.get('Description', status)}")
        return Snapshot(answer["config"], answer["state"])

    async def restore(self, stream: str, snapshot: Snapshot, chunks: Iterable[bytes]) -> None:
        """Make a stream that must not be there. All of it, or none."""
        question = {"config": dict(snapshot.config), "state": dict(snapshot.state)}
        answer = await self._ask(f"$JS.API.STREAM.RESTORE.{stream}", question)
        to = answer["deliver_subject"]
        try:
            for chunk in chunks:
                reply = await self._bus.request(
                    to, chunk, headers={}, deadline=_in(_ANSWER_SECONDS)
                )
                if reply.payload:  # an empty one: go on
                    _read(reply.payload, to)
            await self._ask(to, seconds=_MAKING_SECONDS)
        except BaseException:
            await self._remove_part(stream)
            raise

    async def delete(self, stream: str) -> None:
        """Delete it with all that is in it."""
        await self._ask(f"$JS.API.STREAM.DELETE.{stream}")

    async def forgets_ids(self, stream: str) -> bool:
        """Whether it would take a message again that it holds and that its duplicate window covers.

        Asked with the id of the newest message and a condition that no stream meets, so that nothing is stored: a
        stream that knows the id says so before it looks at the condition.
        """
        answer = await self._info(stream)
        window_seconds = answer["config"].get("duplicate_window", 0) / _NANOSECONDS
        last = await self._bus.stored_last(stream, deadline=_in(_ANSWER_SECONDS))
        if last is None or MSG_ID_HEADER not in last[0].headers:
            return False
        age_seconds = (_time(answer["ts"]) - _time(answer["state"]["last_ts"])).total_seconds()
        if age_seconds >= window_seconds:
            return False
        message = last[0]
        never = _NEVER_ONE if answer["config"]["num_replicas"] == 1 else _NEVER_REPLICATED
        headers = {MSG_ID_HEADER: message.headers[MSG_ID_HEADER], **never}
        reply = await self._bus.request(
            message.subject, b"", headers=headers, deadline=_in(_ANSWER_SECONDS)
        )
        try:
            return not _read(reply.payload, message.subject).get("duplicate", False)
        except Refused as error:
            if error.err_code in (*WRONG_LAST_SEQUENCE, _WRONG_LAST_ID):
                return True
            raise

    async def _remove_part(self, stream: str) -> None:
        try:
            if await self.describe(stream) is not None:
                await self.delete(stream)
        except BridgeError as error:
            raise Unknown(
                f"{stream}: a part of it was restored and could not be removed ({error})"
            ) from error

    async def _info(self, stream: str) -> dict[str, Any]:
        """A replicated stream that was just made has no leader for a moment: asked again."""
        deadline = _in(_ANSWER_SECONDS)
        while True:
            try:
                return await self._ask(f"$JS.API.STREAM.INFO.{stream}")
            except NotSent:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _ask(
        self,
        subject: str,
        question: Mapping[str, Any] | None = None,
        *,
        seconds: float = _ANSWER_SECONDS,
    ) -> dict[str, Any]:
        payload = b"" if question is None else json.dumps(question).encode()
        reply = await self._bus.request(subject, payload, headers={}, deadline=_in(seconds))
        return _read(reply.payload, subject)


def _read(payload: bytes, subject: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(payload)
        refusal = answer.get("error")
    except (ValueError, AttributeError):
        raise Unknown(f"unreadable answer from {subject}") from None
    if refusal is not None:
        if refusal.get("err_code") == _RESTORE_FAILED:
            # By its status a trouble of the server's, but the same snapshot would fail again.
            why = str(refusal.get("description"))
            raise Refused(why, reason=Refusal.INVALID, err_code=_RESTORE_FAILED)
        raise refused(refusal)
    return answer


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _in(seconds: float) -> float:
    return time.monotonic() + seconds
