"""What query strings may hold."""

from __future__ import annotations

from typing import Final

from marshmallow import fields, validate
from webargs.fields import DelimitedList

from gateway.schemas.base import Strict, identifier

MAX_WAIT_MS: Final = 30_000


def _milliseconds(least: int, most: int, default: int) -> fields.Integer:
    expected = f"must be a whole number of milliseconds from {least} to {most}"
    return fields.Integer(
        load_default=default,
        validate=validate.Range(least, most, error=expected),
        error_messages={"invalid": expected},
    )


class ResultQuery(Strict):
    """How long to wait for a result, and of which assignment where the path cannot hold its id."""

    assignment_id = identifier()
    wait_ms = _milliseconds(0, MAX_WAIT_MS, 0)


class StreamQuery(Strict):
    """Which results to stream, and how."""

    assignment_id = identifier()
    request_id = identifier()
    provider_id = identifier()
    provider_exclude = DelimitedList(identifier())
    heartbeat_ms = _milliseconds(100, 60_000, 15_000)
    close_after_ms = _milliseconds(100, 3_600_000, 300_000)


class OperationQuery(Strict):
    """An id that the path cannot hold."""

    id = identifier()
