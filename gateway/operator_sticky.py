"""Commands for operators about sticky sessions: which provider a session is with, and sending it elsewhere.

Exit codes as in `gateway.operator`. The session's field is the one that ``STICKY_SESSION_KEY`` names, so the command
needs the gateway's own value of it.
"""

from __future__ import annotations

import json
import time
from typing import Final

import click

from bridge import Bus, Entry
from gateway.operator import NOT_FOUND, fail, operator_bus, operator_settings
from gateway.sticky import BUCKET, Binding, session_key

_READS: Final = (f"KV_{BUCKET}",)
_SECONDS: Final = 5.0
_tenant = click.option("--tenant", required=True, help="The session's tenant.")
_session = click.argument("session")


@click.group()
def sticky() -> None:
    """Sticky sessions: which provider a session is with."""


@sticky.command()
@_tenant
@_session
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(tenant: str, session: str, as_json: bool) -> None:
    """Show a session's provider, how often it has moved (its generation), and why the Router chose it.

    SESSION is the value of the field that STICKY_SESSION_KEY names. After ``--`` it may begin with a dash.
    """
    key = _key(tenant, session)
    with operator_bus(reads=_READS, publishes=()) as run:
        entry = run(lambda bus: _read(bus, key))
    if entry is None:
        fail(_absent(tenant, session), NOT_FOUND)
    # What is no binding is one that is being made, for the gateway too.
    binding = Binding.decode(entry.value) or Binding(None, 0, "", "")
    if as_json:
        shown = {
            "tenant_id": tenant,
            "session": session,
            "provider_id": binding.provider,
            "generation": binding.generation,
            "reason": binding.reason,
            "since": entry.stored_at,
        }
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    click.echo(f"provider    {binding.provider or '(the Router is being asked)'}")
    click.echo(f"generation  {binding.generation}")
    click.echo(f"reason      {binding.reason or '-'}")
    click.echo(f"since       {entry.stored_at}")


@sticky.command()
@_tenant
@_session
def drop(tenant: str, session: str) -> None:
    """Take a session from its provider: its next request asks the Router freely.

    A worker that served the session within the last second may send it to the old provider until that second is over.
    """
    key = _key(tenant, session)
    with operator_bus(reads=_READS, publishes=(f"$KV.{BUCKET}.>",)) as run:
        dropped = run(lambda bus: _drop(bus, key))
    if dropped is None:
        fail(_absent(tenant, session), NOT_FOUND)
    click.echo(f"dropped (was with {dropped.provider or 'no provider yet'})")


async def _read(bus: Bus, key: str) -> Entry | None:
    return await bus.bucket(BUCKET).get(key, deadline=time.monotonic() + _SECONDS)


async def _drop(bus: Bus, key: str) -> Binding | None:
    """What was there when it was looked at; None: nothing. What comes until the deletion goes with it."""
    entry = await _read(bus, key)
    if entry is None:
        return None
    await bus.bucket(BUCKET).delete(key, deadline=time.monotonic() + _SECONDS)
    return Binding.decode(entry.value) or Binding(None, 0, "", "")


def _key(tenant: str, session: str) -> str:
    field = operator_settings().sticky_session_key
    key = session_key(tenant, field, {field: session})
    if key is None:
        raise click.UsageError("a session is a text of 1 to 512 characters")
    return key


def _absent(tenant: str, session: str) -> str:
    return (
        f"tenant {tenant} has no session {session} (it may have expired; mind STICKY_SESSION_KEY)"
    )
