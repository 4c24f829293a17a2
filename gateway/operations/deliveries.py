"""Deliveries: what a message says about itself, whether or not it can be taken in."""

from __future__ import annotations

from collections.abc import Mapping

from bridge import Delivery
from gateway import json
from gateway.context import normal_trace_id
from gateway.names import TENANT_PATTERN


def headers_of(delivery: Delivery) -> dict[str, str]:
    """Its headers under lower-case names: a header's name has no case."""
    return {name.lower(): value for name, value in delivery.headers.items()}


def ids_of(delivery: Delivery) -> dict[str, str]:
    """``tenant_id`` and ``trace_id`` as far as it names them: headers win, then the payload.

    What is malformed is left out: these end in headers, labels and an operator's terminal.
    """
    headers = headers_of(delivery)
    told: dict[str, object] = {**_payload(delivery), **headers}
    ids: dict[str, str] = {}
    tenant_id, trace_id = told.get("tenant_id"), told.get("trace_id")
    if isinstance(tenant_id, str) and TENANT_PATTERN.fullmatch(tenant_id):
        ids["tenant_id"] = tenant_id
    if isinstance(trace_id, str) and (normal := normal_trace_id(trace_id)):
        ids["trace_id"] = normal
    return ids


def _payload(delivery: Delivery) -> Mapping[str, object]:
    try:
        document = json.loads(delivery.payload)
    except json.Unreadable:
        return {}
    return document if isinstance(document, dict) else {}
