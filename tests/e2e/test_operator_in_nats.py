"""Keys and roles in NATS, with the documented accounts: operators write them, gateways read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documented_account import (
    GATEWAY_LOGIN,
    OPERATOR_LOGIN,
    ROUTER_PASSWORD,
    documented_account,
)
from tests.support.documents import DECIDE
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client
from tests.support.nats_session import NatsSession
from tests.support.operators import IN_NATS, Operator, all_at_once
from tests.support.result_messages import DLQ, RESULT_SUBJECT, publish, result_body, result_headers
from tests.support.scripted_router import ScriptedRouter
from tests.support.sticky_sessions import Providers, new_session, session_body
from tests.support.waiting import GENEROUS_SECONDS, wait_until

AN_ID = "/api/v1/operations/usage/nobody-has-used-this-id"
KEYS_STREAM = "KV_BEAMLINE_APIKEYS"
TTL_MS = 300
ROLES = """\
[service]
permissions = ["routes:decide", "operations:read"]

[outsider]
permissions = []
"""
SERVING = {
    **IN_NATS,
    **GATEWAY_LOGIN,
    "AUTH_MODE": "api_key",
    "TRUSTED_PROXIES": None,
    "RBAC_CACHE_TTL_MS": str(TTL_MS),
    "RBAC_DENY_TTL_MS": "100",
}


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    """Shared by this module: keys of your own, and roles that leave `service` as they are above."""
    with NatsServer(name="operators", config=documented_account()) as server:
        yield server


@pytest.fixture
def operator(tmp_path: Path, nats: NatsServer) -> Operator:
    return Operator(tmp_path, nats.url, {**IN_NATS, **OPERATOR_LOGIN})


@pytest.fixture
def session(nats: NatsServer) -> Iterator[NatsSession]:
    """Somebody who may do everything."""
    with NatsSession(nats.url, user="router", password=ROUTER_PASSWORD) as session:
        yield session


def apply(operator: Operator, document: str) -> None:
    path = operator.folder / "roles.toml"
    path.write_text(document)
    applied = operator.run("roles", "apply", str(path))
    assert applied.code == 0, applied


def status(client: Client, key: str) -> int:
    return client.get(AN_ID, {"Authorization": f"Bearer {key}"}).status


def everywhere(client: Client, key: str, wanted: int) -> None:
    """Wait until both workers answer that, whichever takes the request."""
    wait_until(
        lambda: {status(client, key) for _ in range(8)} == {wanted},
        GENEROUS_SECONDS,
        lambda: f"{status(client, key)} and not {wanted}",
    )


def test_a_gateway_is_ready_when_operators_have_made_what_it_reads(tmp_path: Path) -> None:
    with NatsServer(name="empty", config=documented_account()) as nats:
        operator = Operator(tmp_path, nats.url, {**IN_NATS, **OPERATOR_LOGIN})
        gateway = GatewayProcess(nats.url, environment=SERVING)
        try:
            gateway.start(ready=False)

            def missing() -> str:
                answer = gateway.get("/readyz")
                return "" if answer is None else " ".join(answer.json()["missing"])

            wait_until(lambda: KEYS_STREAM in missing() and "KV_BEAMLINE_ROLES" in missing())
            with gateway.client(headers={}) as client:
                assert status(client, "blk_00000000_" + "A" * 43) in (401, 503)
                apply(operator, ROLES)
                key = operator.make_key()
                wait_until(lambda: gateway.get("/readyz").status == 200, message=missing)  # type: ignore[union-attr]
                everywhere(client, key, 404)
        finally:
            gateway.close()


def test_keys_and_roles_reach_every_worker(operator: Operator, nats: NatsServer) -> None:
    apply(operator, ROLES)
    key, other = operator.make_key("acme"), operator.make_key("umbrella", "outsider")
    with (
        GatewayProcess(nats.url, environment=SERVING) as gateway,
        gateway.client(headers={}) as client,
    ):
        assert (status(client, key), status(client, other)) == (404, 403)
        apply(operator, ROLES.replace("= []", '= ["operations:read"]'))
        everywhere(client, other, 404)
        apply(operator, ROLES)
        everywhere(client, other, 403)
        assert operator.run("apikeys", "revoke", key[:12]).code == 0
        everywhere(client, key, 401)


def test_what_is_stored_of_a_key_is_one_entry_under_its_digest(
    operator: Operator, session: NatsSession
) -> None:
    key = operator.make_key()
    [message] = [
        message
        for message in session.stream_messages(KEYS_STREAM)
        if key[:12].encode() in message.payload
    ]
    assert message.subject == f"$KV.BEAMLINE_APIKEYS.{json.loads(message.payload)['digest']}"
    assert key[13:] not in message.payload.decode()


def test_the_gateways_account_can_write_neither_keys_nor_roles(
    operator: Operator, session: NatsSession
) -> None:
    kept = operator.make_key()
    before = session.last_sequence(KEYS_STREAM)
    intruder = operator.having(**GATEWAY_LOGIN)
    roles = operator.folder / "roles.toml"
    roles.write_text('[service]\npermissions = ["status:read"]\n')
    for ended, bucket in zip(
        all_at_once(
            intruder,
            ("apikeys", "create", "--tenant", "acme", "--role", "admin"),
            ("apikeys", "revoke", kept[:12]),
            ("roles", "apply", str(roles)),
        ),
        (
            "BEAMLINE_ROLES",
            "BEAMLINE_APIKEYS",
            "BEAMLINE_ROLES",
        ),  # the first looks whether there is such a role
        strict=True,
    ):
        assert (ended.code, ended.out) == (3, ""), ended
        assert f"may not publish to $KV.{bucket}" in ended.err
    assert session.last_sequence(KEYS_STREAM) == before
    assert operator.acts() == [("apikeys.create", "started"), ("apikeys.create", "done")]


def test_operators_at_once_agree(operator: Operator, session: NatsSession) -> None:
    key = operator.make_key()
    create = ("apikeys", "create", "--tenant", "many", "--role", "service")
    revoke = ("apikeys", "revoke", key[:12])
    ended = all_at_once(operator, create, create, create, revoke, revoke)
    assert [one.code for one in ended] == [0] * 5, ended
    made = {one.out.strip()[:12] for one in ended[:3]}
    assert {one["prefix"] for one in operator.listed("--tenant", "many")} == made
    [revoked] = [one for one in operator.listed() if one["prefix"] == key[:12]]
    assert revoked["state"] == "revoked"


def test_roles_applied_at_once_are_one_operators_or_the_others(operator: Operator) -> None:
    apply(operator, ROLES)
    commands, documents = [], {}
    for name in ("first", "second", "third"):
        path = operator.folder / f"{name}.toml"
        path.write_text(f"{ROLES}\n[{name}]\npermissions = []\n")
        documents[name] = path.read_text()
        commands.append(("roles", "apply", str(path)))
    ended = all_at_once(operator, *commands)
    assert {one.code for one in ended} <= {0, 5}, ended
    winners = [name for name, one in zip(documents, ended, strict=True) if one.code == 0]
    assert operator.run("roles", "show").out in [documents[name] for name in winners]
    apply(operator, ROLES)


def test_an_entry_that_is_no_key_is_named_and_hides_no_other(
    operator: Operator, session: NatsSession
) -> None:
    key = operator.make_key("hidden")
    ack = session.call(session.jetstream.publish("$KV.BEAMLINE_APIKEYS.stray", b"no key"))
    try:
        listed = operator.run("apikeys", "list", "--tenant", "hidden")
        assert listed.code == 3 and f"(revision {ack.seq})" in listed.err
        assert key[:12] in listed.out
        assert operator.run("apikeys", "revoke", key[:12]).code == 0
    finally:
        session.call(
            session.jetstream.publish(
                "$KV.BEAMLINE_APIKEYS.stray", b"", headers={"KV-Operation": "DEL"}
            )
        )


def test_without_a_document_nobody_may_do_anything_and_show_says_so(tmp_path: Path) -> None:
    with NatsServer(name="roleless") as nats:
        operator = Operator(tmp_path, nats.url, IN_NATS)
        shown = operator.run("roles", "show")
        assert (shown.code, shown.out) == (1, "")
        assert "nobody may do anything" in shown.err


def test_without_nats_nothing_is_done_and_no_key_is_shown(tmp_path: Path) -> None:
    with NatsServer(name="away") as nats:
        nats.kill()
        operator = Operator(tmp_path, nats.url, IN_NATS)
        made = operator.run("apikeys", "create", "--tenant", "acme", "--role", "service")
        assert (made.code, made.out) == (3, ""), made
        assert "not connected" in made.err and len(made.err.splitlines()) == 1
        assert operator.records() == []


def test_the_operators_account_is_enough_for_letters_and_sessions(
    operator: Operator, nats: NatsServer, session: NatsSession
) -> None:
    apply(operator, ROLES)
    bearer = {"Authorization": f"Bearer {operator.make_key()}"}
    chosen = new_session()
    router_url = nats.url.replace("://", f"://router:{ROUTER_PASSWORD}@")
    settings = {**SERVING, "GATEWAY_TENANT_ALLOWLIST": "acme", "NATS_MAX_DELIVER": "1"}
    with (
        GatewayProcess(nats.url, environment=settings) as gateway,
        ScriptedRouter(router_url, Providers()),
        gateway.client(headers=bearer) as client,
    ):
        assert client.post(DECIDE, session_body(chosen)).status == 200
        publish(session, result_body(), result_headers("umbrella"))
        wait_until(lambda: session.last_sequence(DLQ) > 0)
    seq = str(session.last_sequence(DLQ))
    for arguments in (
        ("sticky", "show", "--tenant", "acme", chosen),
        ("sticky", "drop", "--tenant", "acme", chosen),
        ("dlq", "list"),
        ("dlq", "show", seq),
        ("dlq", "replay", seq),
    ):
        ended = operator.run(*arguments)
        assert ended.code == 0, (arguments, ended)
    assert session.stream_messages("BEAMLINE_EXEC")[-1].subject == RESULT_SUBJECT
    # That checks what the gateway may do, and is the gateway's.
    assert operator.having(**GATEWAY_LOGIN).run("streams").code == 0
