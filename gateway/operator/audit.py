"""``beamline-gateway audit``: what is written in the audit log."""

from __future__ import annotations

from typing import Any, Final

import click

from gateway.operator import parameters
from gateway.operator.audit_log import records
from gateway.operator.bus import NOT_FOUND, fail, operator_settings
from gateway.operator.table import table

_HEADER: Final = ("AT", "WHO", "ACTION", "TENANT", "TARGET", "OUTCOME")
_LONGEST_TARGET: Final = 24


@click.command()
@click.option(
    "--tenant", type=parameters.tenant, default=None, help="Only what concerned this tenant."
)
@click.option("--json", "as_json", is_flag=True, help="The log's own lines, one JSON object each.")
def audit(tenant: str | None, as_json: bool) -> None:
    """Show what operators did, from AUDIT_LOG_FILE, oldest first.

    An act whose outcome is still "started" was cut off: what came of it is not known.
    """
    path = operator_settings().audit_log_file
    acts: dict[str, dict[str, Any]] = {}
    unreadable = 0
    try:
        for line, record in records(path):
            if record is None:
                unreadable += bool(line)
            elif tenant in (None, record["tenant_id"]):
                if as_json:
                    click.echo(line)
                # The first line says when, the last one what came of it.
                act = acts.setdefault(record["id"], record)
                act["outcome"] = record["outcome"]
    except OSError as error:
        fail(f"AUDIT_LOG_FILE {path} cannot be read: {error.strerror}", NOT_FOUND)
    if not as_json:
        for text in table(_HEADER, map(_row, acts.values())):
            click.echo(text)
    if unreadable:
        click.echo(f"{unreadable} line(s) of {path} cannot be read", err=True)


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    who, target = record["who"], str(record["target"])
    user = who.get("user")
    return (
        record["at"],
        f"{who['sudo_user']} as {user}" if "sudo_user" in who else f"{user}",
        record["action"],
        record["tenant_id"] or "-",
        target if len(target) <= _LONGEST_TARGET else f"{target[: _LONGEST_TARGET - 1]}…",
        record["outcome"],
    )
