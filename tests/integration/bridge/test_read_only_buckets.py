"""Buckets that others write: read with the least of permissions, and never made or changed from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from nats.js.errors import NotFoundError

from bridge import Bridge, BridgeConfig, BucketSpec, Bus, Entry, required_permissions
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_accounts import PASSWORD, account, accounts, user
from tests.support.bridge_running import RunningBridges, soon
from tests.support.nats_session import NatsSession
from tests.support.waiting import GENEROUS_SECONDS, wait_until

READ: Final = BucketSpec(name="BEAMLINE_READ", read_only=True)
STREAM: Final = f"KV_{READ.name}"
RULES: Final = {
    verb: {"allow": subjects}
    for verb, subjects in required_permissions(BridgeConfig(buckets=(READ,))).items()
}


@pytest.fixture
def restricted() -> Iterator[NatsServer]:
    """With a user for just that, and one who may do everything."""
    config = accounts(account("BEAMLINE", user("reader", RULES), user("writer")))
    with NatsServer(name="read-only", config=config) as server:
        yield server


@pytest.fixture
def writer(restricted: NatsServer) -> Iterator[NatsSession]:
    with NatsSession(restricted.url, user="writer", password=PASSWORD) as session:
        yield session


@pytest.fixture
def reader(restricted: NatsServer) -> Iterator[Bridge]:
    bridges = RunningBridges()
    yield bridges.start(
        restricted.url,
        ready=False,
        streams=(),
        buckets=(READ,),
        user="reader",
        password=PASSWORD,
        audit_interval_seconds=0.2,
    )
    bridges.close()


def look(bridge: Bridge) -> Entry | None:
    deadline = soon()

    async def work(bus: Bus) -> Entry | None:
        return await bus.bucket(READ.name).get("key", deadline=deadline)

    return bridge.run(work, deadline)


def test_while_it_is_missing_the_bridge_is_not_ready_and_does_not_make_it(
    reader: Bridge, writer: NatsSession
) -> None:
    wait_until(lambda: any(STREAM in sentence for sentence in reader.health().missing))
    assert "is not there" in " ".join(reader.health().missing)
    with pytest.raises(NotFoundError):
        writer.stream_info(STREAM)
    bucket = writer.call(writer.jetstream.create_key_value(bucket=READ.name))
    assert reader.wait_ready(GENEROUS_SECONDS), reader.health()
    assert look(reader) is None
    writer.call(bucket.put("key", b"value"))
    entry = look(reader)
    assert entry is not None and entry.value == b"value"


def test_what_is_wrong_with_it_is_said_and_left_to_its_owner(
    reader: Bridge, writer: NatsSession
) -> None:
    writer.call(writer.jetstream.create_key_value(bucket=READ.name, ttl=60))
    assert reader.wait_ready(GENEROUS_SECONDS), reader.health()
    [finding] = reader.health().findings
    assert (finding.resource, finding.blocking) == (STREAM, False)
    assert "forgets its entries after 60000 ms" in finding.message
    assert writer.stream_info(STREAM).config.max_age == 60
