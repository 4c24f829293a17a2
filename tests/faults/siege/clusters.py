"""Faults of a cluster: three NATS nodes, streams and buckets on all of them (``NATS_REPLICAS=3``)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from gateway.devstack.nats_server import NatsServer
from tests.faults.siege.kinds import CLUSTER_RETURN_SECONDS, LONGER_SECONDS, Kind
from tests.faults.siege.site import STREAMS, Plan, Site
from tests.support.nats_cluster import stream_leader
from tests.support.waiting import wait_until

_HEALTHY_SECONDS: Final = 30.0
_BUCKET: Final = "KV_BEAMLINE_IDEMPOTENCY"


@contextlib.contextmanager
def three_nodes() -> Iterator[Plan]:
    """Three nodes, two instances."""
    yield Plan(nodes=3)


def _leader(site: Site) -> NatsServer:
    """The node that leads one of the streams that effects need."""
    stream = site.dice.choice((*STREAMS, _BUCKET))
    leader = wait_until(lambda: stream_leader(site.nodes, stream), message="no leader")
    assert leader is not None
    return leader


def _follower(site: Site) -> NatsServer:
    leader = _leader(site)
    return site.dice.choice([node for node in site.nodes if node is not leader])


def _bounce(node: NatsServer, seconds: float) -> None:
    node.kill()
    time.sleep(seconds)
    node.start(wait=False)
    node.wait_healthy(_HEALTHY_SECONDS)


def lose_leader(site: Site) -> None:
    """The leader is gone for good, as far as the verdict goes: it comes back only after the others have taken over."""
    leader = _leader(site)
    leader.kill()
    try:
        took = site.await_service(CLUSTER_RETURN_SECONDS)
        if took > CLUSTER_RETURN_SECONDS:
            site.problems.append(f"without its leader the cluster served only after {took:.1f} s")
    finally:
        leader.start(wait=False)
        leader.wait_healthy(_HEALTHY_SECONDS)
    _await_replicas(site)


def freeze_leader(site: Site) -> None:
    leader = _leader(site)
    leader.freeze()
    try:
        time.sleep(LONGER_SECONDS)
    finally:
        leader.thaw()


def lose_follower(site: Site) -> None:
    _bounce(_follower(site), 0.5)
    _await_replicas(site)


def lose_quorum(site: Site) -> None:
    gone = site.dice.sample(site.nodes, 2)
    for node in gone:
        node.kill()
    time.sleep(LONGER_SECONDS)
    for node in gone:
        node.start(wait=False)
    for node in gone:
        node.wait_healthy(_HEALTHY_SECONDS)


def roll_everything(site: Site) -> None:
    """Each node and each instance in turn, in order, the next one when the one before is back."""
    for node in site.nodes:
        node.stop()
        node.start(wait=False)
        node.wait_healthy(_HEALTHY_SECONDS)
        _await_replicas(site)
    for gateway in site.gateways:
        gateway.terminate()
        gateway.wait()
        gateway.start()


def _await_replicas(site: Site) -> None:
    """Wait until every stream has all of its replicas again: as an operator would before the next step."""

    def current() -> bool:
        with contextlib.suppress(OSError, KeyError, IndexError):
            seen = set()
            for node in site.nodes:
                details = node.jsz("streams=true&accounts=true")["account_details"][0]
                for detail in details["stream_detail"]:
                    replicas = detail["cluster"].get("replicas", [])
                    if detail["cluster"].get("leader") == node.name:
                        seen.add(detail["name"])
                        if len(replicas) != 2 or not all(one["current"] for one in replicas):
                            return False
            return {*STREAMS, _BUCKET} <= seen
        return False

    wait_until(current, _HEALTHY_SECONDS, "the streams do not get their replicas back")


CLUSTERS: Final = (
    Kind(
        "leader lost",
        "Three nodes: SIGKILL to one that leads a stream or the bucket. The others serve before it comes back.",
        lose_leader,
        plan=three_nodes,
        return_seconds=CLUSTER_RETURN_SECONDS,
    ),
    Kind(
        "leader frozen",
        f"Three nodes: SIGSTOP to such a leader for {LONGER_SECONDS} s.",
        freeze_leader,
        plan=three_nodes,
        return_seconds=CLUSTER_RETURN_SECONDS,
    ),
    Kind(
        "follower lost",
        "Three nodes: SIGKILL to one that does not lead it; back after 0.5 s.",
        lose_follower,
        plan=three_nodes,
        return_seconds=CLUSTER_RETURN_SECONDS,
    ),
    Kind(
        "quorum lost",
        f"Three nodes: SIGKILL to two of them; both back after {LONGER_SECONDS} s.",
        lose_quorum,
        plan=three_nodes,
        return_seconds=CLUSTER_RETURN_SECONDS,
    ),
    Kind(
        "rolling restart of everything",
        "Three nodes and two instances: SIGTERM to one after the other, each back before the next.",
        roll_everything,
        times=5,
        plan=three_nodes,
        return_seconds=CLUSTER_RETURN_SECONDS,
    ),
)
