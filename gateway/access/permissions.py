"""Permission: what an endpoint asks for. Every view that is not open names one with `requires`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

View = TypeVar("View", bound=Callable[..., Any])
_ATTRIBUTE: Final = "required_permission"


class Permission(StrEnum):
    """``resource:action`` (design, section 6)."""

    ROUTES_DECIDE = "routes:decide"
    ASSIGNMENTS_WRITE = "assignments:write"
    ACKS_WRITE = "acks:write"
    USAGE_WRITE = "usage:write"
    RESULTS_READ = "results:read"
    OPERATIONS_READ = "operations:read"
    STATUS_READ = "status:read"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a view asks of its caller; without a permission nobody may call it."""

    permission: Permission | None
    basic: bool = False


_NOBODY: Final = Requirement(None)


def requires(permission: Permission, *, basic: bool = False) -> Callable[[View], View]:
    """Mark a view: the door lets in only whoever has ``permission``; ``basic``: HTTP Basic will do, for browsers."""

    def mark(view: View) -> View:
        setattr(view, _ATTRIBUTE, Requirement(permission, basic))
        return view

    return mark


def required_by(view: Callable[..., Any]) -> Requirement:
    """What a view was marked with; a view that was not may be called by nobody."""
    return getattr(view, _ATTRIBUTE, _NOBODY)
