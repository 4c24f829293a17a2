"""The names that the checks ask for are those that the gateway declares, and those that the documents show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.smoke.contract import CONSUME, EVERYWHERE, FAMILIES, PUBLISH, REQUEST, SERVER, Family
from gateway.smoke.plan import plan
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.tracing.discretion import ATTRIBUTES

DOCUMENT = (Path(__file__).parents[3] / "docs" / "SMOKE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_metric_of_the_contract_is_declared_so(family: Family) -> None:
    [declared] = [each for each in metrics.families() if each.name == family.name]
    assert declared.kind == family.kind
    assert {label.name for label in declared.labels} == family.labels
    for name, value in family.where.items():
        [label] = [label for label in declared.labels if label.name == name]
        assert not label.values or value in label.values


def test_every_attribute_that_is_asked_for_may_leave_the_process() -> None:
    for expected in (SERVER, PUBLISH, REQUEST, CONSUME):
        assert {*EVERYWHERE, *expected.attributes} <= ATTRIBUTES.keys()


def test_every_check_is_in_the_document_and_no_other() -> None:
    section = DOCUMENT[DOCUMENT.index("## What is checked") : DOCUMENT.index("## Who asks")]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    checks = [check.name for check in plan(traces=True, listening=False)]
    assert sorted(named) == sorted(checks)


@pytest.mark.parametrize("listening", [True, False])
def test_what_a_check_needs_comes_before_it(listening: bool) -> None:
    before: set[str] = set()
    for check in plan(traces=True, listening=listening):
        assert before >= set(check.needs), check.name
        before.add(check.name)
