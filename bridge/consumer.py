"""Durable pull consumer: fetch, handle, acknowledge after the effect, refuse with backoff.

What is promised:

* A message is acknowledged only after its handler returned; a crash before that redelivers it.
* A handler that raises `Reject` refuses the message: it is delivered again after ``backoff_ms``, and at
  delivery number ``max_deliver`` handed to ``on_dead`` and terminated.
* What is in hand when it is cancelled (a stopping worker) is given back, so that another one takes it at once.
* Trouble of our own (NATS away, an election) is waited out here, with the server kept informed: it costs no
  delivery and never dead-letters a message.
* A message that kills its handler (a bug, a crash) ends as well: it is given up before the handler runs at more
  than ``max_deliver`` plus `_CRASHES_FORGIVEN` deliveries. Why plus: a delivery that was cut off by a lost
  connection counts on the server too, and is not the message's fault.
* Fetches are bounded and the consumer is made again when it is gone or a fetch fails, since nats-py's
  fetch may stall on an orphaned request after a server restart.

The server's own ``max_deliver`` is unlimited and its ``backoff`` unused: a server-side limit just stops
delivering and leaves nothing, and ``nak(delay)`` adds up with a server-side backoff.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import nats.errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from bridge.config import ConsumerSpec
from bridge.connection import Connection
from bridge.errors import BridgeError, NotSent
from bridge.observer import Observer, Tell

_log = logging.getLogger(__name__)
_FETCH_SECONDS: Final = 2.0
_API_TIMEOUT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.25
_OWN_TROUBLE_SECONDS: Final = 1.0
_BUG_SECONDS: Final = 1.0
_GIVE_BACK_SECONDS: Final = 0.25
_CRASHES_FORGIVEN: Final = 16


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one message; ``num_delivered`` counts from 1."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    num_delivered: int
    stream: str
    stream_seq: int


class Reject(Exception):
    """Raised by a handler: the message itself is at fault. ``code`` is short and stable, for the dead letter;
    ``final`` says that another delivery would change nothing."""

    def __init__(self, code: str, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.code = code
        self.final = final


Handler = Callable[[Delivery], Awaitable[None]]
DeadLetterHandler = Callable[[Delivery, Reject], Awaitable[None]]


async def discard(delivery: Delivery, why: Reject) -> None:
    """What becomes of a message that is given up where nobody wants it: a line in the log."""
    _log.warning("message %s/%d given up: %s", delivery.stream, delivery.stream_seq, why)


class PullConsumer:
    """Runs one durable consumer on one connection; see the module's docstring."""

    def __init__(
        self,
        connection: Connection,
        spec: ConsumerSpec,
        handler: Handler,
        observer: Observer,
        *,
        on_dead: DeadLetterHandler = discard,
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._handler = handler
        self._observer = observer
        self._on_dead = on_dead

    async def run(self) -> None:
        """Consume until cancelled. While the consumer cannot be made it is tried again and again."""
        while True:
            try:
                await self._consume(self._connection.client)
            except NotSent:
                pass  # not connected: the next connect starts services anew, this one only waits
            except (nats_errors.Error, OSError, ValueError) as error:
                _log.warning("consumer %s: %s; making it again", self._spec.durable, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _consume(self, client: Client) -> None:
        js = client.jetstream(timeout=_API_TIMEOUT_SECONDS)
        stream = await js.find_stream_name_by_subject(self._spec.subject)
        await js.add_consumer(stream, self._config())
        subscription = await js.pull_subscribe_bind(durable=self._spec.durable, stream=stream)
        running: set[asyncio.Task[None]] = set()
        unhandled: list[Msg] = []
        try:
            while client.is_connected:
                await self._fetch(subscription, running, unhandled)
        finally:
            # First of all: what is given back while a request of this subscription is open is delivered to it again.
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
            for message in unhandled:
                await self._again(message, 0)
            for task in running:
                task.cancel()
            if running:  # each gives its message back
                await asyncio.wait(running, timeout=_GIVE_BACK_SECONDS)

    async def _fetch(
        self,
        subscription: JetStreamContext.PullSubscription,
        running: set[asyncio.Task[None]],
        unhandled: list[Msg],
    ) -> None:
        """Get messages and begin to handle them. Cancelled, it leaves what it has got in ``unhandled``."""
        free = self._spec.max_in_progress - len(running)
        if free <= 0:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return
        # A task of its own, and not `wait_for`: cancelled while the connection closes, nats-py's fetch ends with
        # an error of its own, which would take the place of the cancellation.
        fetch = asyncio.ensure_future(subscription.fetch(free, timeout=_FETCH_SECONDS))
        try:
            await asyncio.wait({fetch}, timeout=_FETCH_SECONDS * 2)
        except asyncio.CancelledError:
            # What is on its way already comes within the bound.
            await asyncio.wait({fetch}, timeout=_GIVE_BACK_SECONDS)
            if fetch.done() and not fetch.cancelled() and fetch.exception() is None:
                unhandled += fetch.result()
            raise
        finally:
            if not fetch.done():
                fetch.cancel()
            fetch.add_done_callback(_read_error)
        if not fetch.done():
            raise nats_errors.TimeoutError  # stalled: the consumer is made again
        try:
            messages = fetch.result()
        except TimeoutError:  # nats-py raises its own one or the builtin one
            return  # nothing there
        for message in messages:
            task = asyncio.get_running_loop().create_task(self._deliver(message))
            running.add(task)
            task.add_done_callback(running.discard)

    async def _deliver(self, message: Msg) -> None:
        meta = message.metadata
        delivery = Delivery(
            subject=message.subject,
            payload=message.data,
            headers=message.headers or {},
            num_delivered=meta.num_delivered,
            stream=meta.stream,
            stream_seq=meta.sequence.stream,
        )
        with self._observer.consuming(self._spec.durable, delivery) as tell:
            await self._see_through(message, delivery, tell)

    async def _see_through(self, message: Msg, delivery: Delivery, tell: Tell) -> None:
        """Handle it and say so to the server, whatever comes of it."""
        try:
            if delivery.num_delivered > self._spec.max_deliver + _CRASHES_FORGIVEN:
                raise Reject("max_deliver", "delivered too often without an answer", final=True)
            await self._handle(message, delivery, tell)
            await message.ack()
        except asyncio.CancelledError as why:
            tell("given_back", why)
            await self._again(message, 0)
            raise
        except Reject as why:
            await self._refuse(message, delivery, why, tell)
        except (nats_errors.Error, OSError) as error:
            tell("unacknowledged", error)
            _log.warning("ack of %s/%d: %s", delivery.stream, delivery.stream_seq, error)
        except Exception as error:
            tell("failed", error)
            _log.exception("message %s/%d", delivery.stream, delivery.stream_seq)
            await self._again(message, _BUG_SECONDS)

    async def _handle(self, message: Msg, delivery: Delivery, tell: Tell) -> None:
        """Run the handler until it has an opinion of the message; wait out everything else."""
        while True:
            try:
                await self._handler(delivery)
                return
            except (BridgeError, nats_errors.Error, OSError) as error:
                tell("waited", error)
                _log.warning("message %s/%d: %s", delivery.stream, delivery.stream_seq, error)
            await self._wait_out(message)

    async def _wait_out(self, message: Msg) -> None:
        """Pause, and tell the server that the message is still being worked on."""
        await asyncio.sleep(min(_OWN_TROUBLE_SECONDS, self._spec.ack_wait_ms / 3000))
        with contextlib.suppress(nats_errors.Error, OSError):
            await message.in_progress()

    async def _refuse(self, message: Msg, delivery: Delivery, why: Reject, tell: Tell) -> None:
        if delivery.num_delivered < self._spec.max_deliver and not why.final:
            tell("refused", why)
            pauses = self._spec.backoff_ms
            pause_ms = pauses[min(delivery.num_delivered - 1, len(pauses) - 1)] if pauses else 0
            await self._again(message, pause_ms / 1000)
            return
        tell("given_up", why)
        while True:
            try:
                await self._on_dead(delivery, why)
                await message.term()
                return
            except (BridgeError, nats_errors.Error, OSError) as error:
                tell("waited", error)
                _log.warning(
                    "dead letter of %s/%d: %s", delivery.stream, delivery.stream_seq, error
                )
            except asyncio.CancelledError as stopped:
                tell("given_back", stopped)
                await self._again(message, 0)
                raise
            except Exception as error:
                tell("failed", error)
                _log.exception("dead letter of %s/%d", delivery.stream, delivery.stream_seq)
                await self._again(message, _BUG_SECONDS)
                return
            await self._wait_out(message)

    @staticmethod
    async def _again(message: Msg, pause_seconds: float) -> None:
        # If even this cannot be said, the server redelivers after ``ack_wait_ms``.
        with contextlib.suppress(nats_errors.Error, OSError):
            await message.nak(delay=pause_seconds)

    def _config(self) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            durable_name=self._spec.durable,
            filter_subject=self._spec.subject,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._spec.ack_wait_ms / 1000,
            max_deliver=-1,
            max_ack_pending=max(1_000, self._spec.max_in_progress * 4),
        )


def _read_error(task: asyncio.Future[list[Msg]]) -> None:
    """Look at the outcome of a task that nobody waits for any more, or asyncio complains about it."""
    if not task.cancelled():
        task.exception()
