"""Outgoing: a message that is ready for the wire, and the headers that every one of them carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.context import UNKNOWN_PHASE, RequestContext
from gateway.errors import invalid_request
from gateway.json import Unwritable, dumps
from gateway.schemas.base import WIRE_VERSION


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Subject, encoded payload and headers; ``traceparent`` is added where the message is sent."""

    subject: str
    payload: bytes
    headers: Mapping[str, str]


def compose(
    subject: str, body: Mapping[str, Any], context: RequestContext, *, msg_id: str | None = None
) -> Outgoing:
    """Encode ``body`` once and give it the contract's headers ("Headers on every message").

    Raises GatewayError 400 for a body that is nested too deeply to be written.
    """
    headers = {
        "version": WIRE_VERSION,
        "tenant_id": context.tenant,
        "trace_id": context.trace_id,
    }
    if context.cp_phase != UNKNOWN_PHASE:
        headers["cp_phase"] = context.cp_phase
    if msg_id is not None:
        headers["Nats-Msg-Id"] = msg_id
    try:
        return Outgoing(subject, dumps(body), headers)
    except Unwritable as error:
        raise invalid_request(f"The body {error}.") from None
