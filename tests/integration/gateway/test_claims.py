"""Claims and records in a real bucket: who is first, what the others find, and which keys there are at all."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from bridge import Bridge, BridgeConfig, BucketSpec, NotSent, Unknown
from gateway.devstack.nats_server import NatsServer
from gateway.idempotency import (
    BUCKET,
    Conflict,
    Held,
    KeyType,
    Outcome,
    Record,
    State,
    claim,
    find,
    mark_http_id,
)
from tests.integration.gateway.wired import CALLER, Wired
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
from tests.support.load import at_once
from tests.support.nats_tap import NatsTap
from tests.support.waiting import GENEROUS_SECONDS, wait_until

TTL_MS = 2_000
RECORDS = f"$KV.{BUCKET}."


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """With a bucket of a short TTL; that of the folder's other tests is not touched."""
    with NatsServer(name="claims") as server:
        yield server


@pytest.fixture(scope="module")
def bridges(server: NatsServer) -> Iterator[list[Bridge]]:
    """Two connections, as of two workers."""
    config = BridgeConfig(
        servers=(server.url,), buckets=(BucketSpec(name=BUCKET, ttl_ms=TTL_MS),), max_in_flight=64
    )
    both = [Bridge(config), Bridge(config)]
    for bridge in both:
        bridge.start()
        assert bridge.wait_ready(GENEROUS_SECONDS), bridge.health()
    yield both
    for bridge in both:
        bridge.close(5.0)


def record(fingerprint: str = "f", **more: object) -> Record:
    """A record of a request of its own."""
    return Record(
        claim_id=secrets.token_hex(12),
        fingerprint=fingerprint,
        state=more.pop("state", State.CLAIMED),  # type: ignore[arg-type]
        request_id="r",
        trace_id="0" * 31 + "1",
        cp_phase="cp2",
        **more,  # type: ignore[arg-type]
    )


def claiming(bridge: Bridge, key: str, wanted: Record, seconds: float = GENEROUS_SECONDS) -> Held:
    deadline = time.monotonic() + seconds
    return bridge.run(lambda bus: claim(bus, key, wanted, deadline), deadline)


def finding(bridge: Bridge, key: str) -> Held | None:
    deadline = time.monotonic() + GENEROUS_SECONDS
    return bridge.run(lambda bus: find(bus, key, deadline), deadline)


def writing(bridge: Bridge, key: str, value: bytes) -> None:
    """Put anything into the bucket."""
    deadline = time.monotonic() + GENEROUS_SECONDS
    bridge.run(lambda bus: bus.bucket(BUCKET).create(key, value, deadline=deadline), deadline)


def test_of_many_equal_requests_at_once_exactly_one_is_first(bridges: list[Bridge]) -> None:
    for _ in range(5):
        key = secrets.token_hex(20)
        wanted = [record() for _ in range(32)]

        def one(number: int, key: str = key, wanted: list[Record] = wanted) -> Held:
            return claiming(bridges[number % 2], key, wanted[number])

        held = at_once(range(32), one)
        assert sum(one.mine for one in held) == 1
        # Everybody holds the first one's record, so that everybody would send the same message.
        [first] = {one.record.claim_id for one in held}
        assert wanted[next(n for n, one in enumerate(held) if one.mine)].claim_id == first


def test_another_request_under_the_id_is_a_conflict_whoever_comes_first(
    bridges: list[Bridge],
) -> None:
    key = secrets.token_hex(20)
    assert claiming(bridges[0], key, record("one")).mine
    for bridge in bridges:
        with pytest.raises(Conflict):
            claiming(bridge, key, record("other"))
        assert not claiming(bridge, key, record("one")).mine


def test_id_that_was_given_back_is_no_conflict_for_another_request(bridges: list[Bridge]) -> None:
    key = secrets.token_hex(20)
    claiming(bridges[0], key, record("one", state=State.RELEASED))
    held = claiming(bridges[1], key, record("other"))
    assert not held.mine
    assert held.record.state is State.RELEASED


def test_own_record_is_recognised_after_a_write_that_was_cut_off(bridges: list[Bridge]) -> None:
    """A create that is repeated after a lost connection is refused by itself."""
    key, wanted = secrets.token_hex(20), record()
    assert claiming(bridges[0], key, wanted).mine
    assert claiming(bridges[1], key, wanted).mine


def test_record_is_gone_after_its_time_by_the_servers_clock_and_never_before_what_was_told(
    bridges: list[Bridge],
) -> None:
    key = secrets.token_hex(20)
    began = time.monotonic()
    held = claiming(bridges[0], key, record("one"))
    seen = finding(bridges[1], key)
    assert held.expires_at is not None and seen is not None and seen.expires_at is not None
    assert began <= held.expires_at - TTL_MS / 1000 <= time.monotonic()
    assert seen.expires_at == pytest.approx(held.expires_at, abs=0.5)
    # Looking at it does not make it live longer.
    while finding(bridges[1], key) is not None:
        assert time.monotonic() < held.expires_at + GENEROUS_SECONDS
        time.sleep(0.01)
    assert time.monotonic() >= held.expires_at
    # After that the id is anybody's.
    assert claiming(bridges[1], key, record("other")).mine


def test_time_that_another_worker_tells_ends_before_the_servers_does(
    bridges: list[Bridge],
) -> None:
    """What a worker remembers by it is never older than the record."""
    key = secrets.token_hex(20)
    claiming(bridges[0], key, record())
    deadline = time.monotonic() + GENEROUS_SECONDS
    for bridge in bridges:
        seen = finding(bridge, key)
        entry = bridge.run(lambda bus: bus.bucket(BUCKET).get(key, deadline=deadline), deadline)
        assert seen is not None and seen.expires_at is not None and entry is not None
        # This machine's clock is the server's.
        told = time.time() + seen.expires_at - time.monotonic()
        dropped = datetime.fromisoformat(entry.stored_at).timestamp() + TTL_MS / 1000
        assert dropped - 1.0 < told <= dropped + 0.001  # the clocks are read one after the other


def test_record_comes_back_as_it_was_written(bridges: list[Bridge]) -> None:
    body = {"ok": True, "n": 2**53, "text": "Привет", "none": None, "list": [1.5, {}]}
    wanted = record(state=State.DONE, outcome=Outcome(200, body), first_seen=1767225600.25)
    key = secrets.token_hex(20)
    claiming(bridges[0], key, wanted)
    found = finding(bridges[1], key)
    assert found is not None
    assert found.record == wanted


def test_unreadable_record_is_an_unknown_outcome_and_nothing_is_claimed_over_it(
    bridges: list[Bridge],
) -> None:
    for value in (b"", b"{", b"[]", b"{}", b'{"claim": "c", "state": "odd"}', b"\xff\xfe"):
        key = secrets.token_hex(20)
        writing(bridges[0], key, value)
        with pytest.raises(Unknown):
            claiming(bridges[1], key, record())


def test_claim_whose_deadline_has_passed_writes_nothing(bridges: list[Bridge]) -> None:
    key = secrets.token_hex(20)
    with pytest.raises(NotSent):
        claiming(bridges[0], key, record(), seconds=-0.001)
    assert finding(bridges[0], key) is None


# -- nothing past mark_http_id ---------------------------------------------------------------------


def test_every_key_in_the_bucket_is_that_of_a_tenant_an_id_and_an_operation(
    shared: Wired, nats: NatsServer
) -> None:
    """Order W4-B: the one maker of keys is `mark_http_id`; what is written is the hash of what it made."""
    requested = {
        "assignments": (ASSIGNMENTS, KeyType.ASSIGNMENT_ID, assignment_body),
        "acks": (ACKS, KeyType.ACK_ID, ack_body),
        "usage": (USAGE, KeyType.USAGE_ID, usage_body),
        "decide": (DECIDE, KeyType.ASSIGNMENT_ID, decide_body),
    }
    expected: set[str] = set()
    with NatsTap(nats.url, (f"{RECORDS}>",)) as tap:
        client = shared.app.test_client()
        for tenant in ("acme", "a-b", "a"):
            caller = {**CALLER, "X-Tenant-ID": tenant}
            for operation, (path, key_type, make) in requested.items():
                for id in (new_id("k"), "b-c/d?e*f>g.$" + new_id("")):
                    body = make(**{key_type.value: id, "tenant_id": tenant})
                    for _ in range(2):
                        assert client.post(path, json=body, headers=caller).status_code < 300
                    expected.add(mark_http_id(tenant, key_type, id).record_key(operation))
        batch = [usage_body(tenant_id="acme") for _ in range(3)]
        client.post(f"{USAGE}/batch", json={"events": batch}, headers=CALLER)
        expected |= {
            mark_http_id("acme", KeyType.USAGE_ID, event["usage_id"]).record_key("usage")
            for event in batch
        }
        # A decide without an id, and one that is refused, have nothing to be kept under.
        assert client.post(DECIDE, json=decide_body(), headers=CALLER).status_code == 200
        assert client.post(ACKS, json=ack_body(status="odd"), headers=CALLER).status_code == 400
        wait_until(lambda: len(keys_of(tap)) >= len(expected))
        tap.settle()
    assert keys_of(tap) == expected


def keys_of(tap: NatsTap) -> set[str]:
    return {message.subject.removeprefix(RECORDS) for message in tap.messages()}
