"""The report says what was met, and what was measured otherwise; a stored result is used for equal settings only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.bench import report, results
from tests.bench.results import Measured, Settings
from tests.bench.rounds import AT_ONCE
from tests.bench.targets import judged
from tests.bench.wrk_load import Sample

SETTINGS = Settings(seconds=1.0, rounds=2, scale=1.0, machine="two cores", commit="abc")


def cell(per_second: float, p99: float = 3.0, errors: int = 0, **figures: list[float]) -> Measured:
    return Measured(SETTINGS, [Sample(100, per_second, 1.0, p99, 500.0, errors)] * 2, figures)


MEMORY = {
    **{f"{stage}_{kind}": [size, size + 1] for stage, size in (("idle", 60.0), ("first", 100.0), ("last", 110.0))
       for kind in ("rss", "pss")},
    **{f"{stage}_requests": [count] for stage, count in (("idle", 0.0), ("first", 1e5), ("last", 1e6))},
}  # fmt: skip
MEASURED = {
    "decide gateway decide 8": cell(50.0),
    "decide fastapi decide 8": cell(40.0, p99=2.0),
    "decide hello decide 8": cell(500.0, errors=7),
    "publish gateway usage 32": cell(900.0, acknowledged=[9.0], stored=[9.0], twice=[0.0], lost=[0.0]),
    "publish gateway batch 8": cell(85.0, acknowledged=[9.0], stored=[9.0], twice=[1.0], lost=[0.0]),
    f"claims gateway-few usage {AT_ONCE}": cell(100.0, filled=[1_000.0]),
    f"claims gateway-many usage {AT_ONCE}": cell(80.0, p99=6.0, filled=[1e6]),
    f"memory gateway mixed {AT_ONCE}": Measured(SETTINGS, cell(1_000.0).samples, MEMORY),
    "startup gateway /readyz 0": Measured(SETTINGS, [], {"seconds": [3.0, 1.0, 2.0]}),
    "startup hello /livez 0": Measured(SETTINGS, [], {"seconds": [0.5, 0.4, 0.6]}),
}  # fmt: skip


def test_the_report_says_which_targets_are_met_and_lists_those_that_are_not(tmp_path: Path) -> None:
    text = report.write(MEASURED, tmp_path)
    for line in (
        "two cores; commit abc; 2 rounds of 1 s",
        "| decide | hello | decide | 8 | 500 | 1.0 | 3.0 | 500 | 14 |",
        "| traced decide to FastAPI, 8 connections | 1.00 | 1.25 | met |",
        "| traced decide to Flask hello, 8 | 0.35 | 0.10 | **not met** |",
        "| usage/batch of 100, events/s | 8,000 | 8,500 | met |",
        "| usage/batch of 100, events/s to single events | 10.00 | 9.44 | **not met** |",
        "| usage with 1,000,000 live claims to 1,000 | 0.90 | 0.80 | **not met** |",
        "| memory of a worker after 100,000 requests, MB | at most 150 | 101 | met |",
        "| RSS after 1,000,000 requests to that | at most 1.05 | 1.10 | **not met** |",
        "| 100,000 | 100.0, 101.0 | 100.0, 101.0 |",
        "| publish gateway usage 32 | 9 | 9 | 0 | 0 | each once |",
        "| publish gateway batch 8 | 9 | 9 | 1 | 0 | **not each once** |",
        "- each once, publish gateway batch 8 (9 acknowledged): lost or twice: 1.00",
        f"to `claims gateway-few usage {AT_ONCE}`: 0.80 of the throughput, 2.00 of the p99.",
        "median of 3: 2.00 s; Flask hello under the same gunicorn 0.50 s; ratio 4.00.",
    ):
        assert line in text
    missed = text.partition("Not met:")[2]
    assert [f"- {t.what}: " in missed for t in judged(MEASURED)] == [
        not t.met for t in judged(MEASURED)
    ]
    assert (tmp_path / "bench.svg").read_text().count("<rect") == 8
    assert results.read(tmp_path / "bench.json") == MEASURED


@pytest.mark.parametrize(
    "other",
    [{"seconds": 2.0}, {"rounds": 3}, {"scale": 0.1}, {"machine": "four cores"}, {"commit": "abd"}],
    ids=lambda other: next(iter(other)),
)
def test_a_stored_result_stands_for_equal_settings_only(other: dict[str, Any]) -> None:
    now = replace(SETTINGS, **other)
    assert results.stands(MEASURED, "decide", SETTINGS)
    assert not results.stands(MEASURED, "decide", now)
    assert not results.stands(MEASURED, "usage", SETTINGS)
    # One cell of it that was measured otherwise is enough.
    name = "decide hello decide 8"
    mixed = {**MEASURED, name: replace(MEASURED[name], settings=now)}
    assert not results.stands(mixed, "decide", SETTINGS)
    assert results.stands(mixed, "publish", SETTINGS)


def test_the_report_says_which_part_was_measured_otherwise() -> None:
    name = "publish gateway batch 8"
    other = replace(SETTINGS, commit="abd", rounds=5)
    text = report.text({**MEASURED, name: replace(MEASURED[name], settings=other)})
    assert "publish: two cores; commit abd; 5 rounds of 1 s" in text
    assert "decide, publish, claims, memory, startup: two cores; commit abc; 2 rounds" in text


def test_a_part_that_is_measured_anew_leaves_nothing_of_before() -> None:
    new = {"decide gateway decide 32": MEASURED["decide gateway decide 8"]}
    found = results.replaced(MEASURED, "decide", new)
    assert [name for name in found if results.part_of(name) == "decide"] == list(new)
    assert len(found) == len(MEASURED) - 2


def test_results_of_before_cells_had_settings_are_not_used(tmp_path: Path) -> None:
    old = {"machine": "m", "seconds": 10, "cells": {"decide gateway decide 8": [{"requests": 1}]}}
    (tmp_path / "bench.json").write_text(json.dumps(old))
    assert results.read(tmp_path / "bench.json") == {}


def test_the_settings_name_this_machine_and_checkout() -> None:
    here = Settings.here(10.0, 3, 1.0)
    assert "cores" in here.machine and here.commit
    assert here == Settings.here(10.0, 3, 1.0) != Settings.here(10.0, 2, 1.0)
