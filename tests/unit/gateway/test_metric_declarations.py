"""The declarations of the metrics: their names, and that the closed sets of labels are those that the code uses."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from prometheus_client import Gauge

from bridge import Closed, NotSent, Refusal, Refused, Unknown
from gateway.context import CP_PHASES, UNKNOWN_PHASE
from gateway.errors import ROUTER_CODES, STATUS, ErrorType
from gateway.idempotency import KeyType
from gateway.operations import decide, meter, publish
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics import labels
from gateway.telemetry.metrics.families import Family
from gateway.telemetry.metrics.zero_series import begin_at_zero
from gateway.telemetry.tracing.nats_spans import outcome_of

ROOT = Path(__file__).parents[3]
FAMILIES = list(metrics.families())
CONTRACT = {
    "sticky_hits_total": {"tenant", "subject"},
    "sticky_miss_total": {"tenant", "subject"},
    "idempotency_hit_total": {"tenant", "key_type"},
    "idempotency_miss_total": {"tenant", "key_type"},
    "beamline_gateway_cp_requests_total": {"cp_phase", "route", "method", "status"},
    "beamline_gateway_cp_latency_seconds": {"cp_phase", "route", "method"},
    "beamline_gateway_nats_consumption_total": {"subject", "tenant", "result", "redelivered"},
    "beamline_gateway_nats_consumption_latency_seconds": {"subject", "tenant"},
    "beamline_gateway_nats_requests_total": {"subject", "outcome"},
    "beamline_gateway_nats_publishes_total": {"subject", "outcome"},
    "beamline_gateway_usage_emitted_total": {"tenant", "source", "result"},
    "beamline_gateway_rbac_decisions_total": {"decision", "cache"},
}
"""Names and labels that dashboards of others rest on."""


def family(name: str) -> Family:
    [found] = [family for family in FAMILIES if family.name == name]
    return found


def values(name: str, label: str) -> set[str]:
    [found] = [found for found in family(name).labels if found.name == label]
    return set(found.values)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_name_of_the_contract_has_its_labels(name: str) -> None:
    assert {label.name for label in family(name).labels} == CONTRACT[name]


def test_a_name_is_declared_once() -> None:
    names = [family.name for family in FAMILIES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_tells_its_unit(family: Family) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z]", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    if family.kind == "histogram":
        assert family.name.endswith(("_seconds", "_bytes"))
    for unit in ("milliseconds", "_ms", "_kb", "_percent", "_minutes"):
        assert unit not in family.name, "base units only"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_says_what_it_means_and_when_to_worry(family: Family) -> None:
    assert family.meaning.endswith(".") or family.meaning.endswith("runs.")
    assert family.worry.endswith(".")
    assert "\n" not in family.meaning + family.worry


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_label_is_a_closed_set_or_says_what_bounds_it(family: Family) -> None:
    names = [label.name for label in family.labels]
    assert len(set(names)) == len(names)
    for label in family.labels:
        assert label.values or label.meaning
        assert label.name not in {"pid", "le", "instance", "job"}, "Prometheus' own"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_gauge_is_of_living_workers_only(family: Family) -> None:
    """What a dead worker left of other gauges would stay for ever, and is not folded."""
    if isinstance(family.metric, Gauge):
        assert family.metric._multiprocess_mode.startswith("live")


# -- closed sets are those that the code uses ---------------------------------------------------------


def test_the_phases_are_those_of_the_requests() -> None:
    assert set(labels.PHASE.values) == CP_PHASES | {UNKNOWN_PHASE}


def test_the_key_types_are_those_of_the_claims() -> None:
    assert set(labels.KEY_TYPE.values) == set(KeyType)


def test_the_operations_are_those_that_happen_once() -> None:
    assert set(labels.OPERATION.values) == {
        decide.DECIDE, publish.ASSIGNMENTS, publish.ACKS, meter.USAGE,
    }  # fmt: skip


def test_the_outcomes_are_those_of_the_bridges_errors() -> None:
    errors = (NotSent("x"), Unknown("x"), Refused("x", reason=Refusal.INVALID), Closed("x"))
    assert set(labels.WIRE_OUTCOME.values) == {"ok", *(outcome_of(error) for error in errors)}


def test_an_outcome_is_told_by_the_kind_of_the_error() -> None:
    """A full stream is a kind of "not sent", and no outcome that nobody knows."""

    class Full(NotSent):
        pass

    assert outcome_of(Full("x")) == "not_sent"


def test_the_error_codes_are_those_that_are_answered() -> None:
    answered = {*map(str, STATUS), *(code for _, code in ROUTER_CODES.values())}
    assert set(labels.ERROR_CODE.values) == answered
    assert set(labels.ERROR_TYPE.values) == set(ErrorType)


def test_the_reasons_of_dead_letters_are_those_that_messages_are_rejected_for() -> None:
    given = set()
    for path in [*ROOT.glob("gateway/**/*.py"), *ROOT.glob("bridge/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Reject":
                assert isinstance(node.args[0], ast.Constant), "a code that is made up"
                given.add(node.args[0].value)
    assert given == values("beamline_gateway_dead_letters_total", "reason")


# -- from the start -----------------------------------------------------------------------------------


def test_counters_that_alerts_wait_for_are_there_from_the_start() -> None:
    """Each of the closed ones in all its values; those of tenants for those that are named, and the others."""
    settings = Settings.from_environ(
        {
            "AUTH_MODE": "headers",
            "TRUSTED_PROXIES": "127.0.0.1",
            "METRICS_TENANT_LABEL_ALLOWLIST": "acme,umbrella",
            "CAF_RESULT_SUBJECT": "caf.exec.result.*",
        }
    )
    begin_at_zero(settings)
    for found in FAMILIES:
        if found.kind != "counter":
            continue
        series = [
            sample.labels
            for metric in found.metric.collect()
            for sample in metric.samples
            if sample.name == found.name
        ]
        assert series or found.metric is metrics.CP_REQUESTS, found.name
        have = {tuple(made[label.name] for label in found.labels) for made in series}
        assert have >= set(found.combinations()) or found.metric is metrics.ERRORS, found.name
        if any(label is labels.TENANT for label in found.labels):
            assert {made["tenant"] for made in series} >= {"acme", "umbrella", "other"}, found.name
