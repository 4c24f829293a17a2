"""The recipe of docs/CLIENTS.md, step by step: what each client program does with each answer."""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise

import pytest

from gateway.devstack.ports import PortReservation
from tests.clients.programs import (
    AGAIN,
    DONE,
    LANGUAGES,
    NOT_SETTLED,
    REFUSED,
    Programs,
    Started,
)
from tests.clients.scripted_http import ScriptedHttp, Step

PATH = "/api/v1/usage"
BODY = '{"usage_id": "u-1", "note": "größer"}\n'.encode()
SUCCESS = Step(body='{"ok":true,"note":"größer"}'.encode())
#: Announced pauses are whole milliseconds, and a clock may tick between two readings.
ROUNDING_SECONDS = 0.01

TROUBLES = (
    (Step(429, "2"), Step(fault="reset"), Step(503, "1")),
    (Step(fault="cut"), Step(500), Step(408), Step(502)),
    (Step(504), Step(409, "1"), Step(503, "Wed, 21 Oct 2015 07:28:00 GMT")),
)


def post(programs: Programs, language: str, url: str, patience_seconds: float = 60) -> Started:
    command = [*programs.client(language), "POST", PATH]
    return Started(command, url=url, key="blk_x", body=BODY, patience_seconds=patience_seconds)


def pauses(said: str) -> list[float]:
    """What it announced, in seconds."""
    return [int(ms) / 1000 for ms in re.findall(rf"^{AGAIN}(\d+) ms", said, flags=re.MULTILINE)]


@pytest.mark.parametrize("troubles", TROUBLES, ids=lambda steps: "-".join(map(str, steps)))
def test_what_is_not_settled_is_sent_again_the_same_after_the_time_asked_for(
    programs: Programs, language: str, troubles: tuple[Step, ...]
) -> None:
    with (
        ScriptedHttp([*troubles, SUCCESS]) as server,
        post(programs, language, server.url) as client,
    ):
        assert client.end() == (DONE, SUCCESS.body), client.said
    # Java itself sends a POST once more on a connection that was kept and is reset: the same one.
    heard = server.heard
    assert len(heard) >= len(troubles) + 1
    assert {(one.method, one.path, one.body) for one in heard} == {("POST", PATH, BODY)}
    assert {one.headers["authorization"] for one in heard} == {"Bearer blk_x"}
    for step, (before, after) in zip(troubles, pairwise(heard), strict=False):
        if step.retry_after is not None and step.retry_after.isdecimal():
            assert after.at - before.at >= int(step.retry_after)


@pytest.mark.parametrize(
    "step",
    [Step(status) for status in (302, 400, 401, 403, 404, 405, 409, 413, 415, 501)],
    ids=str,
)
def test_what_is_refused_is_not_sent_again(programs: Programs, language: str, step: Step) -> None:
    with ScriptedHttp([step]) as server, post(programs, language, server.url) as client:
        assert client.end() == (REFUSED, b"")
        assert client.said == step.body.decode()
    assert len(server.heard) == 1


def test_pauses_grow_up_to_a_bound_and_differ_and_it_gives_up(
    programs: Programs, language: str
) -> None:
    patience_seconds = 5.0
    with (
        ScriptedHttp([Step(503, body=b"no")]) as server,
        post(programs, language, server.url, patience_seconds) as client,
    ):
        assert client.end() == (NOT_SETTLED, b""), client.said
        announced = pauses(client.said)
        assert client.said.splitlines()[-1] == "not settled: 503 no"
    assert sum(announced) <= patience_seconds
    assert len(announced) >= 3
    assert all(pause <= 0.2 * 2**n + ROUNDING_SECONDS for n, pause in enumerate(announced))
    assert len(set(announced)) > 1


def test_a_time_beyond_its_patience_is_not_waited_for(programs: Programs, language: str) -> None:
    with (
        ScriptedHttp([Step(429, "3600")]) as server,
        post(programs, language, server.url) as client,
    ):
        assert client.end(timeout=30)[0] == NOT_SETTLED
    assert len(server.heard) == 1


def test_nobody_there_is_not_settled(programs: Programs, language: str) -> None:
    with (
        PortReservation() as nobody,
        post(programs, language, f"http://{nobody.address}", patience_seconds=2) as client,
    ):
        assert client.end() == (NOT_SETTLED, b"")
        assert client.repeats >= 1


def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_15_s(
    programs: Programs,
) -> None:
    """All languages at once: the time really passes."""
    with contextlib.ExitStack() as stack:
        at_work = []
        for language in LANGUAGES:
            server = stack.enter_context(ScriptedHttp([Step(fault="silent"), SUCCESS]))
            client = stack.enter_context(post(programs, language, server.url))
            at_work.append((server, client))
        for server, client in at_work:
            assert client.end() == (DONE, SUCCESS.body), client.said
            assert client.repeats == 1
            first, second = server.heard
            assert 14 < second.at - first.at < 25
            assert first.body == second.body == BODY
