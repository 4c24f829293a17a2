"""Faults between the gateways and NATS: a link that is slow, that is cut, that leads nowhere. Through `NatsProxy`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from gateway.devstack.nats_server import NatsServer
from tests.faults.siege.kinds import RETURN_SECONDS, Kind
from tests.faults.siege.site import Plan, Site
from tests.support.faults_proxy import NatsProxy, Verdict
from tests.support.faults_wire import WireEvent

_SLOW_SECONDS: Final = 0.02
"""Added to each event of a connection, one after the other: fifty a second and direction are left."""
_HOLD_SECONDS: Final = 1.5
_HOLE_SECONDS: Final = 3.0


class Link:
    """What lies between; a fault changes how it treats events. Instances of the gateway have no other way."""

    def __init__(self) -> None:
        self.proxy: NatsProxy | None = None
        self.delay_seconds = 0.0

    def judge(self, event: WireEvent, _client: str) -> Verdict:
        if self.delay_seconds:
            time.sleep(self.delay_seconds)
        return Verdict.FORWARD

    @contextlib.contextmanager
    def before(self, nats: NatsServer) -> Iterator[str]:
        with NatsProxy(nats.port, self.judge, lambda _: None) as proxy:
            self.proxy = proxy
            yield proxy.url


@contextlib.contextmanager
def linked() -> Iterator[Plan]:
    """Both instances behind a proxy."""
    link = Link()
    yield Plan(before_nats=link.before, link=link)


def _link(site: Site) -> tuple[Link, NatsProxy]:
    link = site.plan.link
    assert isinstance(link, Link) and link.proxy is not None
    return link, link.proxy


def slow(site: Site) -> None:
    link, _ = _link(site)
    link.delay_seconds = _SLOW_SECONDS
    try:
        time.sleep(_HOLD_SECONDS)
    finally:
        link.delay_seconds = 0.0


def cut(site: Site) -> None:
    _, proxy = _link(site)
    proxy.cut()


def unplug(site: Site) -> None:
    _, proxy = _link(site)
    proxy.refuse(True)
    proxy.cut()
    time.sleep(0.5)
    proxy.refuse(False)


def black_hole(site: Site) -> None:
    """Whatever is sent is lost, on old connections for good, on new ones until it is over."""
    _, proxy = _link(site)
    proxy.swallow(True)
    time.sleep(_HOLE_SECONDS)
    proxy.swallow(False)


NETWORKS: Final = (
    Kind(
        "NATS slow",
        f"{_SLOW_SECONDS * 1000:.0f} ms for each protocol event of a connection, one after the other, for"
        f" {_HOLD_SECONDS} s.",
        slow,
        plan=linked,
    ),
    Kind("connection cut", "Every connection to NATS is reset.", cut, plan=linked),
    Kind("NATS unreachable", "The same, and new ones are refused for 0.5 s.", unplug, plan=linked),
    Kind(
        "black hole",
        f"Nothing gets through, and nobody says so: connections stay open. New ones work after {_HOLE_SECONDS} s, the"
        " old ones never again.",
        black_hole,
        plan=linked,
        return_seconds=RETURN_SECONDS,
    ),
)
