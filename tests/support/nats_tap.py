"""NatsTap: everything that travels through a NATS server, recorded."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from nats.aio.msg import Msg

from tests.support.nats_session import NatsSession
from tests.support.waiting import GENEROUS_SECONDS, wait_until

# Answers to requests, and the server's own API and advisories. Key/value writes ($KV) are not internals:
# they are records, and a request that must leave no trace must leave none of those either.
_INTERNAL_PREFIXES: Final = ("_INBOX.", "$JS.", "$SYS.")
_SENTINEL_PREFIX: Final = "tests.tap.sentinel."


@dataclass(frozen=True)
class TappedMessage:
    """One message as a subscriber saw it."""

    subject: str
    headers: Mapping[str, str]
    payload: bytes = field(repr=False)
    reply: str = ""

    def json(self) -> Any:
        """The payload as JSON."""
        return json.loads(self.payload)

    def holds(self, text: str) -> bool:
        """Whether the text stands anywhere in it: subject, header names and values, payload."""
        headers = [part for pair in self.headers.items() for part in pair]
        return any(text in part for part in (self.subject, self.reply, *headers)) or (
            text.encode() in self.payload
        )


class NatsTap:
    """Subscribes to ``subjects`` and keeps what comes, in order.

    Without ``internals`` inboxes and the JetStream API are left out. Messages published before the
    tap's opening are not seen; every one after it is.
    """

    def __init__(
        self, url: str, subjects: Sequence[str] = (">",), *, internals: bool = False, **options: Any
    ) -> None:
        self.session = NatsSession(url, name="tap", **options)
        self._subjects = tuple(subjects)
        self._internals = internals
        self._lock = threading.Lock()
        self._messages: list[TappedMessage] = []
        self._sentinels: set[str] = set()

    def open(self) -> None:
        self.session.open()
        try:
            self.session.call(self._subscribe())
        except BaseException:
            self.session.close()
            raise

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def messages(self, subject: str | None = None) -> list[TappedMessage]:
        """What has come so far, on all subjects or on one."""
        with self._lock:
            return [one for one in self._messages if subject is None or one.subject == subject]

    def clear(self) -> None:
        """Forget what has come so far; settle first if something may be on its way."""
        with self._lock:
            self._messages.clear()

    def wait_for(
        self,
        count: int,
        subject: str | None = None,
        *,
        where: Callable[[TappedMessage], bool] = lambda message: True,
        timeout: float = GENEROUS_SECONDS,
    ) -> list[TappedMessage]:
        """Wait for at least ``count`` messages (on ``subject``, of those ``where`` accepts)."""

        def enough() -> list[TappedMessage]:
            found = [message for message in self.messages(subject) if where(message)]
            return found if len(found) >= count else []

        return wait_until(
            enough,
            timeout,
            lambda: f"not {count} messages on {subject or 'any subject'}: {self.messages()}",
        )

    def settle(self) -> None:
        """Wait until all that the server had taken before this call has been recorded."""
        sentinel = _SENTINEL_PREFIX + uuid.uuid4().hex
        self.session.publish(sentinel, b"")

        def seen() -> bool:
            with self._lock:
                return sentinel in self._sentinels

        wait_until(seen, message="the tap's own message did not come back")

    async def _subscribe(self) -> None:
        for subject in (*self._subjects, _SENTINEL_PREFIX + "*"):
            # ">" delivers the sentinel too; the second subscription is for taps of single subjects.
            await self.session.client.subscribe(subject, cb=self._record)
        await self.session.settle()

    async def _record(self, message: Msg) -> None:
        with self._lock:
            if message.subject.startswith(_SENTINEL_PREFIX):
                self._sentinels.add(message.subject)
                return
            if not self._internals and message.subject.startswith(_INTERNAL_PREFIXES):
                return
            self._messages.append(
                TappedMessage(
                    message.subject, dict(message.headers or {}), message.data, message.reply
                )
            )
