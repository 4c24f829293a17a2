"""Queries: what a PromQL expression asks for, held against the metrics that are declared.

`labels_of` says which labels an expression's series have, and raises `Misfit` for a metric, a label or a label's value
that the gateway does not have. A recorded series is looked up in ``recorded``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import yaml

from gateway.telemetry.metrics.declarations import families
from gateway.telemetry.metrics.families import Family
from tests.support.gateway_process import REPOSITORY

DEPLOY: Final = REPOSITORY / "deploy"
RULES: Final = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS: Final = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

#: What Prometheus adds to every series it scrapes, and what service discovery may add.
TARGET_LABELS: Final = frozenset({"job", "instance", "pod"})
#: Series of Prometheus' own, and their labels.
OWN_SERIES: Final[Mapping[str, frozenset[str]]] = {
    "up": TARGET_LABELS,
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}
_GRAFANA: Final = {"$__rate_interval": "5m", "$__range": "1h"}
_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
_LABEL_VALUES: Final = re.compile(r"label_values\((.+), (\w+)\)")


class Misfit(Exception):
    """A query asks for what the gateway does not have; the text says for what."""


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands."""

    where: str
    expression: str


def documents(path: Path) -> Any:
    """The parsed content of a rules file or a dashboard."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def rules() -> Iterator[dict[str, Any]]:
    """All rules, recording and alerting, in their order."""
    for path in RULES:
        for group in documents(path)["groups"]:
            yield from group["rules"]


def rule_queries() -> Iterator[Query]:
    for rule in rules():
        yield Query(rule.get("alert") or rule["record"], rule["expr"])


def dashboard_queries() -> Iterator[Query]:
    """The panels', annotations' and variables' queries, Grafana's variables replaced by what they may stand for."""
    for path in DASHBOARDS:
        board = documents(path)
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Query(f"{path.name}: {panel['title']}", _without_variables(target["expr"]))
        for annotation in board["annotations"]["list"]:
            yield Query(f"{path.name}: {annotation['name']}", annotation["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                where = f"{path.name}: ${variable['name']}"
                found = _LABEL_VALUES.fullmatch(_without_variables(variable["query"]["query"]))
                assert found is not None, f"{where} is no label_values(…)"
                # What Grafana asks for: the values of a label of these series.
                yield Query(where, f"count by ({found[2]}) ({found[1]})")


def _without_variables(expression: str) -> str:
    for name, value in _GRAFANA.items():
        expression = expression.replace(name, value)
    return _VARIABLE.sub(".*", expression)


def exposed() -> dict[str, Family]:
    """Every series that a scrape brings, and the declaration that it comes from."""
    found = {}
    for family in families():
        if family.kind == "histogram":
            found.update({f"{family.name}{end}": family for end in ("_bucket", "_sum", "_count")})
        else:
            found[family.name] = family
    return found


def recorded() -> dict[str, frozenset[str]]:
    """Every recorded series and its labels; a rule may rest on those before it."""
    found: dict[str, frozenset[str]] = {}
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = labels_of(rule["expr"], found)
    return found


def series_of(expression: str) -> set[str]:
    """The names of the series that an expression reads."""
    names: set[str] = set()

    def visit(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector) and node.name:
            names.add(node.name)
        if isinstance(node, promql.MatrixSelector) and node.vector_selector.name:
            names.add(node.vector_selector.name)

    promql.walk(promql.parse(expression), pre_visit=visit)
    return names


def labels_of(expression: str, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The labels of the series that an expression yields. Raises Misfit, or ValueError for what cannot be parsed."""
    return _labels(promql.parse(expression), known, exposed())


def _labels(
    node: Any, known: Mapping[str, frozenset[str]], declared: Mapping[str, Family]
) -> frozenset[str]:
    match node:
        case promql.VectorSelector():
            return _selected(node, known, declared)
        case promql.MatrixSelector():
            return _selected(node.vector_selector, known, declared)
        case promql.AggregateExpr():
            inner = _labels(node.expr, known, declared)
            return _aggregated(node, inner)
        case promql.BinaryExpr():
            sides = [_labels(side, known, declared) for side in (node.lhs, node.rhs)]
            # A number has no labels; the other side's are kept.
            return sides[0] or sides[1]
        case promql.Call():
            of_arguments = [_labels(argument, known, declared) for argument in node.args]
            labels = frozenset[str]().union(*of_arguments)
            if node.func.name == "histogram_quantile":
                if "le" not in labels:
                    raise Misfit("a quantile of something without `le`")
                return labels - {"le"}
            return labels
        case promql.ParenExpr() | promql.SubqueryExpr() | promql.UnaryExpr():
            return _labels(node.expr, known, declared)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
    raise AssertionError(f"not known here: {type(node).__name__}")


def _aggregated(node: promql.AggregateExpr, inner: frozenset[str]) -> frozenset[str]:
    if node.modifier is None:
        return frozenset()
    named = frozenset(node.modifier.labels)
    if strange := named - inner - TARGET_LABELS:
        raise Misfit(f"aggregates {sorted(strange)}, which the series do not have")
    return named if node.modifier.type == promql.AggModifierType.By else inner - named


def _selected(
    node: promql.VectorSelector,
    known: Mapping[str, frozenset[str]],
    declared: Mapping[str, Family],
) -> frozenset[str]:
    assert node.name is not None, "a selector without a metric"
    family = declared.get(node.name)
    if family is not None:
        labels = TARGET_LABELS | {label.name for label in family.labels}
        labels |= {"le"} if node.name.endswith("_bucket") else set()
    else:
        found = {**known, **OWN_SERIES}.get(node.name)
        if found is None:
            raise Misfit(f"{node.name} is not a metric of the gateway, and nothing records it")
        labels = found
    for matcher in node.matchers.matchers:
        if matcher.name not in labels | TARGET_LABELS:
            raise Misfit(f"{node.name} has no label {matcher.name}")
        if family is not None:
            _check_value(family, matcher)
    return labels


def _check_value(family: Family, matcher: promql.Matcher) -> None:
    """A closed set of values must hold one that the matcher is about."""
    values = next((label.values for label in family.labels if label.name == matcher.name), ())
    if not values:
        return
    if matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
        wanted = {matcher.value}
    else:  # each alternative of a regular expression must mean something
        wanted = set(matcher.value.split("|"))
    for one in wanted:
        if not any(re.fullmatch(one, value) for value in values):
            raise Misfit(f"{family.name}: {matcher.name} is never {one}")
