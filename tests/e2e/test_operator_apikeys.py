"""``beamline-gateway apikeys``: keys that let programs in, in a file on one machine."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.gateway_process import GatewayProcess
from tests.support.operator_command import Ended
from tests.support.operators import Operator, all_at_once, in_the_middle
from tests.support.waiting import GENEROUS_SECONDS, wait_until

KEY = re.compile(r"blk_[0-9a-z]{8}_[A-Za-z0-9_-]{43}")
AN_ID = "/api/v1/operations/usage/nobody-has-used-this-id"
TTL_MS = 300


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer(name="apikeys") as server:
        yield server


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def create(operator: Operator, *more: str) -> Ended:
    return operator.run("apikeys", "create", "--tenant", "acme", "--role", "service", *more)


# -- made, and shown once --------------------------------------------------------------------------------


def test_a_new_key_is_all_that_standard_output_holds(operator: Operator) -> None:
    made = create(operator, "--name", "billing", "--expires", "90d")
    assert made.code == 0, made
    assert KEY.fullmatch(made.out.removesuffix("\n")), made
    for part in (made.out[:12], "acme", "service", "until 20"):
        assert part in made.err
    assert made.out.strip() not in made.err


def test_what_is_kept_of_a_key_is_its_digest_for_the_owner_only(operator: Operator) -> None:
    key = operator.make_key("acme", "service", "viewer")
    [kept] = json.loads(operator.keys.read_bytes())["keys"]
    assert kept["digest"] == hashlib.sha256(key.encode()).hexdigest()
    assert (kept["tenant_id"], kept["roles"]) == ("acme", ["service", "viewer"])
    assert mode(operator.keys) == 0o600
    secret = key[13:]
    for path in operator.folder.iterdir():
        assert secret not in path.read_text(), path


def test_the_list_tells_keys_apart_without_showing_them(operator: Operator) -> None:
    plain = operator.make_key("acme", "service")
    limited = create(operator, "--name", "for the night", "--expires", "12h").out.strip()
    other = operator.make_key("umbrella", "admin", "viewer")
    revoked = operator.make_key("acme")
    assert operator.run("apikeys", "revoke", revoked[:12]).code == 0
    listed = operator.listed()
    assert [(one["prefix"], one["state"]) for one in listed] == [
        (plain[:12], "active"),
        (limited[:12], "active"),
        (other[:12], "active"),
        (revoked[:12], "revoked"),
    ]
    assert set(listed[0]) == {
        "prefix", "tenant_id", "roles", "name", "created_at", "expires_at", "revoked_at", "state",
    }  # fmt: skip
    in_hours = datetime.fromisoformat(listed[1]["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11) < in_hours <= timedelta(hours=12)
    for_people = operator.run("apikeys", "list", "--tenant", "umbrella").out.splitlines()
    header, row = (re.split(r"  +", line) for line in for_people)
    assert header == ["PREFIX", "TENANT", "ROLES", "NAME", "CREATED", "EXPIRES", "STATE"]
    assert row[:4] == [other[:12], "umbrella", "admin,viewer", "-"] and row[5:] == ["-", "active"]
    assert [one["prefix"] for one in operator.listed("--tenant", "umbrella")] == [other[:12]]


def test_before_the_first_key_the_list_is_empty(operator: Operator) -> None:
    assert operator.listed() == []
    assert not operator.keys.exists()


def test_an_exact_time_ends_a_key(operator: Operator) -> None:
    create(operator, "--expires", "2099-12-31T22:00:00-03:00")
    [kept] = operator.listed()
    assert kept["expires_at"] == "2100-01-01T01:00:00+00:00"


def test_doubts_are_said_and_do_not_prevent_the_key(operator: Operator) -> None:
    made = create(operator.having(GATEWAY_TENANT_ALLOWLIST="umbrella"), "--role", "auditor")
    assert made.code == 0 and KEY.fullmatch(made.out.strip())
    tenant, role = [line for line in made.err.splitlines() if line.startswith("warning: ")]
    assert "acme" in tenant and "GATEWAY_TENANT_ALLOWLIST" in tenant
    assert "auditor" in role and "admin, operator, service, viewer" in role


def test_roles_that_cannot_be_read_are_a_doubt_too(operator: Operator) -> None:
    broken = operator.folder / "roles.toml"
    broken.write_text("[service\n")
    made = create(operator.having(ROLES_FILE=str(broken)))
    assert made.code == 0 and "it cannot be told which roles there are" in made.err


def test_what_cannot_be_meant_is_refused_before_anything_is_done(operator: Operator) -> None:
    refused = operator.run("apikeys", "create", "--tenant", "a b", "--role", "service")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines()[-1] == (
        "Error: Invalid value for '--tenant': expected 1 to 64 of A-Z a-z 0-9 _ . : -."
    )
    assert list(operator.folder.iterdir()) == []


def test_a_whole_key_in_the_place_of_its_prefix_is_not_repeated(operator: Operator) -> None:
    key = operator.make_key()
    ended = operator.run("apikeys", "revoke", key)
    assert ended.code == 2 and key not in ended.err and "first 12 characters" in ended.err
    assert operator.listed()[0]["state"] == "active"


# -- let in, and revoked -----------------------------------------------------------------------------------


def test_a_key_lets_in_until_it_is_revoked(operator: Operator, nats: NatsServer) -> None:
    early = operator.make_key()
    environment = {
        "AUTH_MODE": "api_key",
        "TRUSTED_PROXIES": None,
        "APIKEYS_FILE": str(operator.keys),
        "RBAC_CACHE_TTL_MS": str(TTL_MS),
        "RBAC_DENY_TTL_MS": "100",
    }
    with (
        GatewayProcess(nats.url, environment=environment) as gateway,
        gateway.client(headers={}) as client,
    ):

        def status(key: str) -> int:
            return client.get(AN_ID, {"Authorization": f"Bearer {key}"}).status

        assert status(early) == 404
        late = operator.make_key("umbrella", "viewer")
        assert status(late) == 404, "made while the gateway runs"
        assert operator.run("apikeys", "revoke", early[:12]).code == 0
        # Two workers: refused by whichever answers.
        wait_until(
            lambda: {status(early) for _ in range(8)} == {401},
            GENEROUS_SECONDS,
            "the revoked key still lets in",
        )
        assert status(late) == 404
    assert early not in gateway.output() and late not in gateway.output()


def test_revoking_twice_changes_nothing_and_says_so(operator: Operator) -> None:
    prefix = operator.make_key()[:12]
    assert operator.run("apikeys", "revoke", prefix).code == 0
    once, acts = operator.keys.read_bytes(), operator.acts()
    again = operator.run("apikeys", "revoke", prefix)
    assert again.code == 0 and "already" in again.out
    assert (operator.keys.read_bytes(), operator.acts()) == (once, acts)


def test_a_prefix_that_no_key_has_is_not_found(operator: Operator) -> None:
    operator.make_key()
    before = operator.keys.read_bytes()
    ended = operator.run("apikeys", "revoke", "blk_00000000")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "there is no key blk_00000000\n"
    assert operator.keys.read_bytes() == before


# -- the file ------------------------------------------------------------------------------------------------


def test_operators_at_once_lose_none_of_each_others_keys(operator: Operator) -> None:
    first = operator.make_key("umbrella")
    created = ("apikeys", "create", "--tenant", "acme", "--role", "service")
    ended = all_at_once(operator, *[created] * 6, ("apikeys", "revoke", first[:12]))
    assert [one.code for one in ended] == [0] * 7, ended
    made = {one.out.strip() for one in ended[:6]}
    assert len(made) == 6
    assert {one["prefix"] for one in operator.listed("--tenant", "acme")} == {
        key[:12] for key in made
    }
    assert operator.listed("--tenant", "umbrella")[0]["state"] == "revoked"


def test_a_command_waits_for_another_operators_change(operator: Operator) -> None:
    created = ("apikeys", "create", "--tenant", "acme", "--role", "service")
    with in_the_middle(operator, *created) as process:
        assert not operator.keys.exists()
    assert process.returncode == 0
    assert [one["tenant_id"] for one in operator.listed()] == ["acme"]


def test_the_mode_that_an_operator_gave_the_file_is_kept(operator: Operator) -> None:
    operator.make_key()
    operator.keys.chmod(0o640)  # its group is the gateway's
    operator.make_key()
    assert mode(operator.keys) == 0o640


def test_a_link_to_the_file_stays_one(operator: Operator) -> None:
    elsewhere = operator.folder / "elsewhere"
    elsewhere.mkdir()
    operator.keys.symlink_to(elsewhere / "real.json")
    operator.make_key()
    assert operator.keys.is_symlink() and (elsewhere / "real.json").is_file()


@pytest.mark.parametrize(
    "content", [b"", b'{"keys": [{"prefix": "blk_1"}]}'], ids=["empty", "half a key"]
)
def test_a_file_that_cannot_be_read_is_left_as_it_is(operator: Operator, content: bytes) -> None:
    operator.keys.write_bytes(content)
    listed = operator.run("apikeys", "list")
    assert (listed.code, listed.out) == (3, ""), listed
    assert listed.err.startswith("APIKEYS_FILE: ") and len(listed.err.splitlines()) == 1
    made = create(operator)
    assert (made.code, made.out) == (3, ""), made
    assert operator.keys.read_bytes() == content
    assert operator.acts() == [("apikeys.create", "started"), ("apikeys.create", "failed")]


def test_a_folder_that_is_not_there_is_told(operator: Operator) -> None:
    made = create(operator.having(APIKEYS_FILE=str(operator.folder / "not" / "there.json")))
    assert (made.code, made.out) == (3, ""), made
    assert "there is no folder" in made.err


def test_a_wrong_environment_is_told_by_its_variable(operator: Operator) -> None:
    made = create(operator.having(APIKEYS_SOURCE="vault"))
    assert (made.code, made.out) == (2, "")
    assert made.err.startswith("APIKEYS_SOURCE: ")
