"""Roles: a document that a person can read, refused with everything that is wrong in it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.access import FileRoles, Permission
from gateway.access.roles import InvalidRoles, default_document, parse
from gateway.sources import SourceUnavailable
from tests.support.access_credentials import roles_document


def problems(document: str | bytes) -> list[str]:
    """What a document is refused with."""
    with pytest.raises(InvalidRoles) as caught:
        parse(document.encode() if isinstance(document, str) else document)
    return caught.value.problems


def test_the_roles_that_come_with_the_gateway_are_those_of_the_contract() -> None:
    roles = parse(default_document())
    assert set(roles) == {"admin", "operator", "service", "viewer"}
    assert roles["admin"] == frozenset(Permission)
    assert Permission.USAGE_WRITE not in roles["operator"]
    assert roles["viewer"] == {
        Permission.RESULTS_READ,
        Permission.OPERATIONS_READ,
        Permission.STATUS_READ,
    }


def test_a_document_is_its_roles_and_their_permissions() -> None:
    roles = parse(
        b'[auditor]\ndescription = "Looks."\npermissions = ["results:read", "results:read"]\n'
        b"[nobody]\npermissions = []\n"
    )
    assert roles == {"auditor": {Permission.RESULTS_READ}, "nobody": frozenset()}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("", "has no roles"),
        ("# only a comment\n", "has no roles"),
        ("[admin", "is not TOML"),
        ("[admin]\npermissions = []\n[admin]\npermissions = []\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        ("x = " + "[" * 5000 + "]" * 5000, "is not TOML"),
        ("x = " + "9" * 5000, "is not TOML"),
        ("#" * (256 * 1024 + 1), "is larger than 262144 bytes"),
        ("permissions = ['results:read']\n", "permissions: must be a table"),
        ("admin = 'results:read'\n", "admin: must be a table"),
        ("[[admin]]\npermissions = []\n", "admin: must be a table"),
        ("[admin]\n", "[admin] needs permissions, a list"),
        ("[admin]\npermissions = 'results:read'\n", "[admin] needs permissions, a list"),
        ("[admin]\npermissions = ['results:reed']\n", "unknown permission 'results:reed'"),
        ("[admin]\npermissions = ['Results:Read']\n", "unknown permission 'Results:Read'"),
        ("[admin]\npermissions = ['*']\n", "unknown permission '*'"),
        ("[admin]\npermissions = ['results:*']\n", "unknown permission 'results:*'"),
        ("[admin]\npermissions = [1]\n", "unknown permission 1"),
        ("[admin]\npermissions = [['results:read']]\n", "unknown permission ['results:read']"),
        ("[admin]\npermission = ['results:read']\n", "[admin] has an unknown field 'permission'"),
        ("[admin.eu]\npermissions = []\n", "[admin] has an unknown field 'eu'"),
        ("['a b']\npermissions = []\n", "['a b']: a role is named"),
        ("['*']\npermissions = []\n", "['*']: a role is named"),
        ("['']\npermissions = []\n", "['']: a role is named"),
        (f"[{'r' * 65}]\npermissions = []\n", "a role is named"),
        ('["a\\nb"]\npermissions = []\n', "a role is named"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_a_sentence(document: str | bytes, problem: str) -> None:
    told = problems(document)
    assert any(problem in one for one in told), told
    assert all("\n" not in one for one in told)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    told = problems(
        "[admin]\npermissions = ['a', 'results:read', 'b']\nnote = 1\n[viewer]\n[' ']\npermissions = []\n"
    )
    assert len(told) == 5


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_the_document_holds_it_is_read_or_refused(document: bytes) -> None:
    with contextlib.suppress(InvalidRoles):
        roles = parse(document)
        assert all(granted <= frozenset(Permission) for granted in roles.values())


def test_a_file_that_is_broken_grants_nothing_and_works_at_once_when_it_is_mended(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roles.toml"
    path.write_bytes(roles_document({"auditor": ["results:read"]}))
    source = FileRoles(path)
    assert source.roles() == {"auditor": {Permission.RESULTS_READ}}
    path.write_text("[auditor")
    with pytest.raises(SourceUnavailable):
        source.roles()
    path.write_bytes(roles_document({"auditor": ["acks:write"]}))
    assert source.roles() == {"auditor": {Permission.ACKS_WRITE}}


def test_without_a_file_there_are_the_roles_that_come_with_the_gateway() -> None:
    assert FileRoles(None).roles() == parse(default_document())
