"""Documents that are made from declarations, so that they cannot lie: settings, metrics, traces, NATS.

`documents` renders them; ``beamline-gateway docs`` writes them into ``docs/`` and ``--check`` compares. A test does
the same, so that a declaration and its document change together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from marshmallow import ValidationError

from gateway import (
    documentation_messages,
    documentation_metrics,
    documentation_nats,
    documentation_subjects,
    documentation_traces,
)
from gateway.environment import CommaList, Variable
from gateway.settings import variables

_GENERATED: Final = (
    "<!-- Made by `beamline-gateway docs` from the declarations in the code. Do not edit. -->"
)

_SECTIONS: Final[Mapping[str, str]] = {
    "GATEWAY_BIND": "The HTTP door",
    "AUTH_MODE": "Who may come in",
    "RATE_LIMIT_GLOBAL_REQUESTS": "Limits of requests",
    "NATS_URL": "NATS",
    "ROUTER_DECIDE_SUBJECT": "Subjects",
    "ROUTER_REQUEST_TIMEOUT_MS": "Times and memory of the work",
    "EXEC_MAX_AGE_MS": "Streams",
    "METRICS_TENANT_LABEL_ALLOWLIST": "Telemetry",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Traces (OpenTelemetry's own names)",
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
    return {
        "CONFIGURATION.md": _configuration(),
        "METRICS.md": documentation_metrics.render(_GENERATED),
        "NATS_ACCOUNT.md": documentation_nats.render(
            _GENERATED, login="\n".join(_table([v for v in variables() if v.name in _LOGIN]))
        ),
        "NATS_SUBJECTS.md": documentation_subjects.subjects(_GENERATED),
        "ARCHITECTURE/PROTO_NATS_MAPPING.md": documentation_messages.mapping(_GENERATED),
        "SCHEMAS.md": documentation_messages.json_schemas(_GENERATED),
        "TRACES.md": documentation_traces.render(_GENERATED),
    }


def write(folder: Path) -> list[Path]:
    """Write the documents that differ; the files written. Raises OSError."""
    stale = outdated(folder)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        text = documents()[path.relative_to(folder).as_posix()]
        path.write_text(text, encoding="utf-8")
    return stale


def outdated(folder: Path) -> list[Path]:
    """The files in ``folder`` that are missing or differ from what they are made from."""
    return [
        folder / name
        for name, text in documents().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


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
