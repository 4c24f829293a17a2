"""Bridges under test: what they are configured with, how they are made, and how a test calls them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from bridge import (
    Bridge,
    BridgeConfig,
    BridgeError,
    BucketSpec,
    Message,
    Observer,
    PubAck,
    Service,
    StreamSpec,
)
from tests.support.waiting import GENEROUS_SECONDS, wait_until

ASSIGN: Final = "caf.exec.assign.v1"
ACK: Final = "caf.exec.assign.v1.ack"
RESULT: Final = "caf.exec.result.v1"
DECIDE: Final = "beamline.router.v1.decide"

EXEC: Final = StreamSpec(
    name="BEAMLINE_EXEC",
    subjects=(ASSIGN, ACK, RESULT),
    duplicate_window_ms=120_000,
    max_age_ms=3_600_000,
    max_bytes=64 * 1024 * 1024,
)
KEYS: Final = BucketSpec(name="BEAMLINE_KEYS", ttl_ms=60_000, max_bytes=16 * 1024 * 1024)


def soon(seconds: float = 5.0) -> float:
    """A deadline that many seconds from now, as the bridge counts."""
    return time.monotonic() + seconds


class RunningBridges:
    """Makes bridges and closes those that a test leaves open.

    What a test does not say is as in production, but for a stream of all three execution subjects.
    """

    def __init__(self) -> None:
        self._made: list[Bridge] = []

    def start(
        self,
        *servers: str,
        services: Sequence[Service] = (),
        observer: Observer | None = None,
        ready: bool = True,
        **config: Any,
    ) -> Bridge:
        """A started bridge; ``ready``: one that has passed its audit, too."""
        settings: dict[str, Any] = {"streams": (EXEC,), **config}
        bridge = Bridge(
            BridgeConfig(servers=servers, **settings), observer=observer, services=services
        )
        self._made.append(bridge)
        bridge.start()
        if ready:
            assert bridge.wait_ready(GENEROUS_SECONDS), bridge.health()
        return bridge

    def close(self) -> None:
        """Close all, at the same time; a closed one stays closed."""
        if self._made:
            with ThreadPoolExecutor(len(self._made)) as pool:
                list(pool.map(lambda bridge: bridge.close(5.0), self._made))


def publish(
    bridge: Bridge,
    subject: str = ASSIGN,
    payload: bytes = b"{}",
    *,
    msg_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 5.0,
) -> PubAck:
    """Publish in one hop, under a message id of its own if none is given."""
    deadline = soon(seconds)
    complete = {"Nats-Msg-Id": msg_id or uuid.uuid4().hex, **(headers or {})}
    return bridge.run(
        lambda bus: bus.publish(subject, payload, headers=complete, deadline=deadline), deadline
    )


def request(
    bridge: Bridge, subject: str = DECIDE, payload: bytes = b"{}", *, seconds: float = 5.0
) -> Message:
    """Ask in one hop."""
    deadline = soon(seconds)
    return bridge.run(
        lambda bus: bus.request(subject, payload, headers={}, deadline=deadline), deadline
    )


def outcome(future: Future[Any]) -> Any:
    """What a call in a thread pool came to: its result, or the bridge's error as a value."""
    try:
        return future.result(GENEROUS_SECONDS)
    except BridgeError as error:
        return error


def wait_published(bridge: Bridge, timeout: float, subject: str = ASSIGN) -> PubAck:
    """Publish until it succeeds; what a client that repeats its request would see."""

    def attempt() -> PubAck | None:
        try:
            return publish(bridge, subject, seconds=1.0)
        except BridgeError:
            return None

    ack = wait_until(attempt, timeout, lambda: f"no publish succeeded: {bridge.health()}")
    assert ack is not None
    return ack


def wait_for_count(
    count: Callable[[], int], at_least: int, timeout: float = GENEROUS_SECONDS
) -> None:
    """Wait until there are that many."""
    wait_until(lambda: count() >= at_least, timeout, lambda: f"{count()} instead of {at_least}")


def findings(bridge: Bridge) -> str:
    """What the audit found, a line each."""
    return "\n".join(str(finding) for finding in bridge.health().findings)
