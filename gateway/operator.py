"""Commands for operators that talk to NATS themselves: dead letters, and what the audit of the streams finds.

They use the gateway's own environment (``NATS_URL`` and credentials) and need no running gateway. Exit codes: 0 done,
1 not found or not healthy, 2 wrong configuration, 3 NATS is not there.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

import click

from bridge import Bridge, BridgeError, Bus
from gateway.app import bridge_config
from gateway.operations import dead_letters
from gateway.operations.dead_letters import DeadLetter
from gateway.settings import Settings, SettingsError

T = TypeVar("T")
NOT_FOUND: Final = 1
CONFIGURATION_ERROR: Final = 2
NATS_UNAVAILABLE: Final = 3
_CONNECT_SECONDS: Final = 5.0
_WORK_SECONDS: Final = 30.0
_LETTERS: Final = (dead_letters.STREAM,)


@click.group()
def dlq() -> None:
    """Dead letters: messages that were given up."""


@dlq.command("list")
@click.option("--tenant", default=None, help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_letters(tenant: str | None, as_json: bool) -> None:
    """List them, oldest first."""
    with operator_bus(reads=_LETTERS) as run:
        for letter in run(lambda bus: _collect(bus, tenant)):
            if as_json:
                click.echo(json.dumps({"seq": letter.seq, **letter.body}))
                continue
            body = letter.body
            at = datetime.fromtimestamp(body["timestamp"] / 1000, UTC)
            click.echo(
                f"{letter.seq:>6}  {at:%Y-%m-%d %H:%M:%S}  {body.get('tenant_id', '-'):<20}"
                f"  {body['original_subject']}  {body['error_code']}: {body['reason']}"
            )


@dlq.command()
@click.argument("seq", type=int)
def show(seq: int) -> None:
    """Show one, its payload readable."""
    with operator_bus(reads=_LETTERS) as run:
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
    with operator_bus(reads=_LETTERS) as run:
        letters = [_one(run, seq) for seq in seqs]
        if all_of_them:
            letters = run(lambda bus: _collect(bus, tenant))
        lost = 0
        for letter in letters:
            try:
                ack = run(lambda bus, letter=letter: dead_letters.replay(bus, letter))  # type: ignore[misc]
            except dead_letters.Lost as error:
                click.echo(str(error), err=True)
                lost += 1
                continue
            again = " (was replayed already)" if ack.duplicate else ""
            click.echo(f"{letter.seq} → {ack.stream}/{ack.seq}{again}")
        if lost:
            sys.exit(NOT_FOUND)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def streams(as_json: bool) -> None:
    """Check streams, buckets and permissions; make what is missing. Exit code 1 if something blocks."""
    settings = operator_settings()
    bridge = Bridge(bridge_config(settings, name="beamline-gateway-cli"))
    bridge.start()
    try:
        bridge.wait_ready(_CONNECT_SECONDS)
        health = bridge.health()
    finally:
        bridge.close(2.0)
    if not health.connected:
        fail(f"NATS: not connected ({health.last_error or 'no answer'})", NATS_UNAVAILABLE)
    if as_json:
        findings = [
            {"resource": f.resource, "message": f.message, "blocking": f.blocking}
            for f in health.findings
        ]
        click.echo(json.dumps({"ready": health.ready, "findings": findings}, indent=2))
    else:
        for finding in health.findings:
            click.echo(f"{'BLOCKS' if finding.blocking else 'note':<6}  {finding}")
        click.echo("ready" if health.ready else "not ready")
    sys.exit(0 if health.ready else NOT_FOUND)


async def _collect(bus: Bus, tenant: str | None) -> list[DeadLetter]:
    return [
        letter
        async for letter in dead_letters.letters(bus)
        if tenant is None or letter.body.get("tenant_id") == tenant
    ]


def _one(run: Callable[..., Any], seq: int) -> DeadLetter:
    async def find(bus: Bus) -> DeadLetter | None:
        async for letter in dead_letters.letters(bus, start=seq):
            return letter if letter.seq == seq else None
        return None

    letter: DeadLetter | None = run(find)
    if letter is None:
        fail(f"there is no dead letter {seq}", NOT_FOUND)
    return letter


@contextmanager
def operator_bus(
    *, reads: tuple[str, ...], publishes: tuple[str, ...] | None = None
) -> Iterator[Callable[[Callable[[Bus], Awaitable[T]]], T]]:
    """Something that runs operations, on a connection of its own; it makes and changes no stream.

    ``publishes``: what the account must be allowed to publish to (None: what the gateway's must).
    """
    serving = bridge_config(operator_settings(), name="beamline-gateway-cli")
    config = replace(
        serving,
        streams=(),
        buckets=(),
        requests=(),
        listens=(),
        consumers=(),
        reads=reads,
        publishes=serving.publishes if publishes is None else publishes,
    )
    bridge = Bridge(config)
    bridge.start()
    try:
        if not bridge.wait_ready(_CONNECT_SECONDS):
            fail("; ".join(bridge.health().missing), NATS_UNAVAILABLE)
        yield lambda operation: bridge.run(operation, time.monotonic() + _WORK_SECONDS)
    except BridgeError as error:
        fail(str(error), NATS_UNAVAILABLE)
    finally:
        bridge.close(2.0)


def operator_settings() -> Settings:
    """The settings, or the end of the process with a line for each wrong variable."""
    # What the connection has to say is said by the command, in one line.
    logging.getLogger("bridge").setLevel(logging.CRITICAL)
    try:
        return Settings.from_environ(os.environ, serving=False)
    except SettingsError as error:
        fail("\n".join(error.problems), CONFIGURATION_ERROR)


def fail(sentence: str, code: int) -> NoReturn:
    """One clear line, and the end."""
    click.echo(sentence, err=True)
    sys.exit(code)
