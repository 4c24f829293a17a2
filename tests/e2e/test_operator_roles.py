"""``beamline-gateway roles``: what each role may do, in a file on one machine."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import as_tenant
from tests.support.operators import Operator
from tests.support.waiting import GENEROUS_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
DEFAULT = (ROOT / "gateway" / "access" / "roles.toml").read_text()
AN_ID = "/api/v1/operations/usage/nobody-has-used-this-id"
OWN = """\
# What our people may do.
[viewer]
permissions = ["results:read", "operations:read"]

[auditor]
description = "Looks at what was used."
permissions = ["operations:read"]
"""
WRONG = """\
[viewer]
permissions = ["results:read", "results:write"]
colour = "red"

[auditor]
permission = []

["a b"]
permissions = [1]
"""


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer(name="roles") as server:
        yield server


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """With a file of roles that is the gateway's own."""
    path = tmp_path / "in-force.toml"
    path.write_text(DEFAULT)
    return Operator(tmp_path, variables={"ROLES_FILE": str(path)})


@pytest.fixture
def in_force(operator: Operator) -> Path:
    return Path(operator.variables["ROLES_FILE"])


@pytest.fixture
def wanted(operator: Operator) -> Path:
    path = operator.folder / "wanted.toml"
    path.write_text(OWN)
    return path


def test_show_prints_the_document_and_says_where_it_is_from(
    operator: Operator, in_force: Path
) -> None:
    shipped = operator.run("roles", "show", ROLES_FILE="")
    assert (shipped.code, shipped.out) == (0, DEFAULT)
    assert "the roles that come with the gateway" in shipped.err
    in_force.write_text(OWN)
    own = operator.run("roles", "show")
    assert (own.code, own.out) == (0, OWN)
    assert str(in_force) in own.err
    document = json.loads(operator.run("roles", "show", "--json").out)
    assert document["roles"] == {
        "viewer": ["operations:read", "results:read"],
        "auditor": ["operations:read"],
    }


def test_check_has_a_line_for_each_mistake(operator: Operator, wanted: Path) -> None:
    fine = operator.run("roles", "check", str(wanted))
    assert (fine.code, fine.out, fine.err) == (0, "2 roles: viewer, auditor\n", "")
    wanted.write_text(WRONG)
    ended = operator.run("roles", "check", str(wanted))
    assert (ended.code, ended.out) == (1, "")
    lines = ended.err.splitlines()
    assert all(line.startswith(f"{wanted}: ") for line in lines)
    for about in ("'results:write'", "'colour'", "'permission'", "'a b'", "unknown permission 1"):
        assert [line for line in lines if about in line], about
    assert len(lines) == 6, lines


@pytest.mark.parametrize(
    "content",
    [b"", b"[viewer", b"\xff\xfe", b"x = 1", b"n = " + b"9" * 5000, b"#" * 300_000],
    ids=["empty", "cut off", "not UTF-8", "no table", "a number without end", "too large"],
)
def test_what_is_no_document_of_roles_is_told_in_a_line(
    operator: Operator, wanted: Path, content: bytes
) -> None:
    wanted.write_bytes(content)
    ended = operator.run("roles", "check", str(wanted))
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1, ended


def test_apply_says_what_changes_and_then_changes_it(
    operator: Operator, in_force: Path, wanted: Path
) -> None:
    in_force.chmod(0o644)
    tried = operator.run("roles", "apply", "--dry-run", str(wanted))
    assert (tried.code, in_force.read_text(), operator.records()) == (0, DEFAULT, [])
    applied = operator.run("roles", "apply", str(wanted))
    assert applied.code == 0, applied
    assert applied.out == tried.out
    changes = dict(line.split(": ", 1) for line in applied.out.splitlines())
    assert changes["viewer"] == "-status:read"
    assert changes["auditor"] == "new, +operations:read"
    assert changes["service"].startswith("gone, -acks:write, ")
    assert in_force.read_text() == OWN
    assert stat.S_IMODE(in_force.stat().st_mode) == 0o644, "the gateway has to read it"
    again = operator.run("roles", "apply", str(wanted))
    assert again.code == 0 and "this document already" in again.out
    assert operator.acts() == [("roles.apply", "started"), ("roles.apply", "done")]


def test_other_words_for_the_same_permissions_are_applied_too(
    operator: Operator, in_force: Path, wanted: Path
) -> None:
    wanted.write_text(DEFAULT + "\n# Kept by the platform team.\n")
    applied = operator.run("roles", "apply", str(wanted))
    assert (applied.code, applied.out) == (0, "no permission changes\n")
    assert in_force.read_text() == wanted.read_text()


def test_a_document_with_mistakes_is_not_applied(
    operator: Operator, in_force: Path, wanted: Path
) -> None:
    wanted.write_text(WRONG)
    ended = operator.run("roles", "apply", str(wanted))
    assert (ended.code, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 6
    assert (in_force.read_text(), operator.records()) == (DEFAULT, [])


def test_broken_roles_are_shown_and_can_be_mended(
    operator: Operator, in_force: Path, wanted: Path
) -> None:
    in_force.write_text(WRONG)
    shown = operator.run("roles", "show")
    assert (shown.code, shown.out) == (1, WRONG)
    assert "'results:write'" in shown.err
    assert operator.run("roles", "apply", str(wanted)).code == 0
    assert in_force.read_text() == OWN


def test_without_a_place_to_write_to_nothing_is_applied(operator: Operator, wanted: Path) -> None:
    ended = operator.run("roles", "apply", str(wanted), ROLES_FILE="")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("ROLES_FILE: ") and "ROLES_SOURCE=bucket" in ended.err


def test_a_running_gateway_follows_the_file(
    operator: Operator, in_force: Path, wanted: Path, nats: NatsServer
) -> None:
    settings = {
        "ROLES_FILE": str(in_force),
        "RBAC_CACHE_TTL_MS": "300",
        "RBAC_DENY_TTL_MS": "100",
    }
    with (
        GatewayProcess(nats.url, environment=settings) as gateway,
        gateway.client() as client,
    ):

        def statuses(role: str) -> set[int]:
            # Whichever worker answers.
            return {client.get(AN_ID, as_tenant("acme", role)).status for _ in range(8)}

        assert (statuses("service"), statuses("auditor")) == ({404}, {403})
        assert operator.run("roles", "apply", str(wanted)).code == 0
        wait_until(lambda: statuses("service") == {403}, GENEROUS_SECONDS)
        wait_until(lambda: statuses("auditor") == {404}, GENEROUS_SECONDS)
