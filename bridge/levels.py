"""Levels: how full streams are and how far behind consumers, for operators. Nothing is decided by them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from nats.errors import Error as NatsError
from nats.js import api

from bridge.config import BridgeConfig
from bridge.connection import Connection
from bridge.errors import BridgeError

_API_TIMEOUT_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class StreamLevel:
    """How full a stream or bucket is. ``max_bytes``: None where it has no limit of its own."""

    messages: int
    size_bytes: int
    max_bytes: int | None

    @classmethod
    def of(cls, info: api.StreamInfo) -> Self:
        """From what the server says about a stream."""
        most = info.config.max_bytes
        return cls(info.state.messages, info.state.bytes, most if most and most > 0 else None)


@dataclass(frozen=True, slots=True)
class ConsumerLevel:
    """How far behind a durable consumer is, over everybody who shares it, in messages: not delivered yet; delivered
    and not acknowledged; delivered more than once and not acknowledged."""

    pending: int
    unacknowledged: int
    redelivered: int


async def keep_measuring(
    connection: Connection,
    config: BridgeConfig,
    tell: Callable[[Mapping[str, ConsumerLevel]], None],
) -> None:
    """Tell the levels of consumers by their durable names, now and again until cancelled.

    What cannot be asked now (NATS away, no permission, not made yet) is left out of that round.
    """
    while True:
        levels: dict[str, ConsumerLevel] = {}
        for spec in config.consumers:
            with contextlib.suppress(BridgeError, NatsError, OSError, ValueError):
                js = connection.client.jetstream(timeout=_API_TIMEOUT_SECONDS)
                stream = await js.find_stream_name_by_subject(spec.subject)
                info = await js.consumer_info(stream, spec.durable)
                levels[spec.durable] = ConsumerLevel(
                    info.num_pending or 0, info.num_ack_pending or 0, info.num_redelivered or 0
                )
        tell(levels)
        # A consumer is made at the same time as this begins.
        complete = len(levels) == len(config.consumers)
        await asyncio.sleep(config.measure_interval_seconds if complete else _RETRY_SECONDS)
