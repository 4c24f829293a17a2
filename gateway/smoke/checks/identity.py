"""Whose credentials these are, asked by a request that is refused for its body and so has no effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.smoke.contract import USAGE
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.session import Root, Session


@dataclass(frozen=True, slots=True)
class Tenants:
    """The tenants of the credentials; ``other`` is None without second ones."""

    own: str
    other: str | None


def check(session: Session) -> str:
    """Leaves `Tenants`."""
    own = _tenant(session, session.caller)
    other = None
    if session.other_caller is not None:
        other = _tenant(session, session.other_caller)
        if other == own:
            raise Failed(Failure.SAME_TENANT, f"both credentials are of tenant {own}")
    session.keep(Tenants(own, other))
    return f"tenant {own}" if other is None else f"tenants {own} and {other}"


def _tenant(session: Session, caller: Mapping[str, str]) -> str:
    # Who asks and what they may do is judged before the body, and every error names the tenant.
    answer = session.post(USAGE, {}, root=Root(), caller=caller)
    document = answer.document()
    context = document.get("context")
    tenant = context.get("tenant_id") if isinstance(context, dict) else None
    if answer.status != 400 or document.get("ok") is not False or not isinstance(tenant, str):
        failure = Failure.REQUEST_FAILED if answer.status >= 500 else Failure.NOT_A_GATEWAY
        raise Failed(
            failure, f"an empty usage event is answered {answer}, not 400 with the error body"
        )
    return tenant
