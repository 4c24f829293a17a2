"""Fingerprint: a hash of what the client meant, to tell a repeat from another request under the same id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.errors import invalid_request


def fingerprint(request: Mapping[str, Any]) -> str:
    """The hash of a validated, normalised request; the order of its fields does not matter.

    The caller leaves out what differs between a request and its honest repeat: generated and propagated fields
    (request id, trace, phase). Raises GatewayError 400 for a request that is nested too deeply to be written.
    """
    try:
        canonical = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise invalid_request("The body is nested too deeply.") from None
    return hashlib.sha256(canonical).hexdigest()[:40]
