"""The attacks of the corpus: each is refused, or does no more than its own credential may; none of them is told of."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.access_attacks import API_KEY, JWT, TARGETS, attack_names
from tests.support.access_credentials import bearer
from tests.support.access_siege import TENANT, Besieged, running_siege
from tests.support.access_tokens import valid_claims
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import send_raw
from tests.support.load import at_once
from tests.support.nats_tap import NatsTap, TappedMessage
from tests.support.wire import check_error_body

#: What a gateway of the tests may ever say in NATS.
SUBJECTS: Final = frozenset(
    {
        "beamline.router.v1.decide",
        "caf.exec.assign.v1",
        "caf.exec.assign.v1.ack",
        "beamline.usage.v1.metered",
    }
)
BUCKETS: Final = ("$KV.BEAMLINE_IDEMPOTENCY.", "$KV.BEAMLINE_STICKY.")


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """Shared by the tests here; kills nothing."""
    with running_siege(tmp_path_factory.mktemp("besieged")) as started:
        yield started


@pytest.fixture
def tap(besieged: Besieged) -> NatsTap:
    """What is said in NATS during the test."""
    besieged.said.settle()
    besieged.said.clear()
    return besieged.said


def check_said(messages: list[TappedMessage]) -> None:
    """Whatever was said was said by the caller's own tenant, where the gateway says such things."""
    for message in messages:
        assert message.subject in SUBJECTS or message.subject.startswith(BUCKETS), message.subject
        assert "*" not in message.subject and ">" not in message.subject, message.subject
        if message.subject in SUBJECTS:
            assert message.headers["tenant_id"] == message.json()["tenant_id"] == TENANT, message


# -- the corpus -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "target"), attack_names())
def test_attack_is_refused_or_does_no_more_than_its_own_credential_may(
    name: str, target: str, besieged: Besieged, tap: NatsTap
) -> None:
    attack, answer = besieged.send(name, target)
    attack.case.check(answer)
    if answer.status == 401:
        assert "Bearer realm=" in (answer.header("WWW-Authenticate") or ""), answer
    if answer.status >= 400 and attack.raw is None:
        check_error_body(answer, tenant=None)
    told = answer.body.decode(errors="replace") + str(answer.header_list)
    assert not [secret for secret in besieged.secrets() if secret in told], answer
    tap.settle()
    if answer.status >= 400:
        assert tap.messages() == []
    else:
        check_said(tap.messages())


def test_nothing_that_can_be_read_afterwards_holds_a_credential(besieged: Besieged) -> None:
    """Logs at their most talkative, spans, metrics, and every message in NATS with those of JetStream itself."""
    for name, target in attack_names():
        besieged.send(name, target)
    traces = {}
    for target, gateway in besieged.gateways.items():
        trace_id = new_id("")[1:]
        traces[target] = trace_id
        headers = {**bearer(besieged.credentials[target].named["admin"]), "X-Trace-ID": trace_id}
        with gateway.client(headers=headers) as client:
            assert client.post(ACKS, ack_body()).status == 202
    besieged.spans.wait_for(
        lambda spans: set(traces.values()) <= {span.trace_id for span in spans}, timeout=20
    )
    besieged.everything.settle()
    readable = {
        "NATS": "\n".join(map(_text, besieged.everything.messages())),
        "spans": "\n".join(map(str, besieged.spans.spans())),
        **{f"log of {target}": found.output() for target, found in besieged.gateways.items()},
        **{f"metrics of {target}": _metrics(found) for target, found in besieged.gateways.items()},
    }
    for where, text in readable.items():
        assert len(text) > 1000, f"nothing was heard of {where}"
        for secret in besieged.secrets():
            assert secret not in text, f"{where}: …{text[text.index(secret) - 200 :][:400]}…"
            assert secret[:24] not in text, f"{where} holds the beginning of a credential"


def _text(message: TappedMessage) -> str:
    payload = message.payload.decode(errors="replace")
    return f"{message.subject} {message.reply} {dict(message.headers)} {payload}"


def _metrics(gateway: GatewayProcess) -> str:
    answer = gateway.get("/metrics")
    assert answer is not None
    return answer.body.decode()


def test_every_target_is_attacked_in_every_way() -> None:
    names = attack_names()
    assert {target for _, target in names} == set(TARGETS)
    assert len(names) >= 200


def test_what_a_refused_request_left_unread_is_no_request(besieged: Besieged) -> None:
    """The body of a request that nobody was let in with looks like a request itself."""
    gateway = besieged.gateways[API_KEY]
    smuggled = b"GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"
    outer = (
        b"POST /api/v1/acks HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(smuggled)
    )
    last = b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    answered = send_raw(gateway.host, gateway.port, [outer + smuggled + last])
    statuses = re.findall(rb"^HTTP/1\.1 (\d+)", answered, re.MULTILINE)
    assert statuses in ([b"401", b"200"], [b"401"]), answered
    assert b'beamline-gateway"}' not in answered, "that is what /health says"


# -- what is generated ------------------------------------------------------------------------------------

WILDCARDS: Final = ("*", ">", "caf.exec.>", "a.*.b", "$JS.API.>", "$KV.BEAMLINE_ROLES.roles", "...")


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a document a text stands."""
    items = enumerate(document) if isinstance(document, list) else document.items()
    for name, value in items:
        if isinstance(value, str):
            yield (*path, name)
        elif isinstance(value, dict | list):
            yield from leaves(value, (*path, name))


def with_leaf(document: Any, path: tuple[Any, ...], value: str) -> Any:
    """The document with another text in that place."""
    changed = json.loads(json.dumps(document))
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


FULL: Final = {
    DECIDE: decide_body(
        assignment_id="as",
        context={"session_id": "s", "user_id": "u"},
        metadata={"note": "n"},
        constraints={"region": "r"},
    ),
    ASSIGNMENTS: assignment_body(
        executor={"provider_id": "p", "channel": "grpc", "endpoint": "e"},
        correlation={"trace_id": "0" * 31 + "1"},
        metadata={"note": "n"},
    ),
    ACKS: ack_body(reason="r", metadata={"note": "n"}),
    USAGE: usage_body(request_id="r"),
}


@pytest.mark.parametrize("path", FULL)
def test_a_wildcard_in_any_field_reaches_no_subject(
    path: str, besieged: Besieged, tap: NatsTap
) -> None:
    headers = bearer(besieged.credentials[API_KEY].named["admin"])
    sent = 0
    with besieged.gateways[API_KEY].client(headers=headers) as client:
        for leaf in leaves(FULL[path]):
            for wildcard in WILDCARDS:
                answer = client.post(path, with_leaf(FULL[path], leaf, wildcard))
                assert answer.status < 500, (leaf, wildcard, answer)
                sent += 1
    tap.settle()
    messages = tap.messages()
    assert sent >= 40 and messages
    check_said(messages)


# -- how often the provider is asked ------------------------------------------------------------------------


def test_a_flood_of_unknown_keys_asks_the_provider_at_most_once_in_its_pause(
    besieged: Besieged,
) -> None:
    gateway, signing = besieged.gateways[JWT], besieged.provider.signing

    def forge(number: int) -> int:
        kid = f"unknown-{number}"
        token = signing.sign({**signing.header(), "kid": kid}, valid_claims())
        with gateway.client(bearer(token)) as client:
            return client.get(f"/api/v1/results/{new_id('as')}").status

    asked, started = besieged.jwks.asked, time.monotonic()
    statuses = set().union(*at_once(range(6), lambda n: {forge(20 * n + m) for m in range(20)}))
    pauses = (time.monotonic() - started) // 10 + 1
    assert statuses == {401}
    assert besieged.jwks.asked - asked <= pauses
    with gateway.client(bearer(besieged.credentials[JWT].named["viewer"])) as client:
        assert client.get(f"/api/v1/results/{new_id('as')}").status == 404


def test_a_good_credential_is_served_beside_all_of_it(besieged: Besieged) -> None:
    """Otherwise refusing everybody would pass for security."""
    for target, gateway in besieged.gateways.items():
        with gateway.client(bearer(besieged.credentials[target].named["admin"])) as client:
            for path, make in (
                (ACKS, ack_body),
                (ASSIGNMENTS, assignment_body),
                (USAGE, usage_body),
            ):
                assert client.post(path, make()).status == 202
            assert client.post(DECIDE, decide_body()).status == 200
