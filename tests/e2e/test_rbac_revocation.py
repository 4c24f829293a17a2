"""What is taken away is gone everywhere within the TTL; what is open ends with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.access_credentials import (
    DEFAULT_ROLES,
    KeyBucket,
    KeyFile,
    bearer,
    put_roles,
    roles_document,
)
from tests.support.access_stack import bare_workers, terminate
from tests.support.access_tokens import SigningKey, environment, jwks
from tests.support.documents import new_id
from tests.support.event_stream import EventStream
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready
from tests.support.nats_session import NatsSession
from tests.support.scraping import scrape_of
from tests.support.waiting import PATIENCE

#: A bit under a second, which is a bound of the histogram's buckets.
TTL_SECONDS: Final = 0.9
DENY_TTL_SECONDS: Final = 0.4
#: How often an open stream looks whether it may go on, and what ending it takes.
NOTICED_SECONDS: Final = 0.25 + 0.25 * PATIENCE

_TTLS = {
    "RBAC_CACHE_TTL_MS": str(int(TTL_SECONDS * 1000)),
    "RBAC_DENY_TTL_MS": str(int(DENY_TTL_SECONDS * 1000)),
}


@dataclass(frozen=True)
class Kept:
    """A gateway of two workers, and where its keys and roles are kept."""

    gateway: GatewayProcess
    keys: KeyFile | KeyBucket
    put_roles: Callable[[bytes], object]


@dataclass(frozen=True)
class Houses:
    """Keys in a file and roles in the bucket; the other way round; and a gateway of tokens."""

    file_and_bucket: Kept
    bucket_and_file: Kept
    by_token: GatewayProcess
    signing: SigningKey


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """Shared: each test has keys and roles of its own."""
    folder = tmp_path_factory.mktemp("houses")
    roles, published, signing = folder / "roles.toml", folder / "jwks.json", SigningKey("one")
    roles.write_bytes(DEFAULT_ROLES)
    published.write_bytes(jwks(signing))
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="revocation"))
        session = stack.enter_context(NatsSession(nats.url))
        in_file, in_bucket = KeyFile(folder), KeyBucket(session)
        put_roles(session, DEFAULT_ROLES)
        gateways = [
            GatewayProcess(nats.url, environment={**_TTLS, **more})
            for more in (
                {**in_file.environment, "ROLES_SOURCE": "bucket"},
                {**in_bucket.environment, "ROLES_FILE": str(roles)},
                {**environment(JWT_JWKS_FILE=str(published)), "JWT_LEEWAY_MS": "0"},
            )
        ]
        for gateway in gateways:
            stack.callback(gateway.close)
        stack.callback(terminate, gateways)
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            wait_until_each_worker_is_ready(gateway)
        yield Houses(
            Kept(gateways[0], in_file, lambda document: put_roles(session, document)),
            Kept(gateways[1], in_bucket, roles.write_bytes),
            gateways[2],
            signing,
        )


@pytest.fixture(params=["file_and_bucket", "bucket_and_file"])
def kept(request: pytest.FixtureRequest, houses: Houses) -> Kept:
    found: Kept = getattr(houses, request.param)
    return found


def status_of(client: Client, key: str) -> int:
    return client.get(f"/api/v1/operations/usage/{new_id('us')}", bearer(key)).status


@dataclass(frozen=True)
class Change:
    """A key, and what a read with it is answered before the change and long enough after it."""

    key: str
    before: int
    after: int
    good_for: float


def test_every_worker_follows_a_change_of_keys_and_roles_within_the_ttl(kept: Kept) -> None:
    granted, taken = new_id("role"), new_id("role")
    revoked = Change(kept.keys.make("acme", "viewer"), 404, 401, TTL_SECONDS)
    demoted = Change(kept.keys.make("acme", taken), 404, 403, TTL_SECONDS)
    promoted = Change(kept.keys.make("acme", granted), 403, 404, DENY_TTL_SECONDS)
    changes = [revoked, demoted, promoted]
    kept.put_roles(_with(taken))
    with bare_workers(kept.gateway) as workers:
        for _ in range(3):
            for change in changes:
                assert [status_of(one, change.key) for one in workers] == [change.before] * 2
        kept.put_roles(_with(granted))
        kept.keys.revoke(revoked.key)
        changed_at = time.monotonic()
        # Asked all the while: what is asked often is what is remembered.
        while (asked_at := time.monotonic()) < changed_at + 1.5 * TTL_SECONDS:
            for change in changes:
                for client in workers:
                    status = status_of(client, change.key)
                    assert status in (change.before, change.after)
                    if asked_at >= changed_at + change.good_for:
                        assert status == change.after, change
    ages = scrape_of(kept.gateway)
    name = "beamline_gateway_rbac_cache_age_seconds_bucket"
    assert ages.total(name, le="0.5") < ages.total(name, le="+Inf")
    assert ages.total(name, le="1.0") == ages.total(name, le="+Inf")


def _with(role: str) -> bytes:
    document = roles_document({role: ["operations:read", "results:read"]})
    return DEFAULT_ROLES + b"\n" + document


# -- what is open ---------------------------------------------------------------------------------------


def open_stream(gateway: GatewayProcess, credential: str) -> EventStream:
    stream = EventStream(gateway, bearer(credential), assignment_id=new_id("as"), heartbeat_ms=100)
    assert stream.status == 200, stream.body
    stream.wait_for_heartbeats(2)
    return stream


def ended_after(stream: EventStream, moment: float) -> float:
    """Seconds from a moment (monotonic) to the end of the stream, which the server said."""
    stream.wait_until_ended()
    assert stream.ended_at is not None and stream.complete
    return stream.ended_at - moment


def test_an_open_stream_of_a_revoked_key_or_role_ends_within_the_ttl(kept: Kept) -> None:
    """Also where the key was looked up for somebody else, a while before the stream came."""
    role = new_id("role")
    kept.put_roles(_with(role))
    revoked, demoted = kept.keys.make("acme", "viewer"), kept.keys.make("acme", role)
    other = kept.keys.make("acme", "viewer")
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(bare_workers(kept.gateway))
        assert [status_of(one, key) for one in workers for key in (revoked, demoted)] == [404] * 4
        streams = [
            stack.enter_context(open_stream(kept.gateway, key)) for key in (revoked, demoted) * 2
        ]
        going_on = stack.enter_context(open_stream(kept.gateway, other))
        kept.keys.revoke(revoked)
        kept.put_roles(DEFAULT_ROLES)
        taken_at = time.monotonic()
        for stream in streams:
            assert ended_after(stream, taken_at) < TTL_SECONDS + NOTICED_SECONDS
        going_on.wait_for_heartbeats(2)


def test_an_open_stream_ends_with_its_token(houses: Houses) -> None:
    expires_at = int(time.time()) + 2
    until_then = expires_at - time.time()
    expires_at_monotonic = time.monotonic() + until_then
    token = houses.signing.token(exp=expires_at, roles=["viewer"])
    with open_stream(houses.by_token, token) as stream:
        assert 0 <= ended_after(stream, expires_at_monotonic) + 0.01 < NOTICED_SECONDS


def test_a_long_poll_of_a_revoked_key_is_refused_instead_of_answered(houses: Houses) -> None:
    kept = houses.file_and_bucket
    key = kept.keys.make("acme", "viewer")
    with (
        kept.gateway.client(bearer(key)) as client,
        contextlib.ExitStack() as stack,
    ):
        pool = stack.enter_context(ThreadPoolExecutor(1))
        asking = pool.submit(client.get, f"/api/v1/results/{new_id('as')}?wait_ms=20000")
        kept.keys.revoke(key)
        answer = asking.result(20)
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.header("WWW-Authenticate")
    assert answer.elapsed < TTL_SECONDS + NOTICED_SECONDS
