"""Documents that are made from declarations: what is committed is what the code says now."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge import required_permissions
from gateway.bridge_config import bridge_config
from gateway.cli import OUT_OF_DATE, main
from gateway.documentation import documents
from gateway.environment import Variable
from gateway.operator import backup
from gateway.operator.bus import operator_config
from gateway.operator.needs import needs_of_all
from gateway.settings import Settings, variables

DOCS = Path(__file__).parents[3] / "docs"
CONFIGURATION = documents()["CONFIGURATION.md"]
NATS_ACCOUNT = documents()["NATS_ACCOUNT.md"]


def run_docs(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["docs", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", documents())
def test_a_committed_document_is_what_the_declarations_say(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == documents()[name], (
        "run `beamline-gateway docs`"
    )


def test_the_check_passes_on_what_is_committed_and_writes_nothing(tmp_path: Path) -> None:
    for name in documents():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(DOCS / name, tmp_path / name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")}
    assert run_docs("--check", "--folder", str(tmp_path)) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.md")} == before


def test_the_check_fails_on_a_changed_or_missing_document_and_names_it(tmp_path: Path) -> None:
    changed = tmp_path / "CONFIGURATION.md"
    changed.write_text(CONFIGURATION.replace("5000", "5001"), encoding="utf-8")
    code, said = run_docs("--check", "--folder", str(tmp_path))
    assert code == OUT_OF_DATE
    assert "CONFIGURATION.md" in said and "NATS_ACCOUNT.md" in said
    assert "5001" in changed.read_text(encoding="utf-8")


def test_the_command_mends_what_the_check_found(tmp_path: Path) -> None:
    assert run_docs("--folder", str(tmp_path))[0] == 0
    assert run_docs("--check", "--folder", str(tmp_path)) == (0, "")


def test_the_command_is_for_those_who_build_and_not_in_the_help() -> None:
    assert "docs" not in CliRunner().invoke(main, ["--help"]).output.split()


# -- CONFIGURATION.md ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", variables(), ids=lambda v: v.name)
def test_a_variable_has_one_row_with_default_rule_and_meaning(variable: Variable) -> None:
    name = variable.name
    [row] = re.findall(rf"^\| `{name}`.*$", CONFIGURATION, re.MULTILINE)
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert len(cells) == 4 and all(cells)
    default = variable.default
    assert cells[1] == (f"`{default}`" if default else "not set")


def test_variables_are_grouped_in_the_order_of_their_declaration() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)`", CONFIGURATION, re.MULTILINE)
    assert rows == [variable.name for variable in variables()]
    sections = CONFIGURATION.split("\n## ")[1:]
    assert len(sections) >= 7
    assert all("| `" in section for section in sections)


def test_a_rule_is_said_in_the_words_of_the_refusal() -> None:
    assert "| a whole number of milliseconds from 10 to 60000 |" in CONFIGURATION
    assert "| comma list of: a whole number of milliseconds from 0 to 3600000 |" in CONFIGURATION
    assert "| one of debug, info, warning, error |" in CONFIGURATION


# -- NATS_ACCOUNT.md ----------------------------------------------------------------------------------


SETTINGS = Settings.from_environ({"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"})
REQUIRED = {
    "gateway": required_permissions(bridge_config(SETTINGS)),
    "operator": required_permissions(operator_config(SETTINGS, needs_of_all(SETTINGS))),
    "backup": required_permissions(operator_config(SETTINGS, backup.needs_of_all(SETTINGS))),
}


@pytest.mark.parametrize("user", REQUIRED)
def test_the_configuration_shown_gives_a_user_exactly_what_it_asks_for(user: str) -> None:
    block = NATS_ACCOUNT.partition(f'user: "{user}"')[2].partition("user:")[0]
    for verb, subjects in REQUIRED[user].items():
        [allowed] = re.findall(rf"{verb}: {{ allow: \[(.*?)\]", block, re.DOTALL)
        assert sorted(re.findall(r'"([^"]+)"', allowed)) == sorted(subjects)


@pytest.mark.parametrize("user", REQUIRED)
def test_the_table_gives_a_reason_for_each_permission_of_a_user(user: str) -> None:
    of_gateway, _, of_others = NATS_ACCOUNT.partition("## The operators' user")
    of_operators, _, of_backups = of_others.partition("## The user of backups")
    section = {"gateway": of_gateway, "operator": of_operators, "backup": of_backups}[user]
    for verb, subjects in REQUIRED[user].items():
        rows = re.findall(rf"^\| {verb} \|(.*?)\| (.+) \|$", section, re.MULTILINE)
        assert sorted(re.findall(r"`([^`]+)`", "".join(row[0] for row in rows))) == sorted(subjects)


def test_the_gateways_user_can_neither_write_nor_change_keys_and_roles() -> None:
    for subject in REQUIRED["gateway"]["publish"]:
        if "BEAMLINE_APIKEYS" in subject or "BEAMLINE_ROLES" in subject:
            assert subject.startswith(("$JS.API.STREAM.INFO.", "$JS.API.STREAM.MSG.GET."))


def test_the_environments_shown_are_of_declared_variables() -> None:
    shown = re.findall(r"^([A-Z_]+)=", NATS_ACCOUNT, re.MULTILINE)
    assert shown
    assert set(shown) <= {variable.name for variable in variables()}
