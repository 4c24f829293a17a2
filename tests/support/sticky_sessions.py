"""Sessions that stay with a provider: a Router that keeps preferences, what it was given, and what was counted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import decide_body, new_id
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.nats_session import NatsSession
from tests.support.scripted_router import (
    DECIDE_SUBJECT,
    Reply,
    RouterRequest,
    ScriptedRouter,
    decision,
)
from tests.support.waiting import wait_until

STICKY: Final = "X-Sticky"
BUCKET_STREAM: Final = "KV_BEAMLINE_STICKY"
HITS: Final = "sticky_hits_total"
MISSES: Final = "sticky_miss_total"
UNAVAILABLE: Final = "beamline_gateway_sticky_unavailable_total"

Document = dict[str, Any]


def session_body(session: object, *, field: str = "session_id", **more: Any) -> Document:
    """A decide of this session."""
    return decide_body(context={field: session}, **more)


def new_session() -> str:
    """A session that nobody else has."""
    return new_id("session")


@dataclass(frozen=True)
class Chosen:
    """What a client was told: the provider, and what became of its session."""

    provider: str
    sticky: str | None


def chosen(answer: Answer) -> Chosen:
    """The decision of an answer; fails if it is none."""
    assert answer.status == 200, answer
    return Chosen(answer.json()["decision"]["provider_id"], answer.header(STICKY))


class Providers:
    """A Router's behaviour: a preferred provider if it is there, else one that nobody was given before.

    So no two answers are equal by chance: an answer that repeats a provider was asked for it.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._mark = new_id("provider")
        self.gone: set[str] = set()
        self.instead: str | None = None
        """The provider for those whose preferred one is gone; None: a new one each."""

    def __call__(self, request: RouterRequest) -> Reply | None:
        wanted = preferred(request)
        if wanted is not None and wanted not in self.gone:
            return decision(wanted, reason="preferred")
        if wanted is not None and self.instead is not None:
            return decision(self.instead, reason="preferred_unavailable")
        return decision(self.new())

    def new(self) -> str:
        """A provider that nobody else was given."""
        return f"{self._mark}-{next(self._numbers)}"


def preferred(request: RouterRequest) -> str | None:
    """The provider that the Router was given to prefer."""
    found: str | None = request.json().get("metadata", {}).get("preferred_provider_id")
    return found


def preferences(router: ScriptedRouter, session: object) -> list[str | None]:
    """What each request of a session asked the Router for, in the order of their arrival; None: freely."""
    return [
        preferred(request)
        for request in router.requests()
        if session in request.json().get("context", {}).values()
    ]


def entries(session: NatsSession, stream: str = BUCKET_STREAM) -> list[Document]:
    """What the bucket holds now."""
    return [
        json.loads(message.payload)
        for message in session.stream_messages(stream)
        if "KV-Operation" not in message.headers
    ]


def entry_of(session: NatsSession, provider: str) -> Document | None:
    """The entry that holds a provider; None if there is none."""
    found = [entry for entry in entries(session) if entry["provider"] == provider]
    assert len(found) <= 1, found
    return found[0] if found else None


class StickyCounting:
    """How the counters of sessions have risen since it was made, summed over all workers of these gateways."""

    def __init__(self, *gateways: GatewayProcess, tenant: str = "acme") -> None:
        self._gateways = gateways
        self._labels = {"tenant": tenant, "subject": DECIDE_SUBJECT}
        self._before = self._now()

    def rise(self) -> Document:
        """Misses, hits and those that could not be looked up."""
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}

    def expect(self, *, misses: int = 0, hits: int = 0, unavailable: int = 0) -> None:
        """Exactly these. A worker counts before it asks the Router, so before any answer."""
        expected = {MISSES: misses, HITS: hits, UNAVAILABLE: unavailable}
        assert self.rise() == expected

    def _now(self) -> dict[str, int]:
        names = (MISSES, HITS, UNAVAILABLE)
        sums = dict.fromkeys(names, 0)
        for gateway in self._gateways:
            for name, labels, value in samples(gateway):
                if name in sums and labels == self._labels:
                    sums[name] += int(value)
        return sums


def samples(gateway: GatewayProcess) -> list[tuple[str, Mapping[str, str], float]]:
    """All that a scraper of this gateway sees: name, labels, value."""
    with gateway.client(headers={}) as client:
        answer = client.get("/metrics", {"Accept": "text/plain"})
    assert answer.status == 200, answer
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    ]


def in_flight(*gateways: GatewayProcess) -> int:
    """How many requests are at work in these gateways."""
    return sum(
        int(value)
        for gateway in gateways
        for name, _, value in samples(gateway)
        if name == "beamline_gateway_in_flight_requests"
    )


def wait_for_sticky(
    ask: Callable[[], Chosen], wanted: str, *, timeout: float, message: str
) -> Chosen:
    """Ask until a request of the session ends as ``wanted``; that answer."""
    answers: list[Chosen] = []

    def came() -> Chosen | None:
        answers.append(ask())
        return answers[-1] if answers[-1].sticky == wanted else None

    found = wait_until(came, timeout, lambda: f"{message}: {answers[-3:]}")
    assert found is not None
    return found
