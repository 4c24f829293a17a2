"""METRICS.md says of every declared metric what there is to say, and of nothing else."""

from __future__ import annotations

import re

import pytest

from gateway.documentation import documents
from gateway.settings import variables
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.families import Family

DOCUMENT = documents()["METRICS.md"]
FAMILIES = list(metrics.families())


def rows() -> list[list[str]]:
    cells = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in DOCUMENT.splitlines() if line[:1] == "|"
    ]
    return [[cell.strip() for cell in row] for row in cells]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_has_a_row_with_type_labels_meaning_and_worry(family: Family) -> None:
    [row] = [row for row in rows() if row[0] == f"`{family.name}`"]
    kind, names, meaning, worry = row[1:]
    assert kind == family.kind
    assert re.findall(r"`(\w+)`", names) == [label.name for label in family.labels]
    assert meaning and worry


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_of_its_labels_has_a_row_that_says_what_it_holds(family: Family) -> None:
    for label in family.labels:
        found = [
            row for row in rows() if row[0] == f"`{label.name}`" and f"`{family.name}`" in row[1]
        ]
        assert len(found) == 1
        assert all(f"`{value}`" in found[0][2] for value in label.values)
        assert label.meaning in found[0][2]


def test_nothing_else_has_a_row() -> None:
    named = {name for row in rows() for name in re.findall(r"^`(\w+_\w+)`$", row[0])}
    labels = {label.name for family in FAMILIES for label in family.labels}
    assert named - labels == {family.name for family in FAMILIES}


def test_the_settings_and_metrics_that_it_names_exist() -> None:
    settings = {variable.name for variable in variables()}
    named = set(re.findall(r"`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)`", DOCUMENT))
    assert named - {"BEAMLINE_DLQ"} <= settings
    mentioned = set(re.findall(r"`((?:beamline_gateway|sticky|idempotency)_\w+)`", DOCUMENT))
    values = {value for found in FAMILIES for label in found.labels for value in label.values}
    assert mentioned - values == {found.name for found in FAMILIES}
