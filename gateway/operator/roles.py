"""``beamline-gateway roles``: what each role may do; shown, checked, and applied as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from gateway.access.roles import LARGEST_DOCUMENT, InvalidRoles, Roles, parse
from gateway.operator.audit_log import audit_log
from gateway.operator.bus import (
    CHANGED_MEANWHILE,
    CONFIGURATION_ERROR,
    NOT_FOUND,
    UNAVAILABLE,
    fail,
    operator_settings,
)
from gateway.operator.files import FileUnavailable
from gateway.operator.role_store import Changed, InForce, role_store
from gateway.operator.table import printable

_document = click.argument("document", metavar="FILE", type=click.File("rb"))


@click.group()
def roles() -> None:
    """Roles: what the bearer of a key or token may do."""


@roles.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: role → permissions.")
def show(as_json: bool) -> None:
    """Show what is in force, as the document that FILE would be; where it is from goes to standard error.

    Exit code 1 if there is none or it has mistakes: then nobody may do anything.
    """
    with role_store(operator_settings()) as store:
        in_force = store.read()
    if not as_json:
        click.echo(f"In force: {in_force.origin}", err=True)
        if in_force.document is not None:
            click.echo(in_force.document, nl=False)
    elif in_force.roles is not None:
        granted = {role: sorted(there) for role, there in in_force.roles.items()}
        click.echo(json.dumps({"origin": in_force.origin, "roles": granted}, ensure_ascii=False))
    if problems := _problems(in_force):
        fail(problems, NOT_FOUND)


@roles.command()
@_document
def check(document: BinaryIO) -> None:
    """Check a document of roles: a line for each mistake, and then exit code 1."""
    found = _checked(document)[1]
    click.echo(f"{len(found)} role{'s' * (len(found) != 1)}: {', '.join(found)}")


@roles.command()
@_document
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def apply(document: BinaryIO, dry_run: bool) -> None:
    """Check a document of roles, say what it changes, and put it in force.

    It goes to the bucket BEAMLINE_ROLES with ROLES_SOURCE=bucket, else to ROLES_FILE. Every worker follows within
    RBAC_CACHE_TTL_MS.
    """
    content, wanted = _checked(document)
    settings = operator_settings()
    if settings.roles_source == "file" and settings.roles_file is None:
        fail(
            "ROLES_FILE: expected the file to write to, or ROLES_SOURCE=bucket", CONFIGURATION_ERROR
        )
    with role_store(settings) as store, audit_log(settings) as log:
        before = store.read()
        if before.document == content:
            click.echo(f"{before.origin} is this document already")
            return
        changes = dict(_changes(before.roles or {}, wanted))
        for role, change in changes.items():
            click.echo(f"{role}: {', '.join(change)}")
        if not changes:
            click.echo("no permission changes")
        if dry_run:
            return
        target = _digest(content)
        details = {
            "source": settings.roles_source,
            "before": None if before.document is None else _digest(before.document),
            "changes": changes,
        }
        try:
            with log.act("roles.apply", tenant_id=None, target=target, details=details):
                store.replace(content, before)
        except Changed:
            fail(f"{before.origin} was changed meanwhile; look again", CHANGED_MEANWHILE)
        except FileUnavailable as error:
            fail(f"ROLES_FILE: {error}", UNAVAILABLE)
        within = f"{settings.rbac_cache_ttl_ms / 1000:g} s"
        click.echo(f"applied to {before.origin}; in force everywhere within {within}", err=True)


def _checked(document: BinaryIO) -> tuple[bytes, Roles]:
    """What the file holds; the end of the process, with a line a mistake, where that is no document of roles."""
    try:
        content = document.read(LARGEST_DOCUMENT + 1)
    except OSError as error:  # a folder
        raise click.BadParameter(f"{document.name}: {error.strerror}") from None
    try:
        return content, parse(content)
    except InvalidRoles as error:
        for problem in error.problems:
            click.echo(f"{document.name}: {printable(problem)}", err=True)
        sys.exit(NOT_FOUND)


def _changes(before: Roles, after: Roles) -> Iterator[tuple[str, list[str]]]:
    """Role → what it gains (``+usage:write``) and loses (``-usage:write``)."""
    for role in dict.fromkeys([*before, *after]):
        had, has = before.get(role), after.get(role)
        change = [
            f"+{permission}" for permission in sorted((has or frozenset()) - (had or frozenset()))
        ]
        change += [
            f"-{permission}" for permission in sorted((had or frozenset()) - (has or frozenset()))
        ]
        if had is None:
            change.insert(0, "new")
        elif has is None:
            change.insert(0, "gone")
        if change:
            yield role, change


def _problems(in_force: InForce) -> str:
    if in_force.problems:
        return "\n".join(f"{in_force.origin}: {printable(text)}" for text in in_force.problems)
    if in_force.document is None:
        return f"{in_force.origin} holds no document, so nobody may do anything; `roles apply FILE` puts one there"
    return ""


def _digest(document: bytes) -> str:
    return f"sha256:{hashlib.sha256(document).hexdigest()}"
