"""Observer: who looks on while messages leave and come in, and may say where they belong (trace context).

The bridge knows no telemetry; this is its seam. An observer is called on the loop and must not wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from bridge.consumer import Delivery

Turn = Literal["waited", "refused", "given_up", "given_back", "failed", "unacknowledged"]
"""What may become of a delivery beside being handled:

``waited``          trouble of our own; the handler is run again after a pause
``refused``         the message is at fault and will be delivered again
``given_up``        the message is at fault and goes to the dead letters
``given_back``      this worker is stopping; another one gets it
``failed``          the handler has a bug; the message will be delivered again
``unacknowledged``  it was handled, but that could not be said; it will be delivered again
"""
Tell = Callable[[Turn, BaseException], None]


class Observer(Protocol):
    """Sees every message on its way out and in; may add headers (trace context) to ``headers``."""

    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> AbstractContextManager[None]:
        """Entered before the send, left with the outcome: the exception, or none."""
        ...

    def consuming(self, durable: str, delivery: Delivery) -> AbstractContextManager[Tell]:
        """Entered when a delivery comes, left when nothing more is done about it. What it yields is told each turn
        that it takes on the way, and why; a delivery that was handled and acknowledged takes none."""
        ...


class NoObserver:
    """Sees nothing."""

    @contextlib.contextmanager
    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> Iterator[None]:
        """See `Observer`."""
        yield

    @contextlib.contextmanager
    def consuming(self, durable: str, delivery: Delivery) -> Iterator[Tell]:
        """See `Observer`."""
        yield lambda turn, why: None
