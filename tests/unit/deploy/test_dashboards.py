"""Dashboards as Grafana takes them: nothing overlaps, each variable is declared and used, each panel is explained."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy_queries import DASHBOARDS, DEPLOY, documents

COLUMNS = 24
BUILT_IN = {"__rate_interval", "__all"}


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.name)
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    parsed: dict[str, Any] = documents(request.param)
    return parsed


def places(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return set(
        itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    )


def test_every_subject_has_its_dashboard() -> None:
    assert {path.stem for path in DASHBOARDS} == {"requests", "exactly-once", "sessions", "nats"}


def test_no_two_dashboards_have_one_name_or_address() -> None:
    boards = [documents(path) for path in DASHBOARDS]
    for field in ("uid", "title"):
        assert len({board[field] for board in boards}) == len(boards)


def test_panels_lie_beside_each_other(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        mine = places(panel)
        assert max(x for x, _ in mine) < COLUMNS, panel["title"]
        assert not mine & taken, f"{panel['title']} lies on another panel"
        taken |= mine


def test_panels_are_numbered_once(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_panel_says_what_it_shows_and_in_which_unit(board: dict[str, Any]) -> None:
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["title"] and panel["description"].endswith((".", "one.")), panel["title"]
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_series_of_one_panel_have_names_of_their_own(board: dict[str, Any]) -> None:
    for panel in board["panels"]:
        legends = [
            target["legendFormat"]
            for target in panel.get("targets", ())
            if "legendFormat" in target
        ]
        assert len(set(legends)) == len(legends), panel["title"]
        if panel["type"] == "timeseries":
            assert all(legends), panel["title"]


def test_a_legend_names_labels_that_its_query_keeps(board: dict[str, Any]) -> None:
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
                kept = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert all(label in names for names in kept), (panel["title"], label)


def test_the_data_source_is_chosen_by_who_looks(board: dict[str, Any]) -> None:
    text = json.dumps(board)
    assert set(re.findall(r'"uid": "([^"]*)"', text)) == {board["uid"], "${datasource}"}


def test_variables_are_declared_and_used(board: dict[str, Any]) -> None:
    declared = {variable["name"] for variable in board["templating"]["list"]}
    elsewhere = {**board, "templating": [v["query"] for v in board["templating"]["list"]]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(elsewhere)))
    assert used - BUILT_IN == declared


def test_grafana_is_told_where_the_dashboards_are() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "beamline.yml").read_text())[
        "providers"
    ]
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    mounts = [str(mount).split(":") for mount in compose["services"]["grafana"]["volumes"]]
    assert ["../grafana/dashboards", provider["options"]["path"], "ro"] in mounts
    assert ["../grafana/provisioning", "/etc/grafana/provisioning", "ro"] in mounts


def test_dashboards_are_written_as_grafana_exports_them() -> None:
    """So that an export that is put back shows in a diff what was changed, and nothing else."""
    for path in DASHBOARDS:
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n", Path(
            path
        ).name
