"""docs/OPERATIONS.md and docs/MIGRATION.md speak of what there is: alerts, settings, metrics, exit codes, requests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from gateway.cli import main
from gateway.operator import bus
from gateway.schemas.decide import DecideRequest
from gateway.settings import variables
from gateway.telemetry.metrics.declarations import families
from tests.support.deploy_queries import DEPLOY, exposed, rules
from tests.support.document_commands import below
from tests.support.gateway_process import REPOSITORY

DOCS = REPOSITORY / "docs"
OPERATIONS = DOCS / "OPERATIONS.md"
MIGRATION = DOCS / "MIGRATION.md"
READINESS = REPOSITORY / "CP2_READINESS_ROUTER_GATEWAY_RU.md"
GUIDES = (OPERATIONS, MIGRATION, DEPLOY / "README.md", READINESS)
ALERTS = [rule for rule in rules() if "alert" in rule]


def anchor(heading: str) -> str:
    """The address of a heading, as GitHub and most others make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def headings(path: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def spans(path: Path) -> list[str]:
    """What stands between backticks, and the code blocks."""
    found = re.findall(r"```\w*\n(.*?)```|`([^`]+)`", path.read_text(), re.DOTALL)
    return [block or span for block, span in found]


def section(title: str) -> str:
    """The text under a heading of the operations guide, up to the next one."""
    _, _, rest = OPERATIONS.read_text().partition(f" {title}\n")
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


# -- alerts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_whom_it_wakes_and_where_help_is(rule: dict[str, Any]) -> None:
    severity = rule["labels"]["severity"]
    assert severity in ("page", "ticket")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    page, _, place = notes["runbook_url"].partition("#")
    assert (REPOSITORY / page) == OPERATIONS
    assert place in [anchor(heading) for heading in headings(OPERATIONS)]
    help_given = section(rule["alert"])
    assert help_given.strip().startswith(f"*{severity}.*")
    assert len(help_given) > 120


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    named = {heading for heading in headings(OPERATIONS) if heading.startswith("BeamlineGateway")}
    assert named == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_seen_to_fire_in_a_test_of_the_rules(rule: dict[str, Any]) -> None:
    (path,) = (DEPLOY / "prometheus" / "tests").glob("*.yml")
    expected = {
        sample["labels"]
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test.get("promql_expr_test", ())
        for sample in check["exp_samples"]
    }
    assert f'{{alertname="{rule["alert"]}"}}' in expected


# -- what is named ----------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_a_link_leads_somewhere(guide: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", guide.read_text()):
        page, _, place = target.partition("#")
        path = (guide.parent / page).resolve() if page else guide
        assert path.exists(), target
        if place and not re.fullmatch(r"L\d+", place):
            assert place in [anchor(heading) for heading in headings(path)], target


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_a_setting_that_is_named_exists(guide: Path) -> None:
    known = {name for v in variables() for name in (v.name, v.alias) if name}
    streams = re.compile(r"(KV_)?BEAMLINE_[A-Z]+")
    for span in spans(guide):
        for name in re.findall(r"(?<![\w*…])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w*]|\.md)", span):
            assert name in known or streams.fullmatch(name), f"{name} in {guide.name}"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_a_metric_that_is_named_exists(guide: Path) -> None:
    pattern = r"`(beamline_gateway_\w+|\w+_total|\w+_seconds)`"
    known = {*exposed(), *(family.name for family in families())}
    for name in re.findall(pattern, guide.read_text()):
        assert name in known, name


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_a_command_that_is_named_exists(guide: Path) -> None:
    for span in spans(guide):
        for words in re.findall(r"(?<!/)beamline-gateway ((?:[a-z]+ ?)+)", span):
            command: click.Command = main
            for word in words.split()[:2]:
                if not isinstance(command, click.Group):
                    break
                found = below(command, word)
                assert found is not None, f"beamline-gateway {words}"
                command = found


# -- exit codes -------------------------------------------------------------------------------------


def codes(title_of_table: str) -> dict[int, str]:
    """The exit codes of the table that follows these words."""
    _, _, rest = section("Exit codes").partition(title_of_table)
    table = rest.strip("\n").partition("\n\n")[2].partition("\n\n")[0] or rest
    return {int(code): text for code, text in re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.M)}


def test_every_exit_code_of_the_operators_commands_is_explained() -> None:
    declared = {
        bus.NOT_FOUND,
        bus.CONFIGURATION_ERROR,
        bus.UNAVAILABLE,
        bus.AUDIT_UNAVAILABLE,
        bus.CHANGED_MEANWHILE,
        bus.AUDIT_INCOMPLETE,
        bus.RESTART_NEEDED,
    }
    assert set(codes("`beamline-gateway apikeys`")) == {0} | declared


def test_every_exit_code_of_serve_is_explained() -> None:
    assert set(codes("`beamline-gateway serve`")) == {0, 1, 2, 3, 4}


# -- moving -----------------------------------------------------------------------------------------


def test_the_older_envelope_is_the_request_that_the_guide_says() -> None:
    older, newer = (
        json.loads(block) for block in re.findall(r"```json\n(.*?)```", MIGRATION.read_text(), re.S)
    )
    assert "message" in older and "task" in newer
    assert DecideRequest().load(older) == DecideRequest().load(newer)
