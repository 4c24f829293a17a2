"""ScriptedRouter: a Router that does what a test tells it, over real NATS.

For what the strict reference Router never does: it keeps silent, answers late or in another order, and
says things that no Router may say.

    with ScriptedRouter(server.url) as router:                       # decides at once
    with ScriptedRouter(server.url, lambda request: None) as router: # says nothing …
        request = router.wait_for_requests(1)[0]
        router.answer(request, decision("p-1"))                      # … until told to
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from tests.support.nats_session import NatsSession
from tests.support.waiting import GENEROUS_SECONDS, wait_until

DECIDE_SUBJECT: Final = "beamline.router.v1.decide"


@dataclass(frozen=True)
class RouterRequest:
    """A decide request as the Router received it."""

    headers: Mapping[str, str]
    payload: bytes = field(repr=False)
    reply: str = ""

    def json(self) -> dict[str, Any]:
        """The DecideRequest."""
        document: dict[str, Any] = json.loads(self.payload)
        return document


Reply = bytes | Mapping[str, Any]
Behaviour = Callable[[RouterRequest], Reply | None]


def decision(provider_id: str = "openai:gpt-4o", **more: Any) -> dict[str, Any]:
    """A DecideResponse as in the wire contract; ``more`` goes into the decision."""
    return {
        "ok": True,
        "decision": {
            "provider_id": provider_id,
            "priority": 50,
            "expected_latency_ms": 850,
            "expected_cost": 0.012,
            "reason": "best_score",
            "metadata": {},
            **more,
        },
    }


def decide_for(request: RouterRequest) -> dict[str, Any]:
    """The decision that belongs to this request and to no other: its provider names the request."""
    return decision(own_provider(request.json()["request_id"]))


def own_provider(request_id: str) -> str:
    """The provider that `decide_for` gives the request with this id."""
    return f"provider-of:{request_id}"


def router_error(code: str, intake: str | None = None, message: str = "as told") -> dict[str, Any]:
    """An ErrorResponse. In intake errors the Router has lost the request's id, so none is here."""
    error: dict[str, Any] = {"code": code, "message": message, "details": {}}
    if intake is not None:
        error["intake_error_code"] = intake
    return {"ok": False, "error": error}


class ScriptedRouter:
    """One Router; ``behaviour`` gives each request's reply, or None to keep silent for now.

    The behaviour runs on the Router's loop and must not wait. It may be replaced at any time.
    """

    def __init__(
        self,
        url: str,
        behaviour: Behaviour = decide_for,
        *,
        subject: str = DECIDE_SUBJECT,
        **options: Any,
    ) -> None:
        self.behaviour = behaviour
        self._subject = subject
        self._session = NatsSession(url, name="router", **options)
        self._lock = threading.Lock()
        self._requests: list[RouterRequest] = []
        self._failures: list[Exception] = []
        self._subscription: Subscription | None = None

    def open(self) -> None:
        self._session.open()
        try:
            self._session.call(self._subscribe())
        except BaseException:
            self._session.close()
            raise

    def close(self) -> None:
        """Disconnect. Fails if the behaviour did, so that no test blames the gateway for it.

        The server has forgotten the subscription when it returns: the next request finds nobody, or the
        next test's Router, but never this one. With the server away there is nothing to forget.
        """
        with contextlib.suppress(Exception):
            self._session.call(self._unsubscribe(), timeout=2.0)
        self._session.close()
        if self._failures:
            raise AssertionError(f"the scripted Router failed: {self._failures}")

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

    def leave(self) -> None:
        """Listen no longer, until `come_back`: the server says that nobody is there."""
        self._session.call(self._unsubscribe())

    def come_back(self) -> None:
        """Listen again after `leave`."""
        self._session.call(self._subscribe())

    def requests(self) -> list[RouterRequest]:
        """What has come so far."""
        with self._lock:
            return list(self._requests)

    def wait_for_requests(
        self, count: int, timeout: float = GENEROUS_SECONDS
    ) -> list[RouterRequest]:
        """Wait until at least ``count`` requests have come."""

        def enough() -> list[RouterRequest]:
            found = self.requests()
            return found if len(found) >= count else []

        return wait_until(
            enough, timeout, lambda: f"{len(self.requests())} of {count} requests came"
        )

    def answer(self, request: RouterRequest, reply: Reply) -> None:
        """Answer a request now; when it returns the server has the answer."""

        async def work() -> None:
            await self._session.client.publish(request.reply, _encoded(reply))
            await self._session.settle()

        self._session.call(work())

    async def _subscribe(self) -> None:
        self._subscription = await self._session.client.subscribe(
            self._subject, queue="routers", cb=self._receive
        )
        await self._session.settle()

    async def _unsubscribe(self) -> None:
        if self._subscription is not None and self._session.client.is_connected:
            await self._subscription.unsubscribe()
            await self._session.settle()

    async def _receive(self, message: Msg) -> None:
        request = RouterRequest(dict(message.headers or {}), message.data, message.reply)
        with self._lock:
            self._requests.append(request)
        try:
            reply = self.behaviour(request)
        except Exception as failure:
            self._failures.append(failure)
            raise
        if reply is not None:
            await self._session.client.publish(request.reply, _encoded(reply))


def _encoded(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else json.dumps(reply).encode()
