"""A handler of a durable consumer that remembers what it was given, and does as the test says."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bridge import Bus, ConsumerSpec, Delivery, Reject


async def _accept(_: Delivery) -> None:
    """Every message is fine."""


@dataclass
class Consumption:
    """A bridge's service that consumes ``spec``.

    ``act`` is what the handler does; ``given`` is what it was called with, and when; ``dead`` what was given
    up, and why.
    """

    spec: ConsumerSpec
    act: Callable[[Delivery], Awaitable[None]] = _accept
    bury: Callable[[Delivery, Reject], Awaitable[None]] | None = None
    given: list[tuple[float, Delivery]] = field(default_factory=list)
    done: list[Delivery] = field(default_factory=list)
    dead: list[tuple[Delivery, Reject]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def service(self, bus: Bus) -> None:
        """Consumes until it is cancelled."""
        await bus.consume(self.spec, self._handle, on_dead=self._bury)

    def times(self) -> list[float]:
        """When the handler was called, in seconds after its first call."""
        with self._lock:
            return [at - self.given[0][0] for at, _ in self.given]

    def counts(self) -> Counter[bytes]:
        """How often each payload was given to the handler."""
        with self._lock:
            return Counter(delivery.payload for _, delivery in self.given)

    def finished(self) -> set[bytes]:
        """The payloads whose handler returned."""
        with self._lock:
            return {delivery.payload for delivery in self.done}

    async def _handle(self, delivery: Delivery) -> None:
        with self._lock:
            self.given.append((time.monotonic(), delivery))
        await self.act(delivery)
        with self._lock:
            self.done.append(delivery)

    async def _bury(self, delivery: Delivery, why: Reject) -> None:
        if self.bury is not None:
            await self.bury(delivery, why)
        with self._lock:
            self.dead.append((delivery, why))
