"""NatsSession: nats-py with a synchronous face, so that tests read top to bottom.

A connection of the tests' own, on a thread and loop of its own. It reconnects by itself, so that it
survives the servers that tests kill.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamInfo
from nats.js.client import JetStreamContext

T = TypeVar("T")

_CALL_SECONDS: Final = 20.0


@dataclass(frozen=True)
class StoredMessage:
    """One message as a stream holds it."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    payload: bytes = field(repr=False)


class NatsSession:
    """A NATS connection; use it as a context manager. ``options`` go to ``nats.connect``."""

    def __init__(self, url: str, *, name: str = "test", **options: Any) -> None:
        self.url = url
        self.name = name
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=f"nats-{name}", daemon=True)
        self._client: NatsClient | None = None

    @property
    def client(self) -> NatsClient:
        """nats-py's client; to be used on the session's loop only (`call`)."""
        assert self._client is not None, "the session is not open"
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """nats-py's JetStream context; to be used on the session's loop only (`call`)."""
        return self.client.jetstream()

    def call(self, work: Coroutine[Any, Any, T], timeout: float = _CALL_SECONDS) -> T:
        """Run a coroutine on the session's loop and return its result. Not from that loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    def open(self) -> None:
        """Connect. Raises what nats-py raises."""
        self._thread.start()
        try:
            self._client = self.call(self._connect())
        except BaseException:
            self._stop_loop()
            raise

    def close(self) -> None:
        """Disconnect and end the thread. Works while the server is away."""
        if self._client is not None:
            with contextlib.suppress(Exception):  # a dead server cannot say goodbye
                self.call(self._client.close(), timeout=5.0)
        self._stop_loop()

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

    # -- NATS ---------------------------------------------------------------------------------------

    def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Core NATS; when it returns the server has the message."""

        async def work() -> None:
            await self.client.publish(subject, payload, headers=dict(headers) if headers else None)
            await self.settle()

        self.call(work())

    async def settle(self) -> None:
        """Wait until the server has done all that this connection asked for before. On the loop.

        Not nats-py's ``flush()``: its PING overtakes what still waits to be written, a SUB for instance,
        so that its PONG says nothing about it (nats-py 2.16, seen on the wire). A message to oneself
        stands in line with the others.
        """
        came = asyncio.get_running_loop().create_future()

        async def receive(message: Msg) -> None:
            if not came.done():
                came.set_result(None)

        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox, cb=receive)
        await self.client.publish(inbox, b"")
        await asyncio.wait_for(came, _CALL_SECONDS)
        await subscription.unsubscribe()

    # -- JetStream ----------------------------------------------------------------------------------

    def stream_info(self, stream: str) -> StreamInfo:
        """Configuration and state. Raises nats-py's NotFoundError if there is no such stream."""
        return self.call(self.jetstream.stream_info(stream))

    def delete_stream(self, stream: str) -> None:
        self.call(self.jetstream.delete_stream(stream))

    def stream_messages(self, stream: str, *, after: int = 0) -> list[StoredMessage]:
        """All messages of the stream with a sequence above ``after``, in order."""
        return self.call(self._read_stream(stream, after))

    def last_sequence(self, stream: str) -> int:
        """The sequence of the stream's newest message; 0 if it never had one."""
        return self.stream_info(stream).state.last_seq

    # -- inside -------------------------------------------------------------------------------------

    async def _connect(self) -> NatsClient:
        options: dict[str, Any] = {
            "name": f"tests: {self.name}",
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.05,
            "connect_timeout": 5,
            "error_cb": _ignore,
            **self._options,
        }
        return await nats.connect(self.url, **options)

    async def _read_stream(self, stream: str, after: int) -> list[StoredMessage]:
        info = await self.jetstream.stream_info(stream)
        if info.state.messages == 0 or info.state.last_seq <= after:
            return []
        subscription = await self.jetstream.pull_subscribe(
            "",
            stream=stream,
            config=ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(after + 1, 1),
                inactive_threshold=30.0,
            ),
        )
        found: list[StoredMessage] = []
        try:
            while not found or found[-1].seq < info.state.last_seq:
                for message in await subscription.fetch(500, timeout=5.0):
                    found.append(
                        StoredMessage(
                            message.metadata.sequence.stream,
                            message.subject,
                            dict(message.headers or {}),
                            message.data,
                        )
                    )
        finally:
            with contextlib.suppress(Exception):
                consumer = await subscription.consumer_info()
                await self.jetstream.delete_consumer(stream, consumer.name)
            await subscription.unsubscribe()
        return found

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        leftover = asyncio.all_tasks(self._loop)
        for task in leftover:
            task.cancel()
        if leftover:
            self._loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        assert not self._thread.is_alive(), f"the thread {self._thread.name} does not end"


async def _ignore(error: Exception) -> None:
    """nats-py prints what nobody listens to; a killed server is what the tests want."""
