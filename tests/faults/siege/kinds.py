"""Kinds of fault: what is done to a site, how often, and what is allowed afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.faults.siege.site import DEADLINE_SECONDS, Plan, Site, client_ports
from tests.support.waiting import wait_until

SHORTER_SECONDS: Final = 0.4 * DEADLINE_SECONDS
LONGER_SECONDS: Final = 1.5 * DEADLINE_SECONDS
RETURN_SECONDS: Final = 5.0
CLUSTER_RETURN_SECONDS: Final = 15.0


@contextlib.contextmanager
def plain() -> Iterator[Plan]:
    """One NATS server, two instances of two workers."""
    yield Plan()


@dataclass(frozen=True)
class Kind:
    """One kind of fault. ``strike`` makes it once and returns when it is over."""

    name: str
    note: str
    strike: Callable[[Site], None]
    times: int = 20
    plan: Callable[[], contextlib.AbstractContextManager[Plan]] = plain
    return_seconds: float = RETURN_SECONDS
    loss_counts: bool = True
    afterwards: Callable[[Site], None] | None = None
    """What must be true at the end of all rounds; adds to the site's problems."""


# -- processes of the gateway -----------------------------------------------------------------------


def kill_worker(site: Site) -> None:
    os.kill(site.any_worker(), signal.SIGKILL)


def freeze_worker(site: Site) -> None:
    pid = site.any_worker()
    ports, since = client_ports(pid), time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(LONGER_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            # Those that it had accepted, and those that waited in its hands.
            ports |= client_ports(pid)
            os.kill(pid, signal.SIGCONT)
    # What had waited for it is late for some moments more: it is answered in turn.
    site.excuse(pid, since, time.monotonic() + DEADLINE_SECONDS, ports)


def kill_instance(site: Site) -> None:
    gateway = site.any_gateway()
    gateway.kill()
    gateway.spawn()
    wait_until(lambda: gateway.running and gateway.workers())


def kill_master(site: Site) -> None:
    gateway = site.any_gateway()
    orphans = gateway.workers()
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait()
    # Until they have gone nobody can listen at their address, a supervisor's next master neither.
    wait_until(lambda: not any(_alive(pid) for pid in orphans))
    gateway.spawn()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def restart_instance(site: Site) -> None:
    gateway = site.any_gateway()
    gateway.terminate()
    gateway.wait()
    gateway.spawn()


# -- NATS -------------------------------------------------------------------------------------------


def kill_nats(site: Site) -> None:
    site.nats.kill()
    time.sleep(site.dice.uniform(0.0, 0.3))
    site.nats.start()


def restart_nats(site: Site) -> None:
    site.nats.stop()
    site.nats.start()


def _freeze_nats(site: Site, seconds: float) -> None:
    site.nats.freeze()
    time.sleep(seconds)
    site.nats.thaw()


# -- the Router -------------------------------------------------------------------------------------


def silence_router(site: Site) -> None:
    site.router.behaviour = lambda asked: (site.decide(asked), None)[1]
    try:
        time.sleep(LONGER_SECONDS)
    finally:
        site.router.behaviour = site.decide


def kill_router(site: Site) -> None:
    site.router.leave()
    time.sleep(0.5)
    site.router.come_back()


PROCESSES: Final = (
    Kind("worker killed", "SIGKILL to a gunicorn worker; its master replaces it.", kill_worker),
    Kind(
        "worker frozen",
        f"SIGSTOP to a worker for {LONGER_SECONDS} s, longer than the deadline. Judged on the requests at the others.",
        freeze_worker,
    ),
    Kind(
        "instance killed",
        "SIGKILL to a master and its workers at once, as a container ends; started again at once.",
        kill_instance,
    ),
    Kind(
        "master killed",
        "SIGKILL to a master alone; started again when its workers have noticed and gone.",
        kill_master,
    ),
    Kind("instance restarted", "SIGTERM to a master, and the next one.", restart_instance),
    Kind("NATS killed", "SIGKILL to the only server; back after up to 0.3 s.", kill_nats),
    Kind("NATS restarted", "SIGTERM to the only server, and the next one.", restart_nats),
    Kind(
        "NATS frozen, briefly",
        f"SIGSTOP for {SHORTER_SECONDS} s, shorter than the deadline.",
        lambda site: _freeze_nats(site, SHORTER_SECONDS),
    ),
    Kind(
        "NATS frozen",
        f"SIGSTOP for {LONGER_SECONDS} s, longer than the deadline.",
        lambda site: _freeze_nats(site, LONGER_SECONDS),
    ),
    Kind(
        "Router silent",
        f"The Router takes requests and says nothing, {LONGER_SECONDS} s.",
        silence_router,
    ),
    Kind("Router gone", "Nobody listens on the decide subject for 0.5 s.", kill_router),
)
