"""Documents that are made from declarations, so that they cannot lie: settings, and the NATS account.

`documents` renders them; ``beamline-gateway docs`` writes them into ``docs/`` and ``--check`` compares. A test does
the same, so that a declaration and its document change together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from marshmallow import ValidationError

from bridge import required_permissions
from gateway.app import bridge_config
from gateway.environment import CommaList, Variable
from gateway.settings import Settings, variables

_GENERATED: Final = (
    "<!-- Made by `beamline-gateway docs` from the declarations in the code. Do not edit. -->"
)

_SECTIONS: Final[Mapping[str, str]] = {
    "GATEWAY_BIND": "The HTTP door",
    "AUTH_MODE": "Who may come in",
    "NATS_URL": "NATS",
    "ROUTER_DECIDE_SUBJECT": "Subjects",
    "ROUTER_REQUEST_TIMEOUT_MS": "Times and memory of the work",
    "EXEC_MAX_AGE_MS": "Streams",
    "METRICS_TENANT_LABEL_ALLOWLIST": "Telemetry",
}
"""The variable that a section begins with; the rest follow in the order of their declaration."""

_LOGIN: Final = (
    "NATS_URL",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CREDENTIALS_FILE",
    "NATS_TLS_CA_FILE",
    "NATS_TLS_CERT_FILE",
    "NATS_TLS_KEY_FILE",
    "NATS_INBOX_PREFIX",
)
_IMPOSSIBLE: Final = "\x01"
"""A value that no variable with a rule takes: the refusal says what the rule is."""


def documents() -> dict[str, str]:
    """Name of the file in ``docs/`` → its text."""
    return {"CONFIGURATION.md": _configuration(), "NATS_ACCOUNT.md": _nats_account()}


def write(folder: Path) -> list[Path]:
    """Write the documents that differ; the files written. Raises OSError."""
    stale = outdated(folder)
    for path in stale:
        path.write_text(documents()[path.name], encoding="utf-8")
    return stale


def outdated(folder: Path) -> list[Path]:
    """The files in ``folder`` that are missing or differ from what they are made from."""
    return [
        folder / name
        for name, text in documents().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


# -- CONFIGURATION.md ---------------------------------------------------------------------------------


def _configuration() -> str:
    return "\n".join(
        (
            "# Configuration",
            "",
            _GENERATED,
            "",
            "The gateway is configured by environment variables only, read once when it starts. A variable that is",
            "set to the empty string counts as not set. A wrong environment stops the process with exit code 2 and",
            "one line for each wrong variable: what was expected, never a secret.",
            "",
            "`beamline-gateway settings` prints the effective values, `--json` for machines; passwords and tokens",
            "are hidden. The NATS account that these settings need: [NATS_ACCOUNT.md](NATS_ACCOUNT.md).",
            "",
            *_sections(),
        )
    )


def _sections() -> Iterator[str]:
    for title, members in _grouped().items():
        yield from (f"## {title}", "", *_table(members), "")


def _grouped() -> dict[str, list[Variable]]:
    groups: dict[str, list[Variable]] = {}
    for variable in variables():
        if variable.name in _SECTIONS:
            groups[_SECTIONS[variable.name]] = members = []
        members.append(variable)
    return groups


def _table(members: Iterable[Variable]) -> Iterator[str]:
    yield "| Variable | Default | Expected | Meaning |"
    yield "|---|---|---|---|"
    for variable in members:
        alias = f" (or `{variable.alias}`)" if variable.alias else ""
        default = f"`{variable.default}`" if variable.default else "not set"
        cells = (
            f"`{variable.name}`{alias}",
            default,
            _escaped(_expected(variable)),
            variable.doc.replace("|", "\\|"),
        )
        yield f"| {' | '.join(cells)} |"


def _expected(variable: Variable) -> str:
    """What a valid value is, in the words that an invalid one is refused with."""
    try:
        variable.field.deserialize(_IMPOSSIBLE)
    except ValidationError as error:
        rule = str(error.messages[0]).removeprefix("expected ")
        rule = rule.partition(" (")[0]  # why it was refused this time
    else:
        rule = "text"
    return f"comma list of: {rule}" if isinstance(variable.field, CommaList) else rule


def _escaped(text: str) -> str:
    for character in "\\|*_<>[]":
        text = text.replace(character, "\\" + character)
    return text


# -- NATS_ACCOUNT.md ----------------------------------------------------------------------------------


def _nats_account() -> str:
    permissions = required_permissions(bridge_config(_defaults()))
    return _NATS_ACCOUNT.format(
        generated=_GENERATED,
        purposes="\n".join(_purposes(permissions)),
        config=_server_config(permissions),
        login="\n".join(_table([v for v in variables() if v.name in _LOGIN])),
    )


def _defaults() -> Settings:
    # The two have no default that starts; they say nothing about NATS.
    return Settings.from_environ({"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1"})


def _purposes(permissions: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    yield "| It may | these subjects | in order to |"
    yield "|---|---|---|"
    for verb, subjects in permissions.items():
        by_purpose: dict[str, list[str]] = {}
        for subject in subjects:
            by_purpose.setdefault(_purpose(verb, subject), []).append(f"`{subject}`")
        for purpose, named in by_purpose.items():
            yield f"| {verb} | {'<br>'.join(named)} | {purpose} |"


def _purpose(verb: str, subject: str) -> str:
    for prefix, why in _PURPOSES[verb]:
        if subject.startswith(prefix):
            return why
    return "send messages" if verb == "publish" else "hear messages"


_PURPOSES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "publish": (
        ("$SYS.REQ.USER.INFO", "ask what it may do, so that `/readyz` can name what it may not"),
        ("$JS.API.STREAM.NAMES", "find the stream that holds a subject"),
        ("$JS.API.STREAM.INFO.", "audit streams and buckets"),
        ("$JS.API.STREAM.CREATE.", "create streams and buckets that are missing"),
        ("$JS.API.STREAM.UPDATE.", "widen streams and buckets that keep too little"),
        ("$JS.API.STREAM.MSG.GET.", "read through the stream's leader"),
        ("$JS.API.CONSUMER.", "consume results"),
        ("$JS.ACK.", "acknowledge results"),
        ("$KV.", "write records"),
    ),
    "subscribe": (
        ("_INBOX.", "receive replies and acknowledgements"),
        ("$KV.", "hear of new entries"),
    ),
}


def _server_config(permissions: Mapping[str, tuple[str, ...]]) -> str:
    def allowed(verb: str) -> str:
        return "\n".join(f'            "{subject}"' for subject in permissions[verb])

    return _SERVER_CONFIG.format(publish=allowed("publish"), subscribe=allowed("subscribe"))


_SERVER_CONFIG: Final = """\
accounts {{
  BEAMLINE {{
    jetstream: enabled
    users: [
      {{
        user: "gateway"
        password: "change-me"
        permissions: {{
          publish: {{ allow: [
{publish}
          ] }}
          subscribe: {{ allow: [
{subscribe}
          ] }}
        }}
      }}
      # The Router and the workers: users of their own, in this same account.
    ]
  }}
}}"""

_NATS_ACCOUNT: Final = """\
# The NATS account of the gateway

{generated}

The gateway needs one user in the account that the Router and the workers share, with JetStream enabled, and no more
rights than these. They follow from the default settings: with other subjects (`ROUTER_DECIDE_SUBJECT`, `USAGE_SUBJECT`,
…) or another `NATS_INBOX_PREFIX`, put those in their place.

{purposes}

The gateway asks the server for its own permissions at every connect. When one of these is missing, `/readyz` answers
503 and says which.

## A server configuration to start from

```
{config}
```

Keep the password as a bcrypt hash (`nats server passwd` makes one) or use credentials files instead of passwords: give
the user of the credentials the same two lists. A listener on `_INBOX.>` could read the replies to all others of the
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
