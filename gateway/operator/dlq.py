"""``beamline-gateway dlq``: dead letters are listed, shown, and sent again when their cause is mended."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime
from functools import partial

import click

from bridge import Bus
from gateway.operations import dead_letters
from gateway.operations.dead_letters import DeadLetter
from gateway.operator.audit_log import audit_log
from gateway.operator.bus import NOT_FOUND, Needs, Run, fail, operator_bus, operator_settings
from gateway.operator.table import printable
from gateway.settings import Settings

_READS = (dead_letters.STREAM,)


def needs_of_replay(settings: Settings) -> Needs:
    """To publish wherever a letter may be from; and to read the stream of a message that no letter could hold."""
    assignments = settings.assignment_subject
    return Needs(
        reads=(*_READS, "BEAMLINE_EXEC"),
        publishes=(
            assignments,
            f"{assignments}.ack",
            settings.result_subject,
            settings.usage_subject,
        ),
    )


@click.group()
def dlq() -> None:
    """Dead letters: messages that were given up."""


@dlq.command("list")
@click.option("--tenant", default=None, help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_letters(tenant: str | None, as_json: bool) -> None:
    """List them, oldest first."""
    with operator_bus(operator_settings(), Needs(reads=_READS)) as run:
        for letter in run(lambda bus: _collect(bus, tenant)):
            if as_json:
                click.echo(json.dumps({"seq": letter.seq, **letter.body}))
                continue
            body = letter.body
            at = datetime.fromtimestamp(body["timestamp"] / 1000, UTC)
            line = (
                f"{letter.seq:>6}  {at:%Y-%m-%d %H:%M:%S}  {body.get('tenant_id', '-')!s:<20}"
                f"  {body['original_subject']}  {body['error_code']}: {body['reason']}"
            )
            click.echo(printable(line))


@dlq.command()
@click.argument("seq", type=int)
def show(seq: int) -> None:
    """Show one, its payload readable."""
    with operator_bus(operator_settings(), Needs(reads=_READS)) as run:
        letter = _one(run, seq)
    payload = base64.b64decode(letter.body["payload"]).decode("utf-8", "replace")
    click.echo(json.dumps({"seq": letter.seq, **letter.body, "payload": payload}, indent=2))


@dlq.command()
@click.argument("seqs", type=int, nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="Every dead letter.")
@click.option("--tenant", default=None, help="With --all: only this tenant's.")
def replay(seqs: tuple[int, ...], all_of_them: bool, tenant: str | None) -> None:
    """Send the original messages again, under new ids."""
    if bool(seqs) == all_of_them:
        raise click.UsageError("name the sequences, or say --all")
    settings = operator_settings()
    with operator_bus(settings, needs_of_replay(settings)) as run, audit_log(settings) as log:
        letters = [_one(run, seq) for seq in seqs]
        if all_of_them:
            letters = run(lambda bus: _collect(bus, tenant))
        lost = 0
        for letter in letters:
            try:
                with log.act(
                    "dlq.replay",
                    tenant_id=_tenant(letter),
                    target=f"{dead_letters.STREAM}/{letter.seq}",
                    details={"original_subject": letter.body["original_subject"]},
                ) as came_of_it:
                    ack = run(partial(dead_letters.replay, letter=letter))
                    came_of_it |= {"stream": ack.stream, "seq": ack.seq}
                    came_of_it["replayed_before"] = ack.duplicate
            except dead_letters.Lost as error:
                click.echo(str(error), err=True)
                lost += 1
                continue
            again = " (was replayed already)" if ack.duplicate else ""
            click.echo(f"{letter.seq} → {ack.stream}/{ack.seq}{again}")
        if lost:
            sys.exit(NOT_FOUND)


async def _collect(bus: Bus, tenant: str | None) -> list[DeadLetter]:
    return [
        letter
        async for letter in dead_letters.letters(bus)
        if tenant is None or letter.body.get("tenant_id") == tenant
    ]


def _one(run: Run, seq: int) -> DeadLetter:
    async def find(bus: Bus) -> DeadLetter | None:
        async for letter in dead_letters.letters(bus, start=seq):
            return letter if letter.seq == seq else None
        return None

    letter = run(find)
    if letter is None:
        fail(f"there is no dead letter {seq}", NOT_FOUND)
    return letter


def _tenant(letter: DeadLetter) -> str | None:
    tenant_id = letter.body.get("tenant_id")
    return tenant_id if isinstance(tenant_id, str) else None
