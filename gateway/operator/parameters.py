"""What operators type, checked: each refusal is a sentence that says what was expected.

Functions for click's ``type=``; the refusal is a usage error (exit code 2), with the option's name before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from gateway.identity.keys import PREFIX_PATTERN
from gateway.names import ROLE_PATTERN, TENANT_PATTERN

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,4})([dh])")
_LONGEST_NAME: Final = 128


def _matching(name: str, pattern: re.Pattern[str], expected: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            # What was given is not repeated: it may be a secret in the wrong place.
            raise click.BadParameter(f"expected {expected}.")
        return value

    check.__name__ = name  # what the help calls it
    return check


def expiry(value: str) -> datetime:
    """``90d``, ``12h``, or a time with its zone; always in the future, and UTC."""
    now = datetime.now(UTC)
    try:
        if period := _PERIOD.fullmatch(value):
            amount = int(period[1])
            time = now + (timedelta(days=amount) if period[2] == "d" else timedelta(hours=amount))
            time = time.replace(microsecond=0)
        else:
            time = datetime.fromisoformat(value)
            if time.tzinfo is None:
                raise click.BadParameter(f"{value!r} has no time zone; append Z for UTC.")
            time = time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"expected a period such as 90d or 12h, or a time such as 2030-01-31T00:00:00Z, got {value!r}."
        ) from None
    if time <= now:
        raise click.BadParameter(f"{value!r} is over already.")
    return time


def name(value: str) -> str:
    """A text for people."""
    if len(value) > _LONGEST_NAME or not value.isprintable():
        raise click.BadParameter(f"expected at most {_LONGEST_NAME} printable characters.")
    return value


tenant: Final = _matching("tenant", TENANT_PATTERN, "1 to 64 of A-Z a-z 0-9 _ . : -")
role: Final = _matching("role", ROLE_PATTERN, "1 to 64 of A-Z a-z 0-9 _ . : -")
prefix: Final = _matching(
    "prefix",
    PREFIX_PATTERN,
    "the first 12 characters of a key, blk_ and eight more, as `apikeys list` shows them",
)
