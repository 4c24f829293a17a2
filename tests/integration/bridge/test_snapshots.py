"""Snapshots against real servers: whole or not at all, on one node and on three."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge import Bridge, BridgeError, Bus, NotSent, Refused, Snapshot, Snapshots, Unknown
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import ASSIGN, EXEC, RunningBridges, publish, soon
from tests.support.nats_cluster import nats_cluster
from tests.support.nats_session import NatsSession
from tests.support.waiting import wait_until

STREAM = EXEC.name
SECONDS = 60.0


def take(bridge: Bridge) -> tuple[Snapshot, list[bytes]]:
    chunks: list[bytes] = []

    async def work(bus: Bus) -> Snapshot:
        return await Snapshots(bus).take(STREAM, chunks.append)

    return bridge.run(work, soon(SECONDS)), chunks


def delete(bridge: Bridge) -> None:
    bridge.run(lambda bus: Snapshots(bus).delete(STREAM), soon(SECONDS))


def restore(bridge: Bridge, snapshot: Snapshot, chunks: Sequence[bytes]) -> None:
    bridge.run(lambda bus: Snapshots(bus).restore(STREAM, snapshot, chunks), soon(SECONDS))


def describe(bridge: Bridge) -> Snapshot | None:
    return bridge.run(lambda bus: Snapshots(bus).describe(STREAM), soon(SECONDS))


def forgets(bridge: Bridge) -> bool:
    return bridge.run(lambda bus: Snapshots(bus).forgets_ids(STREAM), soon(SECONDS))


@pytest.fixture
def keeper(server: NatsServer, bridges: RunningBridges) -> Bridge:
    """A bridge that makes no stream by itself; another one made it, filled it, and is gone."""
    maker = bridges.start(server.url)
    for number in range(50):
        publish(maker, ASSIGN, json.dumps({"number": number}).encode() * 200, msg_id=str(number))
    maker.close()
    return bridges.start(server.url, streams=())


def test_sequences_times_and_consumers_come_back(
    server: NatsServer, keeper: Bridge, nats: NatsSession
) -> None:
    async def consume() -> None:
        subscription = await nats.jetstream.pull_subscribe(ASSIGN, "half")
        for message in await subscription.fetch(20, timeout=5):
            await message.ack_sync()

    nats.call(consume())
    before = nats.stream_messages(STREAM)
    snapshot, chunks = take(keeper)
    delete(keeper)
    assert describe(keeper) is None
    restore(keeper, snapshot, chunks)
    assert nats.stream_messages(STREAM) == before
    consumer = nats.call(nats.jetstream.consumer_info(STREAM, "half"))
    assert consumer.ack_floor is not None and consumer.ack_floor.stream_seq == 20
    assert consumer.num_pending == 30
    found = describe(keeper)
    assert found is not None and found.state == snapshot.state
    assert found.config["duplicate_window"] == snapshot.config["duplicate_window"]


def test_ids_are_known_before_and_after_a_restart_and_the_question_stores_nothing(
    server: NatsServer, keeper: Bridge
) -> None:
    assert not forgets(keeper)
    snapshot, chunks = take(keeper)
    delete(keeper)
    restore(keeper, snapshot, chunks)
    assert forgets(keeper)
    server.stop()
    server.start()
    wait_until(lambda: keeper.health().connected)
    assert not forgets(keeper)
    found = describe(keeper)
    assert found is not None and found.state["last_seq"] == 50


@pytest.mark.parametrize("spoiled", ["cut", "other"])
def test_a_restore_that_fails_leaves_nothing(keeper: Bridge, spoiled: str) -> None:
    snapshot, chunks = take(keeper)
    delete(keeper)
    whole = b"".join(chunks)
    wrong = whole[: len(whole) // 2] if spoiled == "cut" else b"no snapshot" * 100
    with pytest.raises(Refused, match="restore failed"):
        restore(keeper, snapshot, [wrong])
    assert describe(keeper) is None


def test_a_stream_that_is_there_is_left_alone(keeper: Bridge) -> None:
    snapshot, chunks = take(keeper)
    with pytest.raises(BridgeError, match="already in use"):
        restore(keeper, snapshot, chunks)
    found = describe(keeper)
    assert found is not None and found.state["messages"] == 50


def test_a_server_that_dies_in_the_middle_is_an_error(server: NatsServer, keeper: Bridge) -> None:
    """More than the server sends before it is told to go on. It may die before it is told, or after."""
    for _ in range(200):
        publish(keeper, ASSIGN, os.urandom(80_000))

    async def work(bus: Bus) -> Snapshot:
        return await Snapshots(bus).take(STREAM, lambda _: server.kill())

    with pytest.raises((Unknown, NotSent)):
        keeper.run(work, soon(SECONDS))


def test_a_copy_of_the_store_of_a_stopped_server_knows_its_ids_at_once(
    server: NatsServer, keeper: Bridge, tmp_path: Path
) -> None:
    store = server.folder / "jetstream"
    server.stop()
    shutil.copytree(store, tmp_path / "copy")
    shutil.rmtree(store)
    server.start()
    wait_until(lambda: keeper.health().connected)
    assert describe(keeper) is None
    server.stop()
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(tmp_path / "copy", store)
    server.start()
    wait_until(lambda: keeper.health().connected)
    found = describe(keeper)
    assert found is not None and found.state["messages"] == 50
    assert not forgets(keeper)


def test_three_nodes_and_their_restart_one_after_the_other(bridges: RunningBridges) -> None:
    with nats_cluster() as nodes:
        urls = [node.url for node in nodes]
        maker = bridges.start(*urls, replicas=3)
        for number in range(50):
            publish(maker, ASSIGN, msg_id=str(number), seconds=20)
        maker.close()
        keeper = bridges.start(*urls, streams=())
        snapshot, chunks = take(keeper)
        delete(keeper)
        restore(keeper, snapshot, chunks)
        found = describe(keeper)
        assert found is not None and found.state["messages"] == 50
        assert found.config["num_replicas"] == 3
        assert forgets(keeper)
        for node in nodes:
            node.stop()
            node.start(wait=False)
            wait_until(lambda: _complete(nodes), 60, "the nodes do not agree again")
        wait_until(lambda: keeper.health().connected)
        assert not forgets(keeper)
        bridges.close()


def _complete(nodes: list[NatsServer]) -> bool:
    """Whether a node says that the stream has a leader and every replica is where it is."""
    with contextlib.suppress(OSError):
        for node in nodes:
            page = node.jsz("streams=true&config=true&accounts=true")
            for account in page.get("account_details", ()):
                for stream in account.get("stream_detail", ()):
                    told = stream.get("cluster", {})
                    peers = told.get("replicas", ())
                    if not told.get("leader") or len(peers) != 2:
                        return False
                    if told["leader"] == node.name and not all(peer["current"] for peer in peers):
                        return False
        return True
    return False
