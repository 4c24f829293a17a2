"""Bus: what an operation on the loop may do with NATS. The async face of the bridge.

Every call takes what remains of one deadline (``time.monotonic()`` seconds) and says with its error whether
the thing happened (`bridge.errors`). A call whose deadline has passed sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from nats.aio.msg import Msg

from bridge.bucket import Bucket
from bridge.config import ConsumerSpec
from bridge.connection import Connection
from bridge.consumer import Delivery, PullConsumer, Reject, discard
from bridge.errors import translate
from bridge.exchange import NO_HEADERS, Exchange, check_size
from bridge.messages import Message, PubAck, read_entry, read_stored
from bridge.observer import Observer
from bridge.resources import Audit

MSG_ID_HEADER: Final = "Nats-Msg-Id"
_SUBSCRIBE_SECONDS: Final = 5.0


class Bus:
    """The operations of one connection. Made by the bridge, used on its loop only."""

    def __init__(
        self,
        connection: Connection,
        exchange: Exchange,
        observer: Observer,
        *,
        audited: Callable[[], Audit | None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._exchange = exchange
        self._observer = observer
        self._audited = audited

    @property
    def connected(self) -> bool:
        """Whether a call now would reach the server."""
        return self._connection.connected

    async def request(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str], deadline: float
    ) -> Message:
        """Ask ``subject`` and wait for one answer.

        Raises NotSent (not connected, nobody listens), Unknown (silence until the deadline), Refused (too
        large, not permitted). A late answer is dropped: each request has a reply subject of its own.
        """
        outgoing = dict(headers)
        with self._observer.sending("request", subject, outgoing):
            reply = await self._exchange.call(subject, payload, outgoing, deadline)
        return Message(reply.subject, reply.data, reply.headers or NO_HEADERS)

    async def publish(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str], deadline: float
    ) -> PubAck:
        """Store a message in the stream that holds ``subject`` and wait for its acknowledgement.

        ``headers`` must hold ``Nats-Msg-Id``: only that makes the retry below safe. Raises NotSent (nothing
        was stored; a full stream too), Unknown (sent, unacknowledged: it may be stored), Refused.
        """
        if MSG_ID_HEADER not in headers:
            raise ValueError("a publish without Nats-Msg-Id cannot be repeated safely")
        outgoing = dict(headers)
        with self._observer.sending("publish", subject, outgoing):
            return await self._exchange.store(subject, payload, outgoing, deadline)

    def inbox(self) -> str:
        """A subject to be answered on, which nobody else has. Raises NotSent when not connected."""
        return self._connection.client.new_inbox()

    async def send(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Core NATS: fire and forget. Raises NotSent when not connected, Refused when too large."""
        try:
            client = self._connection.client
            check_size(client, payload, headers)
            await client.publish(subject, payload, headers=dict(headers) if headers else None)
        except Exception as error:
            raise translate(error) from error

    async def reply(
        self, to: Message, payload: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer a message; one that wants no answer gets none."""
        if to.reply:
            await self.send(to.reply, payload, headers=headers)

    @contextlib.asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = ""
    ) -> AsyncIterator[AsyncIterator[Message]]:
        """Listen to ``subject`` (one of the members of ``queue`` gets each message)."""
        try:
            client = self._connection.client
            subscription = await client.subscribe(subject, queue=queue)
        except Exception as error:
            raise translate(error) from error
        try:
            try:
                # Without the round trip a request sent right after could still find no responder.
                async with asyncio.timeout(_SUBSCRIBE_SECONDS):
                    await self._connection.flush(client)
            except Exception as error:
                raise translate(error) from error
            yield (
                Message(msg.subject, msg.data, msg.headers or NO_HEADERS, msg.reply)
                async for msg in subscription.messages
            )
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    @contextlib.asynccontextmanager
    async def wakeups(self, subject: str) -> AsyncIterator[Callable[[float], Awaitable[bool]]]:
        """Listen to ``subject`` for its rhythm only: ``await wakeup(seconds)`` is True when something came.

        What is asked of the server inside the block is asked after it began to listen: on one connection it takes
        things in order. A wake-up may be lost with the connection; look again now and then.
        """
        heard = asyncio.Event()

        async def hear(_: Msg) -> None:
            heard.set()

        async def wakeup(seconds: float) -> bool:
            try:
                async with asyncio.timeout(seconds):
                    await heard.wait()
            except TimeoutError:
                return False
            heard.clear()
            return True

        try:
            subscription = await self._connection.client.subscribe(subject, cb=hear)
        except Exception as error:
            raise translate(error) from error
        try:
            yield wakeup
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def consume(
        self,
        spec: ConsumerSpec,
        handler: Callable[[Delivery], Awaitable[None]],
        *,
        on_dead: Callable[[Delivery, Reject], Awaitable[None]] | None = None,
    ) -> None:
        """Hand each message of a durable consumer to ``handler`` until cancelled.

        The message is acknowledged after ``handler`` returned; one that is given up goes to ``on_dead`` first. See
        `bridge.consumer` for the rest.
        """
        consumer = PullConsumer(
            self._connection, spec, handler, self._observer, on_dead=on_dead or discard
        )
        await consumer.run()

    def bucket(self, name: str) -> Bucket:
        """A key/value bucket that the bridge was configured with."""
        found = self._audited()
        return Bucket(name, self._exchange, ttl_ms=found.ttl_ms(name) if found else None)

    async def stored(self, stream: str, seq: int, *, deadline: float) -> Message | None:
        """The message at ``seq`` of a stream, read through its leader; None if it is there no more."""
        question = json.dumps({"seq": seq}).encode()
        subject = f"$JS.API.STREAM.MSG.GET.{stream}"
        reply = await self._exchange.read(subject, question, deadline)
        return read_stored(reply.data)

    async def stored_from(
        self, stream: str, seq: int, *, deadline: float
    ) -> tuple[Message, int] | None:
        """The first message at ``seq`` or later, and its sequence; None after the last."""
        question = json.dumps({"seq": seq, "next_by_subj": ">"}).encode()
        reply = await self._exchange.read(f"$JS.API.STREAM.MSG.GET.{stream}", question, deadline)
        found = read_entry(reply.data)
        return None if found is None else (found[0], found[1])

    async def stored_last(self, stream: str, *, deadline: float) -> tuple[Message, int] | None:
        """The last message of a stream, and its sequence; None where there is none."""
        question = json.dumps({"last_by_subj": ">"}).encode()
        reply = await self._exchange.read(f"$JS.API.STREAM.MSG.GET.{stream}", question, deadline)
        found = read_entry(reply.data)
        return None if found is None else (found[0], found[1])

    def forgets_ids(self, subject: str) -> bool:
        """Whether the stream of ``subject`` may store a repeated message again (the audit said why)."""
        found = self._audited()
        return found is not None and subject in found.weak

    def server_now(self) -> float | None:
        """The server's clock in seconds since 1970, as of the last audit; None before it.

        For telling people how old something is. Nothing is decided by it.
        """
        found = self._audited()
        return found.server_now() if found else None
