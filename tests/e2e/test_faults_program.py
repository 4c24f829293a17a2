"""The short form of `make faults`: a few kinds of fault, a few times, so that the program itself cannot rot."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.siege.all_kinds import KINDS
from tests.faults.siege.running import run
from tests.faults.siege.table import Table

NAMES = ("worker killed", "NATS killed", "connection cut")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_made_twice_under_load_is_judged_and_sound(name: str, tmp_path: Path) -> None:
    [kind] = [one for one in KINDS if one.name == name]
    verdict = run(kind, 2, random.randrange(1_000_000), lambda _: None)
    table = Table(0, [verdict], {name: kind.note})
    for path in table.write(tmp_path):
        assert name in path.read_text(encoding="utf-8")
    # How fast it goes is `make faults`' business, on a machine of its own; here others are at work beside it.
    assert not (verdict.lost or verdict.twice or verdict.crossed or verdict.unsettled), verdict
    assert not verdict.problems or verdict.late, verdict
    assert verdict.times == 2
    assert verdict.effects > 20
    assert verdict.requests > 2 * verdict.effects


def test_every_kind_has_a_name_of_its_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 20
