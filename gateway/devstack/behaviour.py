"""What a ``policy_id`` asks the reference Router to do instead of deciding; see `gateway.devstack.router`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.devstack.contract import Intake

LATE_PROVIDER: Final = "reference:late"
UNKNOWN_CODE: Final = "code_of_another_version"

BROKEN_REPLIES: Final[dict[str, bytes]] = {
    "broken-json": b'{"ok": true, "decision": {"provider_id": "openai',
    "empty-reply": b"",
    "not-utf8": b'{"ok": true, "decision": "\xff\xfe"}',
    "wrong-shape": b'{"ok": true, "context": {}}',
    "wrong-shape:list": b"[]",
    "wrong-shape:null": b"null",
    "wrong-shape:ok": b'{"ok": "yes", "decision": {"provider_id": "openai:gpt-4o"}}',
    "wrong-shape:decision": b'{"ok": true, "decision": []}',
    "wrong-shape:provider": b'{"ok": true, "decision": {"provider_id": 7}}',
    "wrong-shape:error": b'{"ok": false, "error": "no"}',
    "wrong-shape:code": b'{"ok": false, "error": {"message": "no code"}}',
}
"""Replies that are no DecideResponse and no ErrorResponse."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What to do with a valid request; the default is to decide at once."""

    silent: bool = False
    delay_ms: int = 0
    late: bool = False
    error_code: str | None = None
    intake: str | None = None
    raw_reply: bytes | None = None
    without: frozenset[str] = frozenset()


class BehaviourError(ValueError):
    """A ``policy_id`` begins like one of ours and goes on like none."""


def behaviour_of(policy_id: str | None) -> Behaviour:
    """Read a ``policy_id``. Names that are none of ours are ordinary policies: decide at once."""
    if policy_id is None:
        return Behaviour()
    if policy_id in BROKEN_REPLIES:
        return Behaviour(raw_reply=BROKEN_REPLIES[policy_id])
    name, separator, argument = policy_id.partition(":")
    read = _WITH_ARGUMENT.get(name) if separator else _PLAIN.get(name)
    return read(argument) if read is not None else Behaviour()


def _error(argument: str) -> Behaviour:
    code, _, intake = argument.partition(":")
    if not code:
        raise BehaviourError("error:<code> or error:<code>:<INTAKE>")
    if intake and intake not in set(Intake):
        raise BehaviourError(f"unknown intake_error_code {intake}")
    return Behaviour(error_code=code, intake=intake or None)


def _milliseconds(argument: str) -> int:
    if not argument.isascii() or not argument.isdecimal() or len(argument) > 6:
        raise BehaviourError("needs a number of milliseconds, at most 999999")
    return int(argument)


_PLAIN: Final[dict[str, Callable[[str], Behaviour]]] = {
    "silence": lambda _: Behaviour(silent=True),
    "unknown-code": lambda _: Behaviour(error_code=UNKNOWN_CODE),
}
_WITH_ARGUMENT: Final[dict[str, Callable[[str], Behaviour]]] = {
    "error": _error,
    "delay": lambda argument: Behaviour(delay_ms=_milliseconds(argument)),
    "late": lambda argument: Behaviour(delay_ms=_milliseconds(argument), late=True),
    "without": lambda argument: Behaviour(without=frozenset({argument})),
}
