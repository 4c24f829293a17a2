"""docs/API_CONTRACTS.md on who may do what: the same as the roles that come with the gateway, and as its views ask."""

from __future__ import annotations

import re
from pathlib import Path

from bridge import Bridge
from gateway.access import Permission, required_by
from gateway.access.roles import default_document, parse
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.door import OPEN_BLUEPRINTS
from gateway.settings import Settings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "API_CONTRACTS.md").read_text(encoding="utf-8")
ROLES = parse(default_document())


def rows() -> list[list[str]]:
    """The cells of the table of permissions, its header first."""
    table = re.search(r"^\| permission \|.*\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    assert table is not None
    lines = [table[0].splitlines()[0], *table[1].splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_permission_has_a_row_and_each_role_a_column() -> None:
    header, *body = rows()
    assert header[2:] == list(ROLES)
    assert [row[0] for row in body] == [f"`{permission}`" for permission in Permission]


def test_a_cell_says_yes_where_the_role_has_the_permission() -> None:
    header, *body = rows()
    for permission, _, *cells in body:
        for role, cell in zip(header[2:], cells, strict=True):
            has = Permission(permission.strip("`")) in ROLES[role]
            assert cell == ("yes" if has else "no"), (role, permission)


def test_every_view_that_asks_for_a_permission_is_in_its_row() -> None:
    settings = Settings.from_environ({"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1"})
    app = create_app(settings, Bridge(bridge_config(settings)))
    named = {row[0].strip("`"): re.findall(r"`([^`]+)`", row[1]) for row in rows()[1:]}
    guarded = 0
    for rule in app.url_map.iter_rules():
        if rule.endpoint.partition(".")[0] in OPEN_BLUEPRINTS:
            continue
        permission = required_by(app.view_functions[rule.endpoint]).permission
        path = re.sub(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert f"{method} {path}" in named[str(permission)]
            guarded += 1
    assert guarded >= 10


def test_who_may_report_usage_is_said() -> None:
    reporting = [role for role, granted in ROLES.items() if Permission.USAGE_WRITE in granted]
    sentence = " and ".join(reporting)
    assert f"Who can cause a usage event, which is money: {sentence} by reporting it" in DOCUMENT
