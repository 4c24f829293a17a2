"""``beamline-gateway backup`` and ``restore``: what was there is there again, and what happened once has happened."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backups import ALL, Site, running_site
from tests.support.documents import ASSIGNMENTS, DECIDE, USAGE, assignment_body, usage_body
from tests.support.idempotency_operations import expect_replay
from tests.support.load import Load
from tests.support.nats_session import NatsSession
from tests.support.result_messages import publish, result_headers, until_consumed
from tests.support.sticky_sessions import Chosen, chosen, session_body
from tests.support.waiting import wait_until

TTL_SECONDS = 300
RESTART_NEEDED = 7


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site("backups", tmp_path) as started:
        yield started


def test_backup_wipe_restore_and_nothing_happens_twice(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with site.serving() as gateway:
        work = site.work(gateway)
        made = site.keeper.run("backup", str(backup))
        assert made.code == 0, made
    before = site.streams()
    assert set(before) == set(ALL)

    site.wipe()
    assert site.streams() == {}
    restored = site.keeper.run("restore", str(backup))
    assert restored.code == RESTART_NEEDED, restored
    assert "restart every node" in restored.err
    assert site.keeper.run("restore", str(backup), "--check").code == RESTART_NEEDED
    site.restart()
    checked = site.keeper.run("restore", str(backup), "--check")
    assert (checked.code, checked.out) == (0, "as in the backup, or further\n"), checked
    assert site.streams() == before

    with site.serving() as gateway, site.session() as session, site.router() as router:
        for path, body, first in work.asked:
            expect_replay(first, site.ask(gateway, path, body), ttl_seconds=TTL_SECONDS)
        # Reported by somebody else, or once more by the worker: metered already.
        again = usage_body(assignment_id=work.result["assignment_id"])
        assert site.ask(gateway, USAGE, again).json()["duplicate_of"] == "result"
        publish(session, work.result, result_headers())
        until_consumed(session)
        answer = site.ask(gateway, DECIDE, session_body(work.session))
        assert chosen(answer) == Chosen(work.provider, "hit")
        assert len(router.requests()) == 1
        assert site.streams()["BEAMLINE_USAGE"] == before["BEAMLINE_USAGE"]
        assert site.streams()["BEAMLINE_DLQ"] == before["BEAMLINE_DLQ"]
        # The assignment, the ack, the result; and the result that the worker sent again.
        assert site.streams()["BEAMLINE_EXEC"] == (before["BEAMLINE_EXEC"][0] + 1,) * 2
        # And what is new happens.
        assert site.ask(gateway, ASSIGNMENTS, assignment_body()).status == 202


def test_what_the_restore_checks_is_not_stored(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with site.serving() as gateway:
        site.work(gateway)
    before = site.streams()
    assert site.keeper.run("backup", str(backup)).code == 0
    assert site.keeper.run("restore", str(backup), "--check").code == 0
    assert site.streams() == before


def test_back_at_an_older_point_what_came_later_is_not_known(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    early, late = assignment_body(), assignment_body()
    with site.serving() as gateway:
        known = site.ask(gateway, ASSIGNMENTS, early)
        assert site.keeper.run("backup", str(backup)).code == 0
        assert site.ask(gateway, ASSIGNMENTS, late).status == 202
    assert site.keeper.run("restore", str(backup), "--replace").code == RESTART_NEEDED
    site.restart()
    with site.serving() as gateway:
        expect_replay(known, site.ask(gateway, ASSIGNMENTS, early), ttl_seconds=TTL_SECONDS)
        answer = site.ask(gateway, ASSIGNMENTS, late)
        assert answer.status == 202 and answer.header("Idempotency-Replayed") is None


def test_entries_live_on_for_what_remained_of_their_time(tmp_path: Path) -> None:
    ttl_seconds = 3
    short = {"IDEMPOTENCY_TTL_MS": str(ttl_seconds * 1000)}
    backup = tmp_path / "backup"
    with running_site("short", tmp_path, short) as site:
        body = assignment_body()
        with site.serving() as gateway:
            assert site.ask(gateway, ASSIGNMENTS, body).status == 202
            assert site.keeper.run("backup", str(backup)).code == 0
        with site.session() as session:
            wait_until(lambda: _is_empty(session, "KV_BEAMLINE_IDEMPOTENCY"))
        site.wipe()
        assert site.keeper.run("restore", str(backup)).code == RESTART_NEEDED
        site.restart()
        assert site.keeper.run("restore", str(backup), "--check").code == 0
        with site.session() as session:
            wait_until(lambda: _is_empty(session, "KV_BEAMLINE_IDEMPOTENCY"))
        with site.serving() as gateway:  # as if nothing had been wiped: the id is free again
            again = site.ask(gateway, ASSIGNMENTS, body)
            assert again.status == 202 and again.header("Idempotency-Replayed") is None


def _is_empty(session: NatsSession, stream: str) -> bool:
    """By its count: whoever reads messages waits in vain for those that expire meanwhile."""
    return session.stream_info(stream).state.messages == 0


def test_taken_under_load_every_message_has_its_claim(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    headers = {"Authorization": f"Bearer {site.key}"}
    with (
        site.serving() as gateway,
        Load(
            lambda: gateway.client(headers),
            lambda client: client.post(ASSIGNMENTS, assignment_body()),
            clients=2,
        ) as load,
    ):
        wait_until(lambda: len(load.outcomes()) > 20)
        assert site.keeper.run("backup", str(backup)).code == 0
        so_far = len(load.outcomes())
        wait_until(lambda: len(load.outcomes()) > so_far)
    assert {outcome.kind for outcome in load.outcomes()} == {"202"}
    site.wipe()
    assert site.keeper.run("restore", str(backup)).code == RESTART_NEEDED
    with site.session() as session:
        claims = {
            json.loads(message.payload)["claim"]
            for message in session.stream_messages("KV_BEAMLINE_IDEMPOTENCY")
        }
        ids = [
            message.headers["Nats-Msg-Id"] for message in session.stream_messages("BEAMLINE_EXEC")
        ]
    assert len(ids) >= 20
    assert [id for id in ids if not any(claim in id for claim in claims)] == []


def test_nothing_that_is_there_is_overwritten_unless_told(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with site.serving() as gateway:
        assert site.ask(gateway, ASSIGNMENTS, assignment_body()).status == 202
        assert site.keeper.run("backup", str(backup)).code == 0
        assert site.ask(gateway, ASSIGNMENTS, assignment_body()).status == 202
    before = site.streams()
    refused = site.keeper.run("restore", str(backup))
    assert (refused.code, refused.out) == (1, "")
    assert "BEAMLINE_EXEC, BEAMLINE_USAGE" in refused.err and "nothing was done" in refused.err
    assert site.streams() == before
    assert site.keeper.run("restore", str(backup), "--replace").code == RESTART_NEEDED
    assert site.streams()["BEAMLINE_EXEC"] == (1, 1)


def test_one_stream_alone(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    made = site.keeper.run("backup", str(backup), "--stream", "KV_BEAMLINE_APIKEYS")
    assert made.code == 0, made
    assert {path.name for path in backup.iterdir()} == {
        "manifest.json",
        "KV_BEAMLINE_APIKEYS.snapshot",
    }
    site.wipe()
    refused = site.keeper.run("restore", str(backup), "--replicas", "3")
    assert refused.code == 1 and "replicas" in refused.err, refused  # of one node
    assert site.streams() == {}
    # An entry of a bucket has no id, so nothing has to be started again for it.
    assert site.keeper.run("restore", str(backup)).code == 0
    assert site.streams() == {"KV_BEAMLINE_APIKEYS": (1, 1)}
    assert site.keeper.run("restore", str(backup), "--stream", "BEAMLINE_EXEC").code == 1
    assert site.keeper.run("backup", str(tmp_path / "b2"), "--stream", "NOT_THERE").code == 3


def test_a_backup_is_its_owners_alone_and_goes_into_an_empty_folder(
    site: Site, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    assert site.keeper.run("backup", str(backup)).code == 0
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in backup.iterdir()} == {0o600}
    again = site.keeper.run("backup", str(backup))
    assert again.code == 3 and "not empty" in again.err


def test_a_damaged_backup_is_not_begun_with(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert site.keeper.run("backup", str(backup)).code == 0
    site.wipe()
    file = backup / "KV_BEAMLINE_ROLES.snapshot"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    refused = site.keeper.run("restore", str(backup))
    assert refused.code == 1 and "KV_BEAMLINE_ROLES" in refused.err, refused
    (backup / "manifest.json").unlink()
    refused = site.keeper.run("restore", str(backup))
    assert refused.code == 1 and "no whole backup" in refused.err
    assert site.streams() == {}


def test_what_was_done_is_in_the_audit_log_or_it_is_not_done(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert site.keeper.run("backup", str(backup)).code == 0
    site.wipe()
    dark = str(tmp_path / "nowhere" / "audit.log")
    assert site.keeper.run("restore", str(backup), AUDIT_LOG_FILE=dark).code == 4
    assert site.streams() == {}
    assert site.keeper.run("backup", str(tmp_path / "b2"), AUDIT_LOG_FILE=dark).code in (1, 4)
    assert not (tmp_path / "b2" / "manifest.json").exists()
    assert site.keeper.run("restore", str(backup)).code == 0
    assert site.audited() == [
        ("backup", str(backup), "started"),
        ("backup", str(backup), "done"),
        *(
            ("restore", stream, outcome)
            for stream in ("KV_BEAMLINE_APIKEYS", "KV_BEAMLINE_ROLES")
            for outcome in ("started", "done")
        ),
    ]


def test_who_may_not_is_told_what_is_missing(site: Site, tmp_path: Path) -> None:
    operators = site.keeper.having(NATS_USER="operator")
    refused = operators.run("backup", str(tmp_path / "backup"))
    assert refused.code == 3 and "$JS.API.STREAM.SNAPSHOT.BEAMLINE_EXEC" in refused.err
    assert not (tmp_path / "backup").exists()
