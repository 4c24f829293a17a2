"""``beamline-gateway backup`` and ``restore``: streams and buckets into a folder, and back.

In this order, so that what is restored together fits together. A result that the consumer has acknowledged has its
usage event in a snapshot taken later. And a claim whose message is not in the backup is settled by the repeat, which
sends the message; a message whose claim is not there would be sent a second time. So messages come before claims.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from bridge import Bus, Refusal, Refused, Snapshot, Snapshots
from gateway import sticky
from gateway.access import roles
from gateway.bridge_config import bridge_config
from gateway.idempotency import records
from gateway.identity import keys
from gateway.operations import results
from gateway.operator import backup_folder
from gateway.operator.audit_log import AuditLog, audit_log
from gateway.operator.backup_folder import Damaged, Kept
from gateway.operator.bus import (
    NOT_FOUND,
    RESTART_NEEDED,
    UNAVAILABLE,
    Needs,
    Run,
    fail,
    operator_bus,
    operator_settings,
)
from gateway.operator.files import FileUnavailable
from gateway.settings import Settings

_BUCKETS: Final = (
    records.BUCKET,
    results.BUCKET,
    sticky.BUCKET,
    keys.BUCKET,
    roles.BUCKET,
)
_LONGEST_SECONDS: Final = 24 * 60 * 60.0
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RESTART: Final = (
    "NATS does not know the ids of the restored messages before it is started again: restart every node, one after the"
    " other, then ask `beamline-gateway restore --check {folder}`, and only then start the gateways"
)


def stream_names(settings: Settings) -> tuple[str, ...]:
    """All that the gateway keeps, in the order in which it is taken."""
    streams = tuple(spec.name for spec in bridge_config(settings).streams)
    return streams + tuple(f"KV_{bucket}" for bucket in _BUCKETS)


def needs_of_backup(streams: Sequence[str]) -> Needs:
    """To read streams as they are."""
    return Needs(publishes=tuple(_api(streams, "INFO", "SNAPSHOT")) + _flow("ACK", streams))


def needs_of_check(streams: Sequence[str], settings: Settings) -> Needs:
    """To look at streams, and to ask them for an id."""
    subjects = tuple(
        subject
        for spec in bridge_config(settings).streams
        if spec.name in streams
        for subject in spec.subjects
    )
    reads = tuple(name for name in streams if not name.startswith("KV_"))
    return Needs(reads=reads, publishes=(*_api(streams, "INFO"), *subjects))


def needs_of_restore(streams: Sequence[str], settings: Settings) -> Needs:
    """To make streams, and to take away what is there or is left of a failure."""
    makes = tuple(_api(streams, "RESTORE", "DELETE")) + _flow("RESTORE", streams)
    return needs_of_check(streams, settings) | Needs(publishes=makes)


def needs_of_all(settings: Settings) -> Needs:
    """What a user for both commands must be allowed."""
    streams = stream_names(settings)
    return needs_of_backup(streams) | needs_of_restore(streams, settings)


def _api(streams: Sequence[str], *verbs: str) -> Iterator[str]:
    return (f"$JS.API.STREAM.{verb}.{stream}" for stream in streams for verb in verbs)


def _flow(kind: str, streams: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"$JS.SNAPSHOT.{kind}.{stream}.>" for stream in streams)


def _stream_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("expected the name of a stream; that of a bucket begins with KV_.")
    return value


_only = click.option(
    "--stream",
    "only",
    multiple=True,
    type=_stream_name,
    help="Only this one; may be given several times.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_only
def backup(folder: Path, only: tuple[str, ...]) -> None:
    """Write all streams and buckets into FOLDER, which must be empty or not there, while they serve.

    Each is whole as of its own moment. Exit code 1: there is nothing to back up, or not what was named.
    """
    settings = operator_settings()
    names = only or stream_names(settings)
    with _files(), operator_bus(settings, needs_of_backup(names), _LONGEST_SECONDS) as run:
        there = [name for name in names if run(partial(_describe, stream=name)) is not None]
        if not there or (only and len(there) < len(only)):
            absent = ", ".join(name for name in names if name not in there)
            fail(f"there is no {absent}", NOT_FOUND)
        with audit_log(settings) as log:
            backup_folder.make(folder)
            with log.act(
                "backup", tenant_id=None, target=str(folder.absolute()), details={"streams": there}
            ) as came_of_it:
                kept = [_take(run, folder, name) for name in there]
                backup_folder.write_manifest(folder, kept)
                came_of_it["bytes"] = sum(one.bytes for one in kept)
    for name in names:
        if name not in there:
            click.echo(f"{name:<24}  is not there")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_only
@click.option("--replicas", type=click.IntRange(1, 5), help="So many, not as many as there were.")
@click.option("--replace", is_flag=True, help="Delete what is there first.")
@click.option(
    "--check", is_flag=True, help="Change nothing; compare what is there with the backup."
)
def restore(
    folder: Path, only: tuple[str, ...], replicas: int | None, replace: bool, check: bool
) -> None:
    """Bring streams and buckets back from FOLDER. Stop all gateways first: they would make empty ones.

    Exit code 7: done, but every node of NATS must be started again before the gateways are.
    """
    if check and (replace or replicas):
        raise click.UsageError("--check changes nothing, so it goes with neither of the others")
    settings = operator_settings()
    with _files():
        wanted = _wanted(folder, only)
        names = [kept.stream for kept in wanted]
        makes = needs_of_check if check else needs_of_restore
        with operator_bus(settings, makes(names, settings), _LONGEST_SECONDS) as run:
            if not check:
                _refuse_what_is_there(run, names, replace)
                with audit_log(settings) as log:
                    for kept in wanted:
                        _bring_back(run, log, folder, kept, replicas)
            _compare(run, wanted, exactly=not check)
            forgetful = [name for name in names if run(partial(_forgets, stream=name))]
    if forgetful:
        click.echo(_RESTART.format(folder=folder), err=True)
        sys.exit(RESTART_NEEDED)
    if check:
        click.echo("as in the backup, or further")


@contextmanager
def _files() -> Iterator[None]:
    """Ends the process where a backup is damaged, or cannot be read or written."""
    try:
        yield
    except Damaged as error:
        fail(str(error), NOT_FOUND)
    except FileUnavailable as error:
        fail(str(error), UNAVAILABLE)
    except OSError as error:
        fail(f"the backup cannot be read or written: {error.strerror}", UNAVAILABLE)


def _take(run: Run, folder: Path, name: str) -> Kept:
    with backup_folder.Writing(folder, name) as writing:

        async def take(bus: Bus) -> Snapshot:
            return await Snapshots(bus).take(name, writing.write)

        snapshot = run(take)
    kept = writing.kept(snapshot)
    click.echo(_line(kept))
    return kept


def _wanted(folder: Path, only: tuple[str, ...]) -> list[Kept]:
    """What is to be restored, every byte of it looked at."""
    found = backup_folder.read_manifest(folder)
    absent = set(only) - {kept.stream for kept in found}
    if absent:
        fail(f"{folder} holds no {', '.join(sorted(absent))}", NOT_FOUND)
    wanted = [kept for kept in found if not only or kept.stream in only]
    for kept in wanted:
        backup_folder.check(folder, kept)
    return wanted


def _refuse_what_is_there(run: Run, names: Sequence[str], replace: bool) -> None:
    there = [name for name in names if run(partial(_describe, stream=name)) is not None]
    if there and not replace:
        fail(
            f"{', '.join(there)}: there already, so nothing was done. Are all gateways stopped? --replace deletes"
            " what is there first",
            NOT_FOUND,
        )


def _bring_back(run: Run, log: AuditLog, folder: Path, kept: Kept, replicas: int | None) -> None:
    snapshot = kept.snapshot.replicated(replicas) if replicas else kept.snapshot

    async def bring_back(bus: Bus) -> bool:
        snapshots = Snapshots(bus)
        was_there = await snapshots.describe(kept.stream) is not None
        if was_there:
            await snapshots.delete(kept.stream)
        await snapshots.restore(kept.stream, snapshot, backup_folder.chunks(folder, kept))
        return was_there

    with log.act(
        "restore",
        tenant_id=None,
        target=kept.stream,
        details={"folder": str(folder.absolute()), "taken_at": kept.taken_at},
    ) as came_of_it:
        try:
            came_of_it["replaced"] = run(bring_back)
        except Refused as error:
            if error.reason is Refusal.PERMISSION:
                raise
            fail(f"{kept.stream}: NATS does not take it: {error}", NOT_FOUND)
    click.echo(_line(kept))


def _compare(run: Run, wanted: Sequence[Kept], *, exactly: bool) -> None:
    """Ends the process where something is not as it was. Entries may have expired, by the time that has passed."""
    wrong = []
    for kept in wanted:
        now = run(partial(_describe, stream=kept.stream))
        was = kept.snapshot.state
        if now is None:
            wrong.append(f"{kept.stream}: is not there")
            continue
        last = now.state["last_seq"]
        if last < was["last_seq"] or (exactly and last != was["last_seq"]):
            wrong.append(f"{kept.stream}: ends at {last}, the backup at {was['last_seq']}")
        elif not kept.snapshot.config.get("max_age") and now.state["messages"] < was["messages"]:
            wrong.append(f"{kept.stream}: {now.state['messages']} messages of {was['messages']}")
        elif now.state["consumer_count"] < was["consumer_count"]:
            wrong.append(f"{kept.stream}: consumers are missing")
    if wrong:
        fail("\n".join(wrong), NOT_FOUND)


async def _describe(bus: Bus, stream: str) -> Snapshot | None:
    return await Snapshots(bus).describe(stream)


async def _forgets(bus: Bus, stream: str) -> bool:
    # The entries of a bucket have no ids.
    return not stream.startswith("KV_") and await Snapshots(bus).forgets_ids(stream)


def _line(kept: Kept) -> str:
    state: Any = kept.snapshot.state
    return f"{kept.stream:<24}  {state['messages']:>10} messages  {kept.bytes:>12} bytes"
