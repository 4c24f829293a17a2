"""Exchange: one message and its one answer, and what to do when the connection is lost in between.

A call waits for its reply subject's first message; whatever comes later is dropped. Three things end the wait early,
because the answer will not come: the server refuses the subject to this account (it says so asynchronously, by
subject), the connection is lost while a *store* or a *read* waits, or the deadline.

A store (a JetStream publish that the stream recognises when it is repeated) and a read are sent again after a
lost connection and while an equal message is being replicated, inside the deadline. Once one attempt is unknown the
whole is: a later "not sent" cannot take that back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from bridge.connection import Connection
from bridge.errors import (
    BridgeError,
    Closed,
    NotSent,
    Refusal,
    Refused,
    Unknown,
    translate,
)
from bridge.messages import Full, InProcess, PubAck, read_ack

T = TypeVar("T")
_UNSENT_BYTES: Final = 8 * 1024 * 1024
"""How much may wait for a server that takes nothing (a frozen one) before calls wait instead of adding to it."""
NO_HEADERS: Final[Mapping[str, str]] = {}


class ConnectionLost(Unknown):
    """The connection went away between the send and the answer."""


class Exchange:
    """The calls that are under way on one connection. ``patient``: stores wait for a stream's leader, too."""

    def __init__(
        self,
        connection: Connection,
        *,
        on_trouble: Callable[[], None] = lambda: None,
        patient: bool = False,
    ) -> None:
        self._connection = connection
        self._on_trouble = on_trouble
        self._patient = patient
        self._waiting: dict[str, set[asyncio.Task[Any]]] = {}
        self._repeatable: set[asyncio.Task[Any]] = set()
        self._interrupted: dict[asyncio.Task[Any], BridgeError] = {}
        connection.on_violation = self._refused_by_server

    async def call(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline: float
    ) -> Msg:
        """Send and wait for the answer. Raises NotSent, Unknown, Refused."""
        task = asyncio.current_task()
        assert task is not None
        waiting = self._waiting.setdefault(subject, set())
        waiting.add(task)
        try:
            client = await self._ready_client(deadline)
            check_size(client, payload, headers)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise NotSent("the deadline passed before anything was sent")
            return await client.request(
                subject, payload, timeout=remaining, headers=dict(headers) if headers else None
            )
        except asyncio.CancelledError:
            why = self._interrupted.pop(task, None)
            if why is not None and task.uncancel() == 0:
                raise why from None
            raise
        except BridgeError:
            raise
        except Exception as error:
            raise translate(error) from error
        finally:
            if self._interrupted.pop(task, None) is not None:
                task.uncancel()  # nats-py swallowed the cancellation, as it does where it flushes
            waiting.discard(task)
            if not waiting:
                self._waiting.pop(subject, None)

    async def store(
        self, subject: str, payload: bytes, headers: Mapping[str, str], deadline: float
    ) -> PubAck:
        """Publish to the stream that holds ``subject`` and wait for its acknowledgement.

        The caller must be able to tell a repeated message from a new one (``Nats-Msg-Id``, or an expected
        sequence). Raises NotSent (nothing was stored), Unknown (it may be), Refused.
        """
        return await self._repeat(
            lambda: self._store_once(subject, payload, headers, deadline), deadline
        )

    async def read(self, subject: str, question: bytes, deadline: float) -> Msg:
        """Ask JetStream something that changes nothing; asked again after a lost connection."""
        return await self._repeat(
            lambda: self._interruptible(subject, question, None, deadline), deadline
        )

    def connection_lost(self) -> None:
        """Wake the stores and reads that wait for an answer: it would have come on the lost connection."""
        for task in self._repeatable:
            self._interrupt(task, ConnectionLost("the connection was lost before the answer"))

    async def _repeat(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        unknown: Unknown | None = None
        while True:
            try:
                return await attempt()
            except ConnectionLost as error:
                unknown = error
                await self._connection.wait_connected(deadline)
            except InProcess as error:
                unknown = error
            except NotSent as error:
                waits = self._patient and self._connection.connected and type(error) is not Full
                if unknown is None and not waits:
                    raise
                if time.monotonic() >= deadline:
                    raise unknown or error from None
            except (Refused, Closed) as error:
                # A lost revision is an answer: the caller looks whether the entry is its own.
                if unknown is None or getattr(error, "reason", None) is Refusal.REVISION:
                    raise
                raise unknown from error
            if unknown is not None and time.monotonic() >= deadline:
                raise unknown
            await asyncio.sleep(random.uniform(0.005, 0.05))

    async def _interruptible(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None, deadline: float
    ) -> Msg:
        task = asyncio.current_task()
        assert task is not None
        self._repeatable.add(task)
        try:
            return await self.call(subject, payload, headers, deadline)
        finally:
            self._repeatable.discard(task)

    async def _store_once(
        self, subject: str, payload: bytes, headers: Mapping[str, str], deadline: float
    ) -> PubAck:
        try:
            reply = await self._interruptible(subject, payload, headers, deadline)
        except NotSent:
            if self._connection.connected and time.monotonic() < deadline:
                self._on_trouble()
            raise
        try:
            return read_ack(reply.data)
        except Full:
            self._on_trouble()
            raise

    def _refused_by_server(self, verb: str, subject: str) -> None:
        if verb != "publish":
            return
        for waited_for, tasks in self._waiting.items():
            if waited_for.lower() == subject:
                why = f"this account may not publish to {waited_for}"
                for task in tasks:
                    self._interrupt(task, Refused(why, reason=Refusal.PERMISSION))

    async def _ready_client(self, deadline: float) -> Client:
        """The client, as soon as the server takes what was handed over before."""
        client = self._connection.client
        while client.pending_data_size > _UNSENT_BYTES:
            if time.monotonic() >= deadline:
                raise NotSent("NATS does not take what is sent to it")
            await asyncio.sleep(0.005)
            client = self._connection.client
        return client

    def _interrupt(self, task: asyncio.Task[Any], why: BridgeError) -> None:
        if task not in self._interrupted:
            self._interrupted[task] = why
            task.cancel()


def check_size(client: Client, payload: bytes, headers: Mapping[str, str] | None) -> None:
    """Raise Refused (TOO_LARGE) for what the server would not take.

    The server counts the headers in, nats-py does not; and the server's answer is to close the connection, with all
    that is under way on it.
    """
    size = len(payload)
    if headers:
        # ``NATS/1.0``, a line for each header, an empty line.
        size += 12 + sum(len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
    if size > client.max_payload:
        why = f"{size} bytes with headers, NATS takes {client.max_payload}"
        raise Refused(why, reason=Refusal.TOO_LARGE)
