"""Faults of what is kept: disks and stores that are full, a store that comes back empty, clocks that disagree."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.faults.siege.kinds import LONGER_SECONDS, RETURN_SECONDS, Kind
from tests.faults.siege.site import STREAMS, Plan, Site
from tests.support.faults_clock import shifted_clock
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_session import NatsSession
from tests.support.scraping import scrape_of
from tests.support.waiting import wait_until

_STORE_MIB: Final = 256
_SMALL_STREAMS: Final = {
    f"{stream}_MAX_BYTES": str(32 << 20) for stream in ("EXEC", "USAGE", "DLQ")
}
"""What streams may grow to is reserved for them."""
_BALLAST: Final = "BALLAST"
_APART_SECONDS: Final = 1.0
_REPLACED: Final = "not the one from before"
_REPLACED_METRIC: Final = "beamline_gateway_nats_stores_replaced_total"

_REFUSED: Final = "An instance refused a new effect meanwhile"
_TOLD: Final = "An instance said so in /readyz, and all its workers counted it"
_NO_ROOM: Final = "A worker found no room for its files, and said so"
_UNCOUNTED: Final = "what this worker counts is lost"


@contextlib.contextmanager
def _small_disk(mebibytes: int) -> Iterator[Path]:
    """A file system of its own. Needs root, if only in a user namespace: see `tests.faults.siege.mounts`."""
    with tempfile.TemporaryDirectory(prefix="small-disk-") as folder:
        size = f"size={mebibytes}m,mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "siege", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def _full(disk: Path) -> Iterator[None]:
    """No byte is left while the block runs."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        yield
    finally:
        ballast.unlink()


def _bitten(site: Site) -> None:
    """What a fault is for was seen: one that does nothing proves nothing."""
    site.problems += [f"never seen: {what}" for what, count in site.seen.items() if not count]


# -- NATS' disk ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_small_disk() -> Iterator[Plan]:
    """NATS keeps everything on a disk of its own that can be filled."""
    with _small_disk(_STORE_MIB) as disk:
        yield Plan(nats_folder=disk, environment=_SMALL_STREAMS)


def fill_nats_disk(site: Site) -> None:
    """nats-server gives JetStream up when it cannot write: it takes a restart when there is room again."""
    with _full(site.nats.folder):
        time.sleep(LONGER_SECONDS)
        site.seen[_REFUSED] += site.refuses()
    site.nats.stop()
    site.nats.start()


@contextlib.contextmanager
def with_a_small_store() -> Iterator[Plan]:
    """JetStream may store so much, and answers from then on that its resources are exhausted."""
    yield Plan(jetstream_config=f"max_file_store: {_STORE_MIB}MB", environment=_SMALL_STREAMS)


def fill_store(site: Site) -> None:
    with NatsSession(site.nats.url, name="ballast") as session:

        async def fill() -> None:
            await session.jetstream.add_stream(name=_BALLAST, subjects=[_BALLAST])
            block = bytes(1 << 19)
            with contextlib.suppress(Exception):  # the one that does not fit any more
                while True:
                    await session.jetstream.publish(_BALLAST, block, timeout=5.0)

        session.call(fill(), timeout=60.0)
        try:
            time.sleep(LONGER_SECONDS)
            site.seen[_REFUSED] += site.refuses()
        finally:
            session.delete_stream(_BALLAST)


# -- an empty store -----------------------------------------------------------------------------------


def empty_store(site: Site) -> None:
    """Not judged by what is lost, but every worker must notice, ``/readyz`` say so, and what the alert counts move."""
    before = [(_said(gateway), _replaced_total(gateway)) for gateway in site.gateways]
    site.nats.kill()
    shutil.rmtree(site.nats.folder / "jetstream")
    site.nats.start()
    for gateway, (said, total) in zip(site.gateways, before, strict=True):
        workers = len(gateway.workers())
        try:
            wait_until(lambda: _names_all(_said(gateway) - said), timeout=RETURN_SECONDS)  # noqa: B023 - called at once
            wait_until(lambda: _replaced_total(gateway) >= total + workers, timeout=RETURN_SECONDS)  # noqa: B023
        except AssertionError as error:
            site.problems.append(f"{gateway.url} does not tell of the empty store: {error}")
        else:
            site.seen[_TOLD] += 1


def _said(gateway: GatewayProcess) -> frozenset[str]:
    """What a worker's /readyz says of streams that are not the ones from before; each birth is said in it."""
    answer = gateway.get("/readyz")
    findings = [] if answer is None else answer.json()["findings"]
    return frozenset(one for one in findings if _REPLACED in one)


def _names_all(findings: frozenset[str]) -> bool:
    return {*STREAMS} <= {one.partition(":")[0] for one in findings}


def _replaced_total(gateway: GatewayProcess) -> float:
    return scrape_of(gateway).total(_REPLACED_METRIC)


# -- the disk of the metrics --------------------------------------------------------------------------


@contextlib.contextmanager
def metrics_on_a_small_disk() -> Iterator[Plan]:
    """Each instance has a folder for its metrics on a disk that can be filled."""
    with _small_disk(64) as disk:
        folders = [disk / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        instances: list[Mapping[str, str]] = [
            {"PROMETHEUS_MULTIPROC_DIR": str(folder)} for folder in folders
        ]
        yield Plan(per_instance=instances, link=disk)


def fill_metrics_disk(site: Site) -> None:
    """The worst time: a worker dies, and its successor finds no room for its files."""
    disk = site.plan.link
    assert isinstance(disk, Path)
    with _full(disk):
        victim = site.any_worker()
        os.kill(victim, 9)
        time.sleep(_APART_SECONDS)
        if (took := site.await_service(RETURN_SECONDS)) > RETURN_SECONDS:
            site.problems.append(f"with the metrics' disk full it served only after {took:.1f} s")
    said = sum(gateway.output().count(_UNCOUNTED) for gateway in site.gateways)
    site.seen[_NO_ROOM] = said


# -- clocks -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def an_hour_apart() -> Iterator[Plan]:
    """Two instances, one half an hour ahead, the other half an hour behind."""
    yield Plan(per_instance=(shifted_clock("+30m"), shifted_clock("-30m")))


def nothing(_site: Site) -> None:
    time.sleep(_APART_SECONDS)


STORES: Final = (
    Kind(
        "NATS' disk full",
        f"Not a byte is left on its disk for {LONGER_SECONDS} s. Over when there is room and the server, which gives up"
        " JetStream, was restarted. Needs root or user namespaces, for the disk.",
        fill_nats_disk,
        plan=on_a_small_disk,
        afterwards=_bitten,
    ),
    Kind(
        "NATS' store full",
        f"JetStream is at its limit of {_STORE_MIB} MB for {LONGER_SECONDS} s, and refuses.",
        fill_store,
        plan=with_a_small_store,
        afterwards=_bitten,
    ),
    Kind(
        "NATS' store empty",
        "SIGKILL, and it comes back with nothing. Outside of the verdict on losses; each instance must say so in"
        " /readyz and count it for the alert within 5 s.",
        empty_store,
        loss_counts=False,
    ),
    Kind(
        "metrics' disk full",
        "Not a byte is left for the files of the metrics, and a worker is killed meanwhile."
        " Needs root or user namespaces, for the disk.",
        fill_metrics_disk,
        plan=metrics_on_a_small_disk,
        afterwards=_bitten,
    ),
    Kind(
        "clocks apart",
        f"The instances' clocks are an hour apart, all the time; {_APART_SECONDS} s each.",
        nothing,
        plan=an_hour_apart,
    ),
)
