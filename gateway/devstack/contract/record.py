"""Record: reads a JSON object field by field and notes all that breaks the contract.

Types are JSON's own and nothing is converted: a boolean is no number, ``1.0`` no integer, ``"1"``
neither. Optional fields are absent or valid; ``null`` is never a way to leave one out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

import orjson

from gateway.devstack.contract.violations import Intake, Violation

JsonObject = Mapping[str, Any]
Notes = list[Violation]

TENANT_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
POLICY_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
ID: Final = re.compile(r"[!-~]{1,128}")
"""Request, assignment, ack and usage ids: printable ASCII without the space."""
NON_EMPTY: Final = re.compile(r"(?s).+")

_ABSENT: Final = object()
_JSON_NAMES: Final[dict[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number with a fraction or exponent",
    bool: "a boolean",
    type(None): "null",
}


def read_object(payload: bytes, notes: Notes) -> Record:
    """The JSON object that ``payload`` is, or an empty one and a note."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        notes.append(Violation("payload", f"is not JSON: {error}"))
        return Record({}, notes, readable=False)
    if not isinstance(value, dict):
        notes.append(Violation("payload", f"is {json_name(value)}, not an object"))
        return Record({}, notes, readable=False)
    return Record(value, notes)


def json_name(value: object) -> str:
    """What JSON calls the type of ``value``."""
    return _JSON_NAMES[type(value)]


class Record:
    """One JSON object at ``path`` of a message; every reader notes what is wrong and returns None then."""

    def __init__(
        self, value: JsonObject, notes: Notes, path: str = "", *, readable: bool = True
    ) -> None:
        self.value = value
        self.notes = notes
        self.readable = readable
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def note(
        self, name: str, message: str, intake: Intake = Intake.SCHEMA_VALIDATION_FAILED
    ) -> None:
        """Note a violation of the field ``name``."""
        self.notes.append(Violation(f"{self._path}{name}", message, intake))

    def allow_only(self, names: Collection[str]) -> None:
        """Note every field that is not one of ``names``."""
        for name in self.value:
            if name not in names:
                self.note(name, "unknown field")

    def text(
        self,
        name: str,
        pattern: re.Pattern[str] | None = None,
        *,
        required: bool = False,
        intake: Intake = Intake.SCHEMA_VALIDATION_FAILED,
    ) -> str | None:
        """A string that ``pattern`` matches as a whole."""
        value = self._get(name, required, intake)
        if value is _ABSENT:
            return None
        if not isinstance(value, str):
            self.note(name, f"must be a string, not {json_name(value)}", intake)
            return None
        if pattern is not None and pattern.fullmatch(value) is None:
            self.note(name, f"does not match {pattern.pattern}", intake)
            return None
        return value

    def choice(self, name: str, choices: Collection[str], *, required: bool = False) -> str | None:
        """One of a few strings."""
        value = self.text(name, required=required)
        if value is not None and value not in choices:
            self.note(name, f"must be one of {', '.join(choices)}")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        value = self._get(name, False)
        if value is _ABSENT:
            return None
        if not isinstance(value, bool):
            self.note(name, f"must be a boolean, not {json_name(value)}")
            return None
        return value

    def integer(
        self,
        name: str,
        *,
        least: int | None = None,
        most: int | None = None,
        required: bool = False,
    ) -> int | None:
        """An integer within ``least`` … ``most``."""
        value = self._get(name, required)
        if value is _ABSENT:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.note(name, f"must be an integer, not {json_name(value)}")
            return None
        if least is not None and value < least:
            self.note(name, f"must be at least {least}")
            return None
        if most is not None and value > most:
            self.note(name, f"must be at most {most}")
            return None
        return value

    def number(
        self,
        name: str,
        *,
        least: float | None = None,
        places: int | None = None,
        required: bool = False,
    ) -> int | float | None:
        """A finite number, at least ``least``, with at most ``places`` decimal places."""
        value = self._get(name, required)
        if value is _ABSENT:
            return None
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            self.note(name, f"must be a number, not {json_name(value)}")
            return None
        if least is not None and value < least:
            self.note(name, f"must be at least {least}")
            return None
        if places is not None and _places(value) > places:
            self.note(name, f"must not have more than {places} decimal places")
            return None
        return value

    def object(self, name: str, *, required: bool = False) -> Record | None:
        """An object, to be read further; its ``value`` is the object itself."""
        value = self._get(name, required)
        if value is _ABSENT:
            return None
        if not isinstance(value, dict):
            self.note(name, f"must be an object, not {json_name(value)}")
            return None
        return Record(value, self.notes, f"{self._path}{name}.")

    def texts(self, name: str) -> Iterator[str]:
        """The elements of an array of strings; what is none is noted."""
        for index, value in enumerate(self.value[name]):
            if isinstance(value, str):
                yield value
            else:
                self.note(f"{name}[{index}]", f"must be a string, not {json_name(value)}")

    def version(self) -> None:
        """``version`` must be the string "1"; a wrong one has a code of its own."""
        value = self._get("version", True)
        if value is not _ABSENT and value != "1":
            self.note("version", 'must be the string "1"', Intake.VERSION_UNSUPPORTED)

    def _get(
        self, name: str, required: bool, intake: Intake = Intake.SCHEMA_VALIDATION_FAILED
    ) -> Any:
        value = self.value.get(name, _ABSENT)
        if value is _ABSENT and required and self.readable:
            self.note(name, "is required", intake)
        return value


def _places(value: int | float) -> int:
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # finite, as checked before
    return max(0, -exponent)
