"""JSON as the gateway reads and writes it: orjson, with errors that say what is wrong."""

from __future__ import annotations

from typing import Any, Final

import orjson

_LEVELS_AROUND: Final = 16
"""More than any answer or record of ours puts around what it passes on."""


class Unwritable(ValueError):
    """The value cannot be written as JSON; the text completes the sentence "the body …"."""


class Unreadable(ValueError):
    """The bytes are not JSON; the text says where and why."""


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Raises Unwritable for what is nested too deeply (over some 250 levels)."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise Unwritable("is nested too deeply") from None


def dumps_readable(value: Any) -> bytes:
    """The same for people: indented, with a newline at its end."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def loads(data: bytes | str) -> Any:
    """Parse strict JSON (RFC 8259: no NaN, no trailing commas, no lone surrogates). Raises Unreadable."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(str(error)) from None


def fits(value: Any) -> bool:
    """Whether ``value``, read from elsewhere, can be written again inside an answer or a record.

    What can be read may be nested four times as deeply as what can be written.
    """
    for _ in range(_LEVELS_AROUND):
        value = [value]
    try:
        dumps(value)
    except Unwritable:
        return False
    return True
