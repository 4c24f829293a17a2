"""``beamline-gateway sticky show | drop``: what an operator sees of a session, and sends elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.documents import DECIDE
from tests.support.idempotency_fleet import Fleet
from tests.support.operator_command import Ended, beamline_gateway
from tests.support.scripted_router import ScriptedRouter
from tests.support.sticky_sessions import (
    Chosen,
    Providers,
    chosen,
    new_session,
    preferences,
    session_body,
    wait_for_sticky,
)
from tests.support.waiting import RECOVERY_SECONDS


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest.fixture
def router(fleet: Fleet, providers: Providers) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(fleet.nats.url, providers) as router:
        yield router


def ask(fleet: Fleet, session: str) -> Chosen:
    return chosen(fleet.post(DECIDE, session_body(session)))


def sticky(fleet: Fleet, *arguments: str, **environment: str) -> Ended:
    return beamline_gateway("sticky", *arguments, nats_url=fleet.nats.url, environment=environment)


def test_show_tells_the_provider_its_generation_and_the_reason(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    session = new_session()
    first = ask(fleet, session)
    shown = sticky(fleet, "show", "--tenant", "acme", session)
    assert shown.code == 0, shown
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (lines["provider"], lines["generation"], lines["reason"]) == (
        first.provider, "0", "best_score",
    )  # fmt: skip
    providers.instead = providers.new()
    providers.gone.add(first.provider)
    assert ask(fleet, session).sticky == "moved"
    shown = sticky(fleet, "show", "--json", "--tenant", "acme", session)
    document = json.loads(shown.out)
    assert document.pop("since").startswith("20")
    assert document.pop("key") == lines["key"], "what the audit log calls the session"
    assert document == {
        "tenant_id": "acme",
        "session": session,
        "provider_id": providers.instead,
        "generation": 1,
        "reason": "preferred_unavailable",
    }


def test_dropped_session_asks_freely_within_a_second(fleet: Fleet, router: ScriptedRouter) -> None:
    session = new_session()
    first = ask(fleet, session)
    dropped = sticky(fleet, "drop", "--tenant", "acme", session)
    assert (dropped.code, dropped.out.strip()) == (0, f"dropped (was with {first.provider})")
    again = wait_for_sticky(
        lambda: ask(fleet, session),
        "miss",
        timeout=RECOVERY_SECONDS,
        message="the session is still with its provider",
    )
    assert again.provider != first.provider
    assert preferences(router, session).count(None) == 2
    assert ask(fleet, session).provider == again.provider


def test_session_that_is_not_there_is_not_found(fleet: Fleet, router: ScriptedRouter) -> None:
    session = new_session()
    ask(fleet, session)
    for arguments, environment in (
        (("show", "--tenant", "umbrella", session), {}),
        (("drop", "--tenant", "acme", session), {"STICKY_SESSION_KEY": "conversation_id"}),
        (("drop", "--tenant", "acme", new_session()), {}),
    ):
        ended = sticky(fleet, *arguments, **environment)
        assert (ended.code, ended.out) == (1, ""), ended
        assert len(ended.err.splitlines()) == 1, ended
    assert ask(fleet, session).sticky == "hit"


def test_what_can_be_no_session_is_told_apart_from_one_that_is_not_there(
    fleet: Fleet,
) -> None:
    assert sticky(fleet, "show", "--tenant", "acme", "").code == 2
    assert sticky(fleet, "show", new_session()).code == 2
    wrong = sticky(fleet, "show", "--tenant", "acme", "s", STICKY_SESSION_KEY="a b")
    assert wrong.code == 2 and "STICKY_SESSION_KEY" in wrong.err
