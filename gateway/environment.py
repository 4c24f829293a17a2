"""Environment: how variables are declared, parsed, complained about and shown.

A dataclass declares each of its fields with `env`; `parse` reads all of them at once, so that a wrong environment is
mended in one round. What the variables are is `gateway.settings`' business.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marshmallow import Schema, ValidationError, fields, validate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_MOST_QUOTED: Final = 200
_URLS: Final = frozenset(
    {"NATS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
)
"""Their values may hold credentials."""


class CommaList(fields.Field[tuple[Any, ...]]):
    """``a,b,c`` → a tuple; blanks around items and empty items are dropped."""

    def __init__(self, item: fields.Field[Any], *, min_items: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item = item
        self.min_items = min_items

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        items = [item.strip() for item in str(value).split(",") if item.strip()]
        if len(items) < self.min_items:
            raise ValidationError(f"expected at least {self.min_items} value(s), comma separated")
        return tuple(self.item.deserialize(item) for item in items)


class Network(fields.Field[Any]):
    """An IP address or network (CIDR), IPv4 or IPv6."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        try:
            return ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            raise ValidationError("expected an IP address or network such as 10.0.0.0/8") from None


class ExistingFile(fields.Field[Path]):
    """The path of a file that can be read."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Path:
        path = Path(str(value))
        try:
            with path.open("rb"):
                return path
        except OSError as error:
            raise ValidationError(f"expected a readable file ({error.strerror})") from None


def whole(least: int, most: int, unit: str = "") -> fields.Integer:
    """A whole number within bounds."""
    unit = f" {unit}" if unit else ""
    bounds = f"expected a whole number{unit} from {least} to {most}"
    return fields.Integer(
        validate=validate.Range(least, most, error=bounds), error_messages={"invalid": bounds}
    )


def name(what: str, pattern: str) -> fields.String:
    """A text that matches ``pattern`` as a whole; ``what`` completes the sentence "expected …"."""
    return fields.String(validate=validate.Regexp(rf"\A(?:{pattern})\Z", error=f"expected {what}"))


def choice(*values: str) -> fields.String:
    """One of these words."""
    return fields.String(
        validate=validate.OneOf(values, error=f"expected one of {', '.join(values)}")
    )


def path() -> fields.Field[Path]:
    """The path of a file or folder that may not be there yet."""
    return fields.Function(deserialize=lambda value: Path(str(value)))


def flag() -> fields.Boolean:
    """Yes or no."""
    return fields.Boolean(error_messages={"invalid": "expected true or false"})


def env(
    variable: str,
    field: fields.Field[Any],
    default: str | None,
    doc: str,
    *,
    secret: bool = False,
    alias: str | None = None,
) -> Any:
    """Declare one variable. ``default`` is written as the environment would; None: not set."""
    return dataclasses.field(
        repr=not secret,
        metadata={
            "variable": variable,
            "field": field,
            "default": default,
            "doc": doc,
            "secret": secret,
            "alias": alias,
        },
    )


@dataclass(frozen=True, slots=True)
class Variable:
    """One declared variable, for the parser, the ``settings`` command and the documentation."""

    attribute: str
    name: str
    field: fields.Field[Any]
    default: str | None
    doc: str
    secret: bool
    alias: str | None

    @property
    def is_url(self) -> bool:
        """Whether its value may hold credentials beside what may be shown."""
        return self.name in _URLS

    def shown(self, settings: object) -> str:
        """The effective value as a person may see it."""
        value = getattr(settings, self.attribute)
        if value is None:
            return ""
        if self.is_url:
            urls = value if isinstance(value, tuple) else (value,)
            return ",".join(_without_credentials(url) for url in urls)
        if self.secret:
            return "********"
        if isinstance(value, tuple):
            return ",".join(str(item) for item in value)
        return str(value).lower() if isinstance(value, bool) else str(value)


def declared(settings: type[DataclassInstance]) -> Iterator[Variable]:
    """The variables that a dataclass declares with `env`, in its order."""
    for field in dataclasses.fields(settings):
        meta = field.metadata
        yield Variable(
            field.name,
            meta["variable"],
            meta["field"],
            meta["default"],
            meta["doc"],
            meta["secret"],
            meta["alias"],
        )


def parse(
    variables: Sequence[Variable], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values by attribute, and what is wrong by variable: a line each, never a secret.

    A variable that is set to the empty string counts as not set, as in shells and compose files. A wrong one has its
    default among the values, so that contradictions among the others can be told in the same round.
    """
    raw: dict[str, str] = {}
    for variable in variables:
        value = environ.get(variable.name) or environ.get(variable.alias or "") or variable.default
        if value is not None:
            raw[variable.name] = value
    schema = Schema.from_dict({v.name: v.field for v in variables}, name="EnvironmentSchema")()
    problems: dict[str, str] = {}
    try:
        loaded = schema.load(raw)
    except ValidationError as error:
        problems = _problems(variables, error, raw)
        defaults = {v.name: v.default for v in variables if v.default is not None}
        right = {name: value for name, value in raw.items() if name not in problems}
        loaded = schema.load({**defaults, **right})
    return {v.attribute: loaded.get(v.name) for v in variables}, problems


def _problems(
    variables: Sequence[Variable], error: ValidationError, raw: Mapping[str, str]
) -> dict[str, str]:
    secrets = {variable.name for variable in variables if variable.secret}
    lines = {}
    messages = error.messages_dict
    for variable in variables:
        if variable.name in messages:
            expected = "; ".join(map(str, messages[variable.name]))
            value = raw[variable.name]
            got = "" if variable.name in secrets or not _is_quotable(value) else f", got {value!r}"
            lines[variable.name] = f"{variable.name}: {expected}{got}"
    return lines


def _is_quotable(value: str) -> bool:
    """Whether an error may repeat it: not a URL with credentials, nor the content where a file's path belongs."""
    return len(value) <= _MOST_QUOTED and "@" not in value and "-----" not in value


def _without_credentials(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
