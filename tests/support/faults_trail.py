"""Trail: which events on the proxied connections belong to one HTTP request, and the fault at one of them.

A request is followed by its trace id, which is in every record and message made for it. What it leads to is followed
too: the reply subject of each of its messages, the key that it claims, the sequence that a stream named to it. So the
heartbeat of the connection and the consumer of results beside it are never counted.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from typing import Final

from tests.support.faults_proxy import Verdict
from tests.support.faults_wire import WireEvent

_RECORDS: Final = "$KV."
_READ: Final = "$JS.API.STREAM.MSG.GET."


@dataclass(frozen=True, slots=True)
class Position:
    """Right before or right after a request's event number ``index``, counted from 0."""

    index: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.index + 1}"


def positions(events: int) -> list[Position]:
    """All positions of a request with so many events."""
    return [Position(index, after) for index in range(events) for after in (False, True)]


class Trail:
    """Follows one request at a time; its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[bytes] = set()
        self._replies: dict[str, str] = {}
        self._sequences: set[tuple[str, int]] = set()
        self._labels: list[str] = []
        self._armed: Position | None = None
        self._when_before = Verdict.STRIKE_INSTEAD
        self._struck = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The request's events so far, each in words."""
        with self._lock:
            return tuple(self._labels)

    @property
    def struck(self) -> bool:
        """Whether the fault has happened since it was armed."""
        with self._lock:
            return self._struck

    def arm(self, position: Position, *, when_before: Verdict = Verdict.STRIKE_INSTEAD) -> None:
        """Strike once, when a request that is followed reaches ``position``."""
        with self._lock:
            self._armed, self._when_before, self._struck = position, when_before, False

    def follow(self, trace_id: str) -> None:
        """Follow this request from now on, and no longer the one before."""
        with self._lock:
            self._names = {trace_id.encode()}
            self._replies, self._sequences, self._labels = {}, set(), []

    def judge(self, event: WireEvent, _client: str) -> Verdict:
        """For `NatsProxy`."""
        with self._lock:
            label = self._label(event)
            if label is None:
                return Verdict.FORWARD
            index = len(self._labels)
            self._labels.append(label)
            if self._armed is None or self._armed.index != index:
                return Verdict.FORWARD
            after, self._armed, self._struck = self._armed.after, None, True
            return Verdict.FORWARD_THEN_STRIKE if after else self._when_before

    # -- inside: under the lock ---------------------------------------------------------------------

    def _label(self, event: WireEvent) -> str | None:
        if not event.subject:
            return None
        if event.from_client:
            return self._sent(event)
        asked = self._replies.get(event.subject)
        if asked is None:
            return None
        self._note_sequence(event.payload)
        return f"answer to {asked}"

    def _sent(self, event: WireEvent) -> str | None:
        if not (any(name in event.raw for name in self._names) or self._reads_known(event)):
            return None
        label = event.subject
        if event.subject.startswith(_RECORDS):
            label, _, key = event.subject.rpartition(".")
            self._names.add(key.encode())
        if event.reply:
            self._replies[event.reply] = label
        return label

    def _reads_known(self, event: WireEvent) -> bool:
        stream = event.subject.removeprefix(_READ)
        if stream == event.subject:
            return False
        asked = json.loads(event.payload)
        return (stream, asked.get("seq")) in self._sequences

    def _note_sequence(self, payload: bytes) -> None:
        stream = re.search(rb'"stream":\s*"([^"]+)"', payload)
        sequence = re.search(rb'"seq":\s*(\d+)', payload)
        if stream and sequence:
            self._sequences.add((stream[1].decode(), int(sequence[1])))
