"""CP2_READINESS_ROUTER_GATEWAY_RU.md, as far as it can be checked without a run: `make readiness` does the rest."""

from __future__ import annotations

import ast
import re

import pytest

from gateway.smoke.contract import FAMILIES
from gateway.telemetry.tracing.discretion import ATTRIBUTES
from tests.readiness.document import DOCUMENT, ROOT, Claim, claims, complete, status
from tests.support.deploy_queries import labels_of, recorded

TEXT = DOCUMENT.read_text(encoding="utf-8")
CLAIMS = claims(TEXT)
QUERIES = [
    *re.findall(r"```promql\n(.*?)```", TEXT, re.DOTALL),
    *re.findall(r"^\| [^|]+\? \| `([^|]+)` \|", TEXT, re.MULTILINE),
]


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_names_tests_that_there_are(claim: Claim) -> None:
    for test in claim.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), test
        assert name in functions(path), test


def test_its_tables_and_the_lines_that_it_points_to_are_as_they_are_now() -> None:
    assert complete(TEXT) == TEXT, "run: .venv/bin/python -m tests.readiness --complete"


def test_it_says_whether_it_is_ready() -> None:
    assert re.match(r"\*\*Статус: (готов\.|не готов)", status(TEXT))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_metric_of_the_contract_is_in_its_table(family: object) -> None:
    name = getattr(family, "name", None)
    assert re.search(rf"^\| `{name}` \| \w+ \| `.*` \| [^|]+ \|$", TEXT, re.MULTILINE)


def test_the_attributes_of_spans_are_those_that_leave_the_process() -> None:
    [table] = re.findall(r"^\| Спан \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    cells = [row.strip("|").split("|")[2] for row in table.splitlines()]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert {"subject", "tenant_id", "cp_phase", "durable", "redelivery_count"} <= named
    assert named <= set(ATTRIBUTES)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_there_is(query: str) -> None:
    labels_of(query.strip(), recorded())


def test_there_are_queries_to_check() -> None:
    assert len(QUERIES) >= 9


def test_every_expectation_rests_on_claims() -> None:
    [table] = re.findall(r"^\| Чего ждёт.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert all(re.findall(r"\*\*[A-Z]+-\d+\*\*", row) for row in table.splitlines())
