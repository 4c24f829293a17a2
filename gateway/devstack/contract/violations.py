"""What can be wrong with a message, and how the Router calls it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Intake(StrEnum):
    """The Router's ``intake_error_code``. When several apply, the first in this order is answered."""

    VERSION_UNSUPPORTED = "VERSION_UNSUPPORTED"
    SCHEMA_VALIDATION_FAILED = "SCHEMA_VALIDATION_FAILED"
    TENANT_FORBIDDEN = "TENANT_FORBIDDEN"
    CORRELATION_FIELDS_INVALID = "CORRELATION_FIELDS_INVALID"
    IDEMPOTENCY_VIOLATION = "IDEMPOTENCY_VIOLATION"
    PAYLOAD_TOO_SMALL = "PAYLOAD_TOO_SMALL"
    INTERNAL_VALIDATION_ERROR = "INTERNAL_VALIDATION_ERROR"

    @property
    def error_code(self) -> str:
        """The ``error.code`` that goes with it (wire contract, table of the Router's errors)."""
        match self:
            case Intake.TENANT_FORBIDDEN:
                return "unauthorized"
            case Intake.INTERNAL_VALIDATION_ERROR:
                return "internal"
            case _:
                return "invalid_request"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong: where (``task.payload.text``, ``header trace_id``), what, and its code."""

    where: str
    message: str
    intake: Intake = Intake.SCHEMA_VALIDATION_FAILED

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ContractError(Exception):
    """A message breaks the contract. ``violations`` holds all that was found, the gravest first."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        order = list(Intake)
        self.violations = tuple(sorted(violations, key=lambda found: order.index(found.intake)))
        super().__init__("; ".join(str(found) for found in self.violations))

    @property
    def intake(self) -> Intake:
        """The code to answer with: that of the gravest violation."""
        return self.violations[0].intake
