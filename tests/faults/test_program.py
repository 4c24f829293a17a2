"""The program of the faults: that it goes on until it has asked often enough, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import __main__ as program
from tests.faults.siege.kinds import PROCESSES, Kind
from tests.faults.siege.verdict import Verdict


def lines(monkeypatch: pytest.MonkeyPatch, reports: Path, requests: int, lost: int = 0) -> int:
    """How many lines a run has whose only kind yields so many requests, and so many losses, each time."""
    ran: list[Verdict] = []

    def run(kind: Kind, times: int, *_: object) -> Verdict:
        ran.append(Verdict(kind.name, times=times, wanted=times, requests=requests, lost=lost))
        return ran[-1]

    monkeypatch.setattr(program, "KINDS", PROCESSES[:1])
    monkeypatch.setattr(program, "run", run)
    assert program.main(["--reports", str(reports)]) == (1 if lost or not requests else 0)
    return len(ran)


def test_a_kind_is_made_once_more_until_there_are_enough_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert lines(monkeypatch, tmp_path, program.LEAST_REQUESTS) == 1
    assert lines(monkeypatch, tmp_path, program.LEAST_REQUESTS // 3) == 4


@pytest.mark.parametrize(("requests", "lost"), [(1000, 1), (0, 0)])
def test_what_is_not_sound_is_not_made_once_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, requests: int, lost: int
) -> None:
    assert lines(monkeypatch, tmp_path, requests, lost) == 1
