"""Which core a worker is bound to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cores import Cores

USABLE = sorted(os.sched_getaffinity(0))


@pytest.fixture
def given_back() -> Iterator[None]:
    """This process may use what it could use before."""
    yield
    os.sched_setaffinity(0, USABLE)


def bound(cores: Cores, worker: int) -> set[int]:
    """Where the worker of this number may run, were it this process."""
    os.sched_setaffinity(0, USABLE)
    cores.bind(worker)
    return os.sched_getaffinity(0)


@pytest.mark.usefixtures("given_back")
def test_a_new_worker_gets_the_core_of_the_one_that_it_replaces() -> None:
    cores = Cores(USABLE)
    for worker in range(len(USABLE)):
        cores.choose(worker)
    places = [bound(cores, worker) for worker in range(len(USABLE))]
    assert sorted(map(tuple, places)) == [(core,) for core in USABLE]
    for replaced in range(len(USABLE)):
        cores.release(replaced)
        cores.choose(replaced + 100)
        assert bound(cores, replaced + 100) == places[replaced]


@pytest.mark.usefixtures("given_back")
def test_more_workers_than_cores_are_spread() -> None:
    cores = Cores(USABLE)
    for worker in range(2 * len(USABLE)):
        cores.choose(worker)
    places = [tuple(bound(cores, worker)) for worker in range(2 * len(USABLE))]
    assert sorted(places) == sorted([(core,) for core in USABLE] * 2)


@pytest.mark.parametrize(
    ("pinning", "workers", "quota", "is_bound"),
    [
        ("auto", len(USABLE), "max 100000\n", True),
        ("auto", len(USABLE), None, True),
        ("auto", len(USABLE), "200000 100000\n", False),
        ("auto", len(USABLE) + 1, "max 100000\n", False),
        ("on", len(USABLE) + 1, "200000 100000\n", True),
        ("off", len(USABLE), "max 100000\n", False),
    ],
)
@pytest.mark.usefixtures("given_back")
def test_auto_binds_where_the_cores_are_the_workers_own(
    pinning: str, workers: int, quota: str | None, is_bound: bool, tmp_path: Path
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    cores = Cores.of(pinning, workers, file)  # type: ignore[arg-type]
    cores.choose(1)
    assert (len(bound(cores, 1)) == 1) is (is_bound or len(USABLE) == 1)
