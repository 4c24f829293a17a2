"""The audit log: who did what, when, to which tenant; written before it is done, or it is not done."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import DECIDE
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_session import NatsSession
from tests.support.operators import Operator, all_at_once, in_the_middle
from tests.support.result_messages import (
    DLQ,
    EXEC,
    publish,
    result_body,
    result_headers,
)
from tests.support.scripted_router import ScriptedRouter
from tests.support.sticky_sessions import Providers, chosen, new_session, session_body
from tests.support.waiting import wait_until

CREATE = ("apikeys", "create", "--tenant", "acme", "--role", "service")
FIELDS = ["at", "id", "who", "action", "tenant_id", "target", "details", "outcome"]
SECRET = "a-planted-secret"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    roles = tmp_path / "in-force.toml"
    roles.write_text('[service]\npermissions = ["status:read"]\n')
    return Operator(tmp_path, variables={"ROLES_FILE": str(roles)})


@pytest.fixture
def wanted(tmp_path: Path) -> str:
    """A document to apply."""
    path = tmp_path / "wanted.toml"
    path.write_text("[service]\npermissions = []\n")
    return str(path)


@pytest.fixture
def refusing() -> Iterator[tuple[NatsServer, NatsSession, str]]:
    """NATS after a gateway has given two messages up and a session has got its provider: the session."""
    session_id = new_session()
    settings = {"GATEWAY_TENANT_ALLOWLIST": "acme", "NATS_MAX_DELIVER": "1", "WEB_CONCURRENCY": "1"}
    with (
        NatsServer(name="audited") as nats,
        NatsSession(nats.url, name="worker") as worker,
    ):
        with (
            GatewayProcess(nats.url, environment=settings) as gateway,
            ScriptedRouter(nats.url, Providers()),
            gateway.client() as client,
        ):
            chosen(client.post(DECIDE, session_body(session_id)))
            for tenant in ("umbrella", "initech"):
                publish(worker, result_body(error=SECRET), result_headers(tenant))
            wait_until(lambda: worker.last_sequence(DLQ) == 2)
        yield nats, worker, session_id


# -- what is written --------------------------------------------------------------------------------------------


def test_each_act_is_written_before_and_after(operator: Operator) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    key = operator.make_key("acme", "service")
    started, done = operator.records()
    assert list(started) == list(done) == FIELDS
    assert (started["outcome"], done["outcome"]) == ("started", "done")
    assert {**started, "at": done["at"], "outcome": "done"} == done
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started["at"])
    at = datetime.fromisoformat(started["at"])
    assert before <= at <= datetime.fromisoformat(done["at"]) <= datetime.now(UTC)
    assert (done["action"], done["tenant_id"], done["target"]) == (
        "apikeys.create",
        "acme",
        key[:12],
    )
    assert done["details"]["roles"] == ["service"]
    assert stat.S_IMODE(operator.log.stat().st_mode) == 0o600


def test_who_is_who_the_system_says_and_not_the_environment(operator: Operator) -> None:
    operator.having(USER="somebody", LOGNAME="somebody").make_key()
    operator.having(SUDO_USER="alice").make_key()
    plain, _, by_sudo, _ = (record["who"] for record in operator.records())
    assert plain == {
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "uid": os.getuid(),
        "host": socket.gethostname(),
    }
    assert by_sudo == {**plain, "sudo_user": "alice"}


def test_everything_that_operators_change_is_written(
    operator: Operator, wanted: str, refusing: tuple[NatsServer, NatsSession, str]
) -> None:
    nats, _, session_id = refusing
    operator = Operator(operator.folder, nats.url, operator.variables)
    key = operator.make_key("acme", "service")
    shown = operator.run("sticky", "show", "--json", "--tenant", "acme", session_id)
    for arguments in (
        ("apikeys", "revoke", key[:12]),
        ("roles", "apply", wanted),
        ("sticky", "drop", "--tenant", "acme", session_id),
        ("dlq", "replay", "--all"),
    ):
        assert operator.run(*arguments).code == 0, arguments
    records = operator.records()
    assert [record["outcome"] for record in records] == ["started", "done"] * 6
    done = records[1::2]
    assert [(one["action"], one["tenant_id"], one["target"]) for one in done[:2]] == [
        ("apikeys.create", "acme", key[:12]),
        ("apikeys.revoke", "acme", key[:12]),
    ]
    roles, sticky, *replays = done[2:]
    assert (roles["action"], roles["tenant_id"]) == ("roles.apply", None)
    assert roles["target"].startswith("sha256:")
    assert roles["details"]["changes"] == {"service": ["-status:read"]}
    document = json.loads(shown.out)
    assert (sticky["action"], sticky["tenant_id"], sticky["target"]) == (
        "sticky.drop", "acme", document["key"],
    )  # fmt: skip
    assert sticky["details"] == {"provider": document["provider_id"]}
    assert [(one["action"], one["tenant_id"], one["target"]) for one in replays] == [
        ("dlq.replay", "umbrella", f"{DLQ}/1"),
        ("dlq.replay", "initech", f"{DLQ}/2"),
    ]
    assert replays[0]["details"]["stream"] == EXEC
    # What only looks is not written, and nothing that is secret or personal ever is.
    for looking in ("apikeys list", "roles show", "dlq list", "audit"):
        assert operator.run(*looking.split()).code == 0
    assert operator.records() == records
    text = operator.log.read_text()
    for never in (key, key[13:], session_id, SECRET):
        assert never not in text


def test_an_act_that_fails_is_written_as_failed(operator: Operator) -> None:
    operator.keys.write_text("no keys")
    assert operator.run(*CREATE).code == 3
    assert operator.acts() == [("apikeys.create", "started"), ("apikeys.create", "failed")]
    assert "is not JSON" in operator.records()[1]["details"]["error"]


def test_a_command_that_is_killed_leaves_that_it_was_started(operator: Operator) -> None:
    with in_the_middle(operator, *CREATE) as process:
        process.kill()
    assert operator.acts() == [("apikeys.create", "started")]
    assert operator.run("audit").out.split()[-1] == "started"
    assert operator.listed() == []


def test_what_came_of_an_interrupted_act_is_written_as_unknown(operator: Operator) -> None:
    with in_the_middle(operator, *CREATE) as process:
        process.send_signal(signal.SIGINT)
        process.wait()
    assert operator.acts() == [("apikeys.create", "started"), ("apikeys.create", "unknown")]


def test_lines_of_commands_at_once_are_whole(operator: Operator) -> None:
    ended = all_at_once(operator, *[CREATE] * 6)
    assert [one.code for one in ended] == [0] * 6
    records = operator.records()
    assert sorted(record["outcome"] for record in records) == ["done"] * 6 + ["started"] * 6
    assert len({record["id"] for record in records}) == 6


def test_a_line_that_was_cut_off_spoils_no_other(operator: Operator) -> None:
    operator.log.write_text('{"at": "2026-01-01T00:00:00.000Z", "who')
    key = operator.make_key()
    shown = operator.run("audit", "--json")
    assert shown.code == 0
    assert [line["target"] for line in shown.lines()] == [key[:12]] * 2
    assert "1 line(s)" in shown.err
    assert len(operator.log.read_text().splitlines()) == 3


# -- what cannot be written is not done ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/no/such/folder/audit.log", "/", "/dev/full"])
def test_without_a_log_no_key_is_made(operator: Operator, place: str) -> None:
    made = operator.run(*CREATE, AUDIT_LOG_FILE=place)
    assert (made.code, made.out) == (4, ""), made
    [line] = made.err.splitlines()
    assert line.startswith(f"AUDIT_LOG_FILE {place} cannot be written")
    assert "apikeys.create" in line and "was not done" in line
    assert not operator.keys.exists()


def test_without_a_log_nothing_else_is_done_either(
    operator: Operator, wanted: str, refusing: tuple[NatsServer, NatsSession, str]
) -> None:
    nats, worker, session_id = refusing
    operator = Operator(operator.folder, nats.url, operator.variables)
    key = operator.make_key()
    blind = operator.having(AUDIT_LOG_FILE=str(operator.folder))  # which is none
    in_force, stored = Path(operator.variables["ROLES_FILE"]), worker.last_sequence(EXEC)
    roles = in_force.read_text()
    for arguments in (
        ("apikeys", "revoke", key[:12]),
        ("roles", "apply", wanted),
        ("sticky", "drop", "--tenant", "acme", session_id),
        ("dlq", "replay", "--all"),
    ):
        ended = blind.run(*arguments)
        assert ended.code == 4, ended
        assert len(ended.err.splitlines()) == 1
    assert operator.listed()[0]["state"] == "active"
    assert in_force.read_text() == roles
    assert operator.run("sticky", "show", "--tenant", "acme", session_id).code == 0
    assert worker.last_sequence(EXEC) == stored


def test_a_full_disk_leaves_the_log_as_it_was(operator: Operator) -> None:
    operator.make_key()
    before, keys = operator.log.read_bytes(), operator.keys.read_bytes()
    # No file may grow beyond this: half a line fits.
    made = operator.run(*CREATE, prefix=("prlimit", f"--fsize={len(before) + 100}"))
    assert (made.code, made.out) == (4, ""), made
    assert (operator.log.read_bytes(), operator.keys.read_bytes()) == (before, keys)


def test_that_an_outcome_is_not_in_the_log_is_said_and_the_key_shown(operator: Operator) -> None:
    operator.make_key()
    before = operator.log.read_bytes()
    one_line = len(before.splitlines(keepends=True)[0])
    # The line that it is started fits, the outcome does not.
    room = len(before) + one_line + 100
    made = operator.run(*CREATE, prefix=("prlimit", f"--fsize={room}"))
    assert made.code == 6, made
    assert "it does not say that apikeys.create" in made.err
    assert made.out[:12] in {key["prefix"] for key in operator.listed()}
    assert [outcome for _, outcome in operator.acts()] == ["started", "done", "started"]


# -- shown -------------------------------------------------------------------------------------------------------------


def test_audit_shows_an_act_a_line_and_filters_by_tenant(operator: Operator) -> None:
    first, second = operator.make_key("acme"), operator.make_key("umbrella")
    operator.run("apikeys", "revoke", first[:12])
    header, *rows = (re.split(r" {2,}", line) for line in operator.run("audit").out.splitlines())
    assert header == ["AT", "WHO", "ACTION", "TENANT", "TARGET", "OUTCOME"]
    user = pwd.getpwuid(os.getuid()).pw_name
    assert [row[1:] for row in rows] == [
        [user, "apikeys.create", "acme", first[:12], "done"],
        [user, "apikeys.create", "umbrella", second[:12], "done"],
        [user, "apikeys.revoke", "acme", first[:12], "done"],
    ]
    of_one = operator.run("audit", "--tenant", "umbrella", "--json")
    assert of_one.lines() == [
        line for line in operator.records() if line["tenant_id"] == "umbrella"
    ]


def test_where_no_log_is_there_is_nothing_to_show(operator: Operator) -> None:
    ended = operator.run("audit")
    assert (ended.code, ended.out) == (1, "")
    assert str(operator.log) in ended.err
