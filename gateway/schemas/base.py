"""The base of request schemas and the field types of the wire contract."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, validate

WIRE_VERSION: Final = "1"

_UUID4: Final = (
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
)


UNKNOWN_FIELD: Final = "is not a field of this request"


class Strict(Schema):
    """A request: unknown fields are refused, absent optional ones stay absent."""

    class Meta:
        unknown = RAISE

    error_messages = {  # noqa: RUF012 - marshmallow's own declaration
        "unknown": UNKNOWN_FIELD,
        "type": "must be a JSON object",
    }


def text(
    pattern: str, what: str, *, required: bool = False, example: str | None = None
) -> fields.String:
    """A string that matches ``pattern`` as a whole; ``what`` completes the sentence "must be …"."""
    metadata: dict[str, Any] = {"pattern": f"^(?:{pattern})$"}
    if example is not None:
        metadata["example"] = example
    return fields.String(
        required=required,
        validate=validate.Regexp(re.compile(rf"\A(?:{pattern})\Z"), error=f"must be {what}"),
        metadata=metadata,
        error_messages=_messages(f"must be {what}"),
    )


def identifier(*, required: bool = False, example: str | None = None) -> fields.String:
    """An id: 1–128 printable ASCII characters without blanks."""
    return text(
        r"[!-~]{1,128}",
        "1 to 128 printable ASCII characters without blanks",
        required=required,
        example=example,
    )


def tenant() -> fields.String:
    """The tenant, repeated: it must be the caller's own."""
    return text(r"[A-Za-z0-9_.:-]{1,64}", "1 to 64 of A-Z a-z 0-9 _ . : -", example="acme")


def trace_id() -> fields.String:
    """A trace id: 32 hex digits or a UUIDv4."""
    return text(
        rf"(?!0{{32}})[0-9a-fA-F]{{32}}|{_UUID4}",
        "32 hex digits (not all zero) or a UUIDv4",
        example="4bf92f3577b34da6a3ce929d0e0e4736",
    )


def run_part() -> fields.String:
    """A run, flow or step: a UUIDv4 or an upper-case ULID."""
    return text(rf"{_UUID4}|[0-7][0-9A-HJKMNP-TV-Z]{{25}}", "a UUIDv4 or an upper-case ULID")


def version() -> fields.String:
    """The version of the wire contract; absent means the one there is."""
    return fields.String(
        validate=validate.Equal(WIRE_VERSION, error='must be "1"'),
        metadata={"example": WIRE_VERSION, "enum": [WIRE_VERSION]},
        error_messages=_messages('must be "1"'),
    )


def one_of(*values: str, required: bool = True) -> fields.String:
    """One of these words."""
    expected = f"must be one of {', '.join(values)}"
    return fields.String(
        required=required,
        validate=validate.OneOf(values, error=expected),
        error_messages=_messages(expected),
        metadata={"example": values[0]},
    )


def whole(
    least: int, most: int, *, required: bool = False, example: int | None = None
) -> fields.Integer:
    """A JSON integer within bounds; neither ``"5"`` nor ``5.0`` nor ``true`` is one."""
    expected = f"must be a whole number from {least} to {most}"
    return _WholeNumber(
        strict=True,
        required=required,
        validate=validate.Range(least, most, error=expected),
        error_messages=_messages(expected),
        metadata={} if example is None else {"example": example},
    )


def free_object(**metadata: Any) -> fields.Dict:
    """Any JSON object."""
    return FreeObject(metadata=metadata)


class FreeObject(fields.Dict):
    """A JSON object whose content is nobody's business here."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's own declaration
        "invalid": "must be a JSON object",
        "null": "must not be null: leave it out instead",
    }


class Number(fields.Float):
    """A finite JSON number, at least ``least``, passed on as it came; ``places``: at most so many decimals."""

    def __init__(self, *, least: float, places: int | None = None, **kwargs: Any) -> None:
        limit = "" if places is None else f" with at most {places} decimal places"
        self._expected = f"must be a number of at least {least:g}{limit}"
        self._least = least
        self._places = places
        kwargs["error_messages"] = _messages(self._expected)
        super().__init__(validate=validate.Range(min=least, error=self._expected), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError(self._expected)
        if not math.isfinite(value):
            raise ValidationError(self._expected)
        if self._places is not None and round(value, self._places) != value:
            raise ValidationError(self._expected)
        return value


class Flag(fields.Boolean):
    """JSON's ``true`` or ``false``; numbers that Python holds equal to them are neither."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def flag() -> fields.Boolean:
    """A JSON boolean."""
    return Flag(error_messages=_messages("must be true or false"))


class _WholeNumber(fields.Integer):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid", input=value)
        return value


def _messages(expected: str) -> dict[str, Any]:
    return {
        "required": "is required",
        "null": "must not be null: leave it out instead",
        "invalid": expected,
        "invalid_utf8": expected,
        "validator_failed": expected,
    }


REQUIRED: Final[dict[str, Any]] = {
    "required": "is required",
    "null": "must not be null: leave it out instead",
}
