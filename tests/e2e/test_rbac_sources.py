"""Where keys and roles come from, and what happens when it fails: closed, nothing remembered, back at once."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.access_credentials import (
    DEFAULT_ROLES,
    KEY_LOOKUPS,
    ROLE_LOOKUPS,
    KeyBucket,
    KeyFile,
    bearer,
    put_roles,
    roles_document,
)
from tests.support.documents import USAGE, new_id, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.load import at_once
from tests.support.nats_session import NatsSession
from tests.support.nats_tap import NatsTap
from tests.support.scraping import scrape_of
from tests.support.waiting import AT_ONCE_SECONDS, RECOVERY_SECONDS, wait_until
from tests.support.wire import expect_error

#: Whatever were remembered wrongly would be remembered until long after the tests.
FOREVER = {"RBAC_CACHE_TTL_MS": "600000", "RBAC_DENY_TTL_MS": "600000"}


@dataclass(frozen=True)
class House:
    """A gateway that keeps keys and roles in files, which a test may break."""

    gateway: GatewayProcess
    keys: KeyFile
    roles: Path

    def ask(self, key: str) -> Answer:
        with self.gateway.client(bearer(key)) as client:
            return client.get(f"/api/v1/operations/usage/{new_id('us')}")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One worker, so that what a test asks for twice is asked of the same one. Mend what you break."""
    folder = tmp_path_factory.mktemp("house")
    keys, roles = KeyFile(folder), folder / "roles.toml"
    roles.write_bytes(DEFAULT_ROLES)
    environment = {**keys.environment, **FOREVER, "ROLES_FILE": str(roles), "WEB_CONCURRENCY": "1"}
    with (
        NatsServer(name="rbac-files") as nats,
        GatewayProcess(nats.url, environment=environment) as gateway,
    ):
        yield House(gateway, keys, roles)


@pytest.mark.parametrize("content", [b"", b"{", b'{"keys": 1}', None], ids=repr)
def test_with_a_broken_file_of_keys_nobody_is_let_in_and_at_once_again_when_it_is_mended(
    content: bytes | None, house: House
) -> None:
    known, new = house.keys.make("acme", "viewer"), house.keys.make("acme", "viewer")
    assert house.ask(known).status == 404
    if content is None:
        house.keys.path.unlink()
    else:
        house.keys.replace_by(content)
    try:
        for _ in range(3):
            expect_error(house.ask(new), 503, "access_unavailable", tenant=None)
        assert house.ask(known).status == 404, "what was looked up before is good for its time"
    finally:
        house.keys.restore()
    assert house.ask(new).status == 404


@pytest.mark.parametrize(
    "content", [b"", b"[admin", b"[admin]\npermissions = ['results:*']\n"], ids=repr
)
def test_with_broken_roles_nobody_may_do_anything_and_at_once_again_when_they_are_mended(
    content: bytes, house: House
) -> None:
    role = new_id("role")
    key = house.keys.make("acme", role)
    house.roles.write_bytes(content)
    for _ in range(3):
        expect_error(house.ask(key), 503, "access_unavailable")
    house.roles.write_bytes(DEFAULT_ROLES + b"\n" + roles_document({role: ["operations:read"]}))
    assert house.ask(key).status == 404


def test_without_nats_new_callers_are_told_so_at_once_and_let_in_when_it_is_back() -> None:
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="rbac-outage"))
        session = stack.enter_context(NatsSession(nats.url))
        keys = KeyBucket(session)
        put_roles(session, DEFAULT_ROLES)
        environment = {
            **keys.environment,
            **FOREVER,
            "ROLES_SOURCE": "bucket",
            "WEB_CONCURRENCY": "1",
        }
        gateway = stack.enter_context(GatewayProcess(nats.url, environment=environment))
        known = stack.enter_context(gateway.client(bearer(keys.make("acme", "admin"))))
        strange = stack.enter_context(gateway.client(bearer(keys.make("acme", "service"))))
        assert _read(known).status == 404

        nats.kill()
        wait_until(lambda: _probe(gateway) == 503)
        for _ in range(3):
            told = _read(strange)
            expect_error(told, 503, "access_unavailable", tenant=None)
            assert told.elapsed < AT_ONCE_SECONDS
            assert int(told.header("Retry-After") or 0) >= 1
        # The key is known, and what its role may do here is not: of that nothing is remembered either.
        expect_error(known.post(USAGE, usage_body()), 503, "access_unavailable")
        expect_error(_read(known), 503, "unavailable")

        nats.start()
        wait_until(lambda: _probe(gateway) == 200)
        wait_until(lambda: _read(strange).status == 404, RECOVERY_SECONDS)
        assert known.post(USAGE, usage_body()).status == 202
        scrape = scrape_of(gateway)
        assert scrape.total("beamline_gateway_rbac_decisions_total", decision="error") == 1
        # Keys as well as roles, which is what the alert goes by.
        refused = scrape.total("beamline_gateway_errors_total", error_code="access_unavailable")
        assert refused == 4


def test_two_hundred_first_requests_at_once_are_one_lookup_of_the_key_and_one_of_its_role() -> None:
    """NATS is frozen while they come, so that they wait for the same answer."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="rbac-burst"))
        session = stack.enter_context(NatsSession(nats.url))
        keys = KeyBucket(session)
        put_roles(session, DEFAULT_ROLES)
        environment = {
            **keys.environment,
            "ROLES_SOURCE": "bucket",
            "WEB_CONCURRENCY": "1",
            "GATEWAY_THREADS": "256",
        }
        gateway = stack.enter_context(GatewayProcess(nats.url, environment=environment))
        key = keys.make("acme", "viewer")
        tap = stack.enter_context(NatsTap(nats.url, [KEY_LOOKUPS, ROLE_LOOKUPS], internals=True))
        clients = [stack.enter_context(gateway.client(bearer(key))) for _ in range(200)]
        for client in clients:
            assert client.get("/livez").status == 200  # connected
        nats.freeze()

        def ask_or_thaw(client: Client | None) -> Answer | None:
            if client is not None:
                return _read(client)
            # A lookup has two seconds: rather not all of them are inside than none is answered.
            end = time.monotonic() + 1.0
            wait_until(lambda: _inside(gateway) == len(clients) or time.monotonic() > end)
            nats.thaw()
            return None

        answers = at_once([*clients, None], ask_or_thaw)
        assert Counter(answer and answer.status for answer in answers) == {404: 200, None: 1}
        tap.settle()
        assert len(tap.messages(KEY_LOOKUPS)) == 1
        assert len(tap.messages(ROLE_LOOKUPS)) == 1


def _read(client: Client) -> Answer:
    return client.get(f"/api/v1/operations/usage/{new_id('us')}")


def _inside(gateway: GatewayProcess) -> float:
    return scrape_of(gateway).total("beamline_gateway_in_flight_requests")


def _probe(gateway: GatewayProcess) -> int | None:
    answer = gateway.get("/readyz")
    return answer.status if answer else None
