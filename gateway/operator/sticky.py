"""``beamline-gateway sticky``: which provider a session is with, and sending it elsewhere.

The session's field is the one that ``STICKY_SESSION_KEY`` names, so the command needs the gateway's own value of it.
"""

from __future__ import annotations

import json
import time
from typing import Final

import click

from bridge import Bus, Entry
from gateway.operator import parameters
from gateway.operator.audit_log import audit_log
from gateway.operator.bus import NOT_FOUND, Needs, fail, operator_bus, operator_settings
from gateway.settings import Settings
from gateway.sticky import BUCKET, Binding, session_key

# Not the bucket itself, which the gateway makes, with its TTL.
_NEEDS_TO_SHOW: Final = Needs(reads=(f"KV_{BUCKET}",))
NEEDS_TO_DROP: Final = _NEEDS_TO_SHOW | Needs(publishes=(f"$KV.{BUCKET}.>",))
_SECONDS: Final = 5.0
# What is no binding is one that is being made, for the gateway too.
_BEING_MADE: Final = Binding(None, 0, "", "")
_tenant = click.option(
    "--tenant", type=parameters.tenant, required=True, help="The session's tenant."
)
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
    settings = operator_settings()
    key = _key(settings, tenant, session)
    with operator_bus(settings, _NEEDS_TO_SHOW) as run:
        entry = run(lambda bus: _read(bus, key))
    if entry is None:
        fail(_absent(tenant, session), NOT_FOUND)
    binding = Binding.decode(entry.value) or _BEING_MADE
    if as_json:
        shown = {
            "tenant_id": tenant,
            "session": session,
            "provider_id": binding.provider,
            "generation": binding.generation,
            "reason": binding.reason,
            "since": entry.stored_at,
            "key": key,
        }
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    click.echo(f"provider    {binding.provider or '(the Router is being asked)'}")
    click.echo(f"generation  {binding.generation}")
    click.echo(f"reason      {binding.reason or '-'}")
    click.echo(f"since       {entry.stored_at}")
    click.echo(f"key         {key}")  # what the audit log calls the session


@sticky.command()
@_tenant
@_session
def drop(tenant: str, session: str) -> None:
    """Take a session from its provider: its next request asks the Router freely.

    A worker that served the session within the last second may send it to the old provider until that second is over.
    """
    settings = operator_settings()
    key = _key(settings, tenant, session)
    with operator_bus(settings, NEEDS_TO_DROP) as run, audit_log(settings) as log:
        entry = run(lambda bus: _read(bus, key))
        if entry is None:
            fail(_absent(tenant, session), NOT_FOUND)
        was_with = (Binding.decode(entry.value) or _BEING_MADE).provider
        with log.act("sticky.drop", tenant_id=tenant, target=key, details={"provider": was_with}):
            run(lambda bus: _drop(bus, key))
        click.echo(f"dropped (was with {was_with or 'no provider yet'})")


async def _read(bus: Bus, key: str) -> Entry | None:
    return await bus.bucket(BUCKET).get(key, deadline=time.monotonic() + _SECONDS)


async def _drop(bus: Bus, key: str) -> None:
    """Whatever is there by now: what came since it was looked at goes with it."""
    await bus.bucket(BUCKET).delete(key, deadline=time.monotonic() + _SECONDS)


def _key(settings: Settings, tenant: str, session: str) -> str:
    field = settings.sticky_session_key
    key = session_key(tenant, field, {field: session}) if _is_text(session) else None
    if key is None:
        raise click.UsageError("a session is a text of 1 to 512 characters")
    return key


def _is_text(argument: str) -> bool:
    """Whether the command line held UTF-8: what it did not is here as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absent(tenant: str, session: str) -> str:
    return (
        f"tenant {tenant} has no session {session} (it may have expired; mind STICKY_SESSION_KEY)"
    )
