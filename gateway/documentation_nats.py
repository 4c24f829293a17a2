"""docs/NATS_ACCOUNT.md: what the gateway and its operators must be allowed at NATS, made from what they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bridge import required_permissions
from gateway.bridge_config import bridge_config
from gateway.operator import backup
from gateway.operator.bus import operator_config
from gateway.operator.needs import needs_of_all
from gateway.settings import Settings

Permissions = Mapping[str, tuple[str, ...]]
"""publish | subscribe → subjects."""


def render(generated: str, *, login: str) -> str:
    """The document; ``generated`` is the notice of its origin, ``login`` the table of variables to log in with."""
    return _DOCUMENT.format(
        generated=generated,
        gateway="\n".join(_purposes(gateway_permissions(), _OF_GATEWAY)),
        operators="\n".join(_purposes(operator_permissions(), _OF_OPERATORS)),
        keepers="\n".join(_purposes(backup_permissions(), _OF_BACKUPS)),
        config=_server_config(),
        login=login,
    )


def gateway_permissions() -> Permissions:
    """What the gateway asks for with the default settings, and with keys and roles in NATS."""
    return required_permissions(bridge_config(_settings()))


def operator_permissions() -> Permissions:
    """What all of the operators' commands together ask for, with the same settings."""
    return required_permissions(operator_config(_settings(), needs_of_all(_settings())))


def backup_permissions() -> Permissions:
    """What `backup` and `restore` of everything ask for, with the same settings."""
    return required_permissions(operator_config(_settings(), backup.needs_of_all(_settings())))


def _settings() -> Settings:
    return Settings.from_environ({"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"})


def _purposes(permissions: Permissions, purposes: Purposes) -> Iterator[str]:
    yield "| It may | these subjects | in order to |"
    yield "|---|---|---|"
    for verb, subjects in permissions.items():
        by_purpose: dict[str, list[str]] = {}
        for subject in subjects:
            why = next(why for prefix, why in purposes[verb] if subject.startswith(prefix))
            by_purpose.setdefault(why, []).append(f"`{subject}`")
        for why, named in by_purpose.items():
            yield f"| {verb} | {'<br>'.join(named)} | {why} |"


Purposes = Mapping[str, tuple[tuple[str, str], ...]]
"""publish | subscribe → what a subject begins with, and what for; the first that fits."""

_ASKING: Final = (
    ("$SYS.REQ.USER.INFO", "ask what it may do, so that what it may not can be named"),
    ("$JS.API.STREAM.NAMES", "find the stream that holds a subject"),
)
_OF_GATEWAY: Final[Purposes] = {
    "publish": (
        *_ASKING,
        ("$JS.API.STREAM.INFO.", "audit streams and buckets"),
        ("$JS.API.STREAM.CREATE.", "create streams and buckets that are missing"),
        ("$JS.API.STREAM.UPDATE.", "widen streams and buckets that keep too little"),
        ("$JS.API.STREAM.MSG.GET.", "read through the stream's leader"),
        ("$JS.API.CONSUMER.", "consume results"),
        ("$JS.ACK.", "acknowledge results"),
        ("$KV.", "write records"),
        ("", "send messages"),
    ),
    "subscribe": (
        ("_INBOX.", "receive replies and acknowledgements"),
        ("$KV.", "hear of new entries"),
    ),
}
_OF_OPERATORS: Final[Purposes] = {
    "publish": (
        *_ASKING,
        ("$JS.API.STREAM.INFO.", "list keys"),
        ("$JS.API.STREAM.CREATE.", "make the buckets where they are missing"),
        ("$JS.API.STREAM.UPDATE.", "mend buckets that forget their entries"),
        ("$JS.API.STREAM.MSG.GET.KV_BEAMLINE_STICKY", "read sessions"),
        ("$JS.API.STREAM.MSG.GET.KV_", "read keys and roles"),
        ("$JS.API.STREAM.MSG.GET.", "read dead letters, and messages too large for one"),
        ("$KV.BEAMLINE_APIKEYS.", "make and revoke keys"),
        ("$KV.BEAMLINE_ROLES.", "apply roles"),
        ("$KV.BEAMLINE_STICKY.", "drop sessions"),
        ("", "replay dead letters"),
    ),
    "subscribe": (("_INBOX.", "receive replies and acknowledgements"),),
}
_OF_BACKUPS: Final[Purposes] = {
    "publish": (
        *_ASKING,
        ("$JS.API.STREAM.INFO.", "see what is there"),
        ("$JS.API.STREAM.SNAPSHOT.", "back up"),
        ("$JS.SNAPSHOT.ACK.", "back up: ask for more"),
        ("$JS.API.STREAM.RESTORE.", "restore"),
        ("$JS.SNAPSHOT.RESTORE.", "restore: send what was backed up"),
        (
            "$JS.API.STREAM.DELETE.",
            "restore: take away what `--replace` replaces, and what is left of a failure",
        ),
        ("$JS.API.STREAM.MSG.GET.", "restore: find an id to ask for"),
        ("", "restore: ask whether the id is known (nothing is stored)"),
    ),
    "subscribe": (("_INBOX.", "receive replies and snapshots"),),
}


def _server_config() -> str:
    def user(name: str, permissions: Permissions) -> str:
        lists = {
            verb: "\n".join(f'            "{subject}"' for subject in subjects)
            for verb, subjects in permissions.items()
        }
        return _USER.format(name=name, **lists)

    users = (
        user("gateway", gateway_permissions()),
        user("operator", operator_permissions()),
        user("backup", backup_permissions()),
    )
    return _SERVER_CONFIG.format(users="\n".join(users))


_USER: Final = """\
      {{
        user: "{name}"
        password: "change-me"
        permissions: {{
          publish: {{ allow: [
{publish}
          ] }}
          subscribe: {{ allow: [
{subscribe}
          ] }}
        }}
      }}"""

_SERVER_CONFIG: Final = """\
accounts {{
  BEAMLINE {{
    jetstream: enabled
    users: [
{users}
      # The Router and the workers: users of their own, in this same account.
    ]
  }}
}}"""

_DOCUMENT: Final = """\
# The NATS account of the gateway

{generated}

The gateway needs one user in the account that the Router and the workers share, with JetStream enabled, and no more
rights than these. They follow from the default settings: with other subjects (`ROUTER_DECIDE_SUBJECT`, `USAGE_SUBJECT`,
…) or another `NATS_INBOX_PREFIX`, put those in their place.

{gateway}

The gateway asks the server for its own permissions at every connect. When one of these is missing, `/readyz` answers
503 and says which.

Those on `KV_BEAMLINE_APIKEYS` are needed with `APIKEYS_SOURCE=bucket` only, those on `KV_BEAMLINE_ROLES` with
`ROLES_SOURCE=bucket`. The gateway reads these two buckets and can neither write nor change them: what lets people in is
the operators' alone. Until an operator's command has made them (`apikeys create`, `roles apply`), `/readyz` answers 503
and names the one that is missing.

## The operators' user

`beamline-gateway apikeys`, `roles`, `sticky` and `dlq` connect as whoever their environment names (`NATS_USER` and
`NATS_PASSWORD`, or the others below): a user of its own, which the gateway's process never sees. It makes the buckets
of keys and roles where they are missing. An operator who does not need all of the commands does not need all of these.

{operators}

## The user of backups

`beamline-gateway backup` and `restore` read everything and can delete everything: give them a user of their own, which
neither the gateway nor the daily work of operators has. For `backup` alone, the rows that say "restore" are not needed;
for some of the streams (`--stream`), those of the others are not.

{keepers}

`beamline-gateway streams` checks the gateway's permissions and is run with the gateway's user.

## A server configuration to start from

```
{config}
```

Keep the password as a bcrypt hash (`nats server passwd` makes one) or use credentials files instead of passwords: give
the user of the credentials the same lists. A listener on `_INBOX.>` could read the replies to all others of the
account; to keep them apart, give each party a prefix of its own (`NATS_INBOX_PREFIX` here) and allow it that one only.

## How the gateway logs in

{login}

With a user and a password:

```sh
NATS_URL=nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222
NATS_USER=gateway
NATS_PASSWORD=change-me
```

With a credentials file, which holds a JWT and a seed:

```sh
NATS_URL=nats://nats-1:4222
NATS_CREDENTIALS_FILE=/etc/beamline/gateway.creds
```

With TLS, where the server wants the gateway's certificate, too (`verify: true`):

```
tls {{
  cert_file: "/etc/nats/server.pem"
  key_file: "/etc/nats/server.key"
  ca_file: "/etc/nats/ca.pem"
  verify: true
}}
```

```sh
NATS_URL=tls://nats-1:4222
NATS_TLS_CA_FILE=/etc/beamline/ca.pem
NATS_TLS_CERT_FILE=/etc/beamline/gateway.pem
NATS_TLS_KEY_FILE=/etc/beamline/gateway.key
```

The gateway makes its streams and buckets itself, with `NATS_REPLICAS` replicas: 3 in production, where a single server
that loses power may lose what it has acknowledged.
"""
