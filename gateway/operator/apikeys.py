"""``beamline-gateway apikeys``: keys are made and shown once, listed without them, and revoked by their prefix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from gateway.identity.keys import ApiKey, new_key
from gateway.operator import key_store, parameters, role_store
from gateway.operator.audit_log import audit_log
from gateway.operator.bus import NOT_FOUND, UNAVAILABLE, fail, operator_settings
from gateway.operator.files import FileUnavailable
from gateway.operator.key_store import KeyStore
from gateway.operator.table import printable, table
from gateway.settings import Settings

_MOST_ROLES = 32


@click.group()
def apikeys() -> None:
    """API keys: who may come in, for which tenant, as what."""


@apikeys.command()
@click.option("--tenant", type=parameters.tenant, required=True, help="Whose key it is.")
@click.option(
    "--role",
    "roles",
    type=parameters.role,
    required=True,
    multiple=True,
    help="What it may do; repeatable.",
)
@click.option("--name", type=parameters.name, default="", help="What it is for, in your words.")
@click.option(
    "--expires",
    type=parameters.expiry,
    default=None,
    help="90d, 12h, or a time such as 2030-01-31T00:00:00Z.",
)
def create(tenant: str, roles: tuple[str, ...], name: str, expires: datetime | None) -> None:
    """Make a key and print it, this once: it is not kept and cannot be shown again.

    Standard output holds the key and nothing else: KEY=$(beamline-gateway apikeys create …).
    """
    roles = tuple(dict.fromkeys(roles))
    if len(roles) > _MOST_ROLES:
        raise click.UsageError(f"a key has at most {_MOST_ROLES} roles")
    settings = operator_settings()
    for doubt in _doubts(settings, tenant, roles):
        click.echo(f"warning: {doubt}", err=True)
    secret = new_key()
    key = ApiKey.of(secret, tenant_id=tenant, roles=roles, name=name, expires_at=expires)
    details = {
        "roles": roles,
        "name": name,
        "expires_at": expires.isoformat() if expires else None,
        "source": settings.apikeys_source,
    }
    with _kept(settings) as store, audit_log(settings) as log:
        with log.act("apikeys.create", tenant_id=tenant, target=key.prefix, details=details):
            store.add(key)
        click.echo(secret)
        until = f"until {_time(expires)}" if expires else "without end"
        click.echo(
            f"{key.prefix} for tenant {tenant} as {', '.join(roles)}, {until};"
            f" works within {settings.rbac_deny_ttl_ms / 1000:g} s",
            err=True,
        )


@apikeys.command("list")
@click.option("--tenant", type=parameters.tenant, default=None, help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_keys(tenant: str | None, as_json: bool) -> None:
    """List them, oldest first. The keys themselves are not kept; their prefixes tell them apart.

    Exit code 3 if an entry cannot be read: the others are listed all the same.
    """
    settings = operator_settings()
    now = datetime.now(UTC)
    with _kept(settings) as store:
        kept = store.read()
    found = [key for key in kept.keys if tenant in (None, key.tenant_id)]
    if as_json:
        for key in found:
            document = {**key.as_json(), "state": key.state(now)}
            del document["digest"]
            click.echo(json.dumps(document, ensure_ascii=False))
    else:
        rows = (
            (
                key.prefix,
                key.tenant_id,
                ",".join(key.roles),
                key.name or "-",
                _time(key.created_at),
                _time(key.expires_at),
                key.state(now),
            )
            for key in found
        )
        for line in table(
            ("PREFIX", "TENANT", "ROLES", "NAME", "CREATED", "EXPIRES", "STATE"), rows
        ):
            click.echo(line)
    if kept.problems:
        fail("\n".join(map(printable, kept.problems)), UNAVAILABLE)


@apikeys.command()
@click.argument("prefix", type=parameters.prefix)
def revoke(prefix: str) -> None:
    """Revoke the key that begins with PREFIX (blk_ and eight more characters).

    Every worker refuses it within RBAC_CACHE_TTL_MS. It stays in the list.
    """
    settings = operator_settings()
    with _kept(settings) as store, audit_log(settings) as log:
        matching = [key for key in store.read().keys if key.prefix == prefix]
        if not matching:
            fail(f"there is no key {prefix}", NOT_FOUND)
        # One, unless somebody has edited the file: prefixes are drawn from 3 million millions.
        for key in matching:
            if key.revoked_at is not None:
                click.echo(f"{prefix} was revoked already, {_time(key.revoked_at)}")
                continue
            try:
                with log.act("apikeys.revoke", tenant_id=key.tenant_id, target=prefix):
                    store.revoke(key, datetime.now(UTC))
            except key_store.Gone:
                fail(f"{prefix} is gone: somebody else removed it", NOT_FOUND)
            within = f"{settings.rbac_cache_ttl_ms / 1000:g} s"
            click.echo(f"{prefix} of tenant {key.tenant_id} is revoked; refused within {within}")


@contextmanager
def _kept(settings: Settings) -> Iterator[KeyStore]:
    try:
        with key_store.key_store(settings) as store:
            yield store
    except FileUnavailable as error:
        fail(f"APIKEYS_FILE: {error}", UNAVAILABLE)


def _doubts(settings: Settings, tenant: str, roles: tuple[str, ...]) -> Iterator[str]:
    """What will keep the key from working, as things are now. Roles may be applied after their keys are made."""
    if settings.tenant_allowlist and tenant not in settings.tenant_allowlist:
        yield f"GATEWAY_TENANT_ALLOWLIST does not hold the tenant {tenant}, so it is not served"
    with role_store.role_store(settings) as store:
        in_force = store.read()
    if in_force.roles is None:
        yield f"it cannot be told which roles there are: {'; '.join(in_force.problems)}"
        return
    for role in roles:
        if role not in in_force.roles:
            known = ", ".join(sorted(in_force.roles)) or "none"
            yield f"there is no role {role}, which therefore grants nothing; in force are: {known}"


def _time(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if time else "-"
