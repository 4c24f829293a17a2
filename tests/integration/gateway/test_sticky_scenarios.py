"""The four scenarios of sticky sessions (order W4-A) in one process: what the Router is given, answers, and is counted.

Two apps stand for two workers. They share this process' counters, so that a sum is what is read. The same over
gunicorn's workers: ``tests/e2e/test_sticky_sessions.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.devstack.nats_server import NatsServer
from tests.integration.gateway.wired import Wired, wired
from tests.support.documents import DECIDE, decide_body
from tests.support.scripted_router import DECIDE_SUBJECT, ScriptedRouter
from tests.support.sticky_sessions import (
    HITS,
    MISSES,
    STICKY,
    Chosen,
    Providers,
    new_session,
    preferences,
    session_body,
)
from tests.support.waiting import PATIENCE

TTL_SECONDS = 1.0
LOCAL_COPY_SECONDS = 1.0
METERED = {"METRICS_TENANT_LABEL_ALLOWLIST": "acme"}


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(name="sticky-scenarios") as server:
        yield server


@pytest.fixture(scope="module")
def apps(server: NatsServer) -> Iterator[list[Wired]]:
    with two_apps(server) as apps:
        yield apps


@pytest.fixture
def router(server: NatsServer) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(server.url, Providers()) as router:
        yield router


@contextmanager
def two_apps(server: NatsServer, environ: Mapping[str, str] | None = None) -> Iterator[list[Wired]]:
    with ExitStack() as stack:
        apps = [
            stack.enter_context(wired(server.url, {**METERED, **(environ or {})})) for _ in range(2)
        ]
        for app in apps:
            app.until_ready()
        yield apps


def ask(app: Wired, body: object) -> Chosen:
    answer = app.post(DECIDE, body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return Chosen(answer.get_json()["decision"]["provider_id"], answer.headers.get(STICKY))


class Counting:
    """Misses and hits since it was made."""

    def __init__(self, app: Wired) -> None:
        self._app = app
        self._before = self._now()

    def rise(self) -> tuple[int, int]:
        now = self._now()
        return now[0] - self._before[0], now[1] - self._before[1]

    def _now(self) -> tuple[int, int]:
        text = self._app.get("/metrics", Accept="text/plain").get_data(as_text=True)
        labels = {"tenant": "acme", "subject": DECIDE_SUBJECT}
        values = {
            sample.name: int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels == labels
        }
        return values.get(MISSES, 0), values.get(HITS, 0)


def test_cold_start(apps: list[Wired], router: ScriptedRouter) -> None:
    session, counting = new_session(), Counting(apps[0])
    assert ask(apps[0], session_body(session)).sticky == "miss"
    assert preferences(router, session) == [None]
    assert counting.rise() == (1, 0)


def test_warm_cache(apps: list[Wired], router: ScriptedRouter) -> None:
    session, counting = new_session(), Counting(apps[0])
    first = ask(apps[0], session_body(session))
    again = [ask(app, session_body(session)) for app in apps * 2]
    assert again == [Chosen(first.provider, "hit")] * 4
    assert preferences(router, session) == [None] + [first.provider] * 4
    assert counting.rise() == (1, 4)


def test_ttl_expiry() -> None:
    """However often it is used: every request until then is a hit."""
    with (
        NatsServer(name="sticky-ttl") as server,
        ScriptedRouter(server.url, Providers()) as router,
        two_apps(server, {"STICKY_TTL_MS": str(int(TTL_SECONDS * 1000))}) as apps,
    ):
        session, counting = new_session(), Counting(apps[0])
        began = time.monotonic()
        first = ask(apps[0], session_body(session))
        hits = 0
        while (again := ask(apps[1], session_body(session))).sticky == "hit":
            assert again.provider == first.provider
            assert time.monotonic() - began < TTL_SECONDS + LOCAL_COPY_SECONDS + 0.5 * PATIENCE
            hits += 1
        assert time.monotonic() - began >= TTL_SECONDS
        assert again.sticky == "miss" and again.provider != first.provider
        assert preferences(router, session) == [None] + [first.provider] * hits + [None]
        assert counting.rise() == (2, hits)


def test_key_rotation(server: NatsServer, apps: list[Wired], router: ScriptedRouter) -> None:
    session = new_session()
    body = decide_body(context={"session_id": session, "conversation": session})
    old = ask(apps[0], body)
    with two_apps(server, {"STICKY_SESSION_KEY": "conversation"}) as rotated:
        counting = Counting(apps[0])
        new = ask(rotated[0], body)
        assert new.sticky == "miss" and new.provider != old.provider
        assert ask(rotated[1], body) == Chosen(new.provider, "hit")
        assert ask(apps[1], body) == Chosen(old.provider, "hit")
        assert preferences(router, session) == [None, None, new.provider, old.provider]
        assert counting.rise() == (1, 2)
