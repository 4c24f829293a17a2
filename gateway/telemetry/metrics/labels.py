"""What labels may hold: bounded whatever callers send, since every value ever seen is a series for ever.

`route` is the URL rule or ``none``, `method` a known verb or ``other``, `cp_phase` a known phase or ``unknown``,
`tenant` one of the allowlist or ``other``, `subject` one of the configured subjects and patterns or ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bridge import subject_covers
from gateway.errors import ROUTER_CODES, ErrorCode, ErrorType
from gateway.telemetry.metrics.families import Label

OTHER: Final = "other"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

PHASE: Final = Label.of("cp_phase", *(f"cp{n}" for n in range(9)), "unknown")
ROUTE: Final = Label(
    "route", "The URL rule, such as `/api/v1/usage`; `none` where no rule matches."
)
METHOD: Final = Label.of("method", *_METHODS, OTHER)
STATUS: Final = Label("status", "The HTTP status.")
TENANT: Final = Label(
    "tenant", "The tenant, if it is in `METRICS_TENANT_LABEL_ALLOWLIST`, else `other`."
)
SUBJECT: Final = Label(
    "subject", "A configured subject, or the configured pattern that covers it; else `other`."
)
STREAM: Final = Label("stream", "A stream of the gateway, or another owner's that it uses.")
DURABLE: Final = Label("durable", "The name of the durable consumer.")
KEY_TYPE: Final = Label.of("key_type", "assignment_id", "ack_id", "usage_id")
OPERATION: Final = Label.of("operation", "decide", "assignments", "acks", "usage")
WIRE_OUTCOME: Final = Label(
    "outcome",
    "`not_sent`: nothing happened. `unknown`: sent, and no answer in time. `refused`: answered no. `closed`: the"
    " worker was stopping.",
    ("ok", "not_sent", "unknown", "refused", "closed"),
)
ERROR_TYPE: Final = Label("error_type", "Whose error it was.", tuple(ErrorType))
ERROR_CODE: Final = Label(
    "error_code",
    "The `error.code` of the answer.",
    tuple(dict.fromkeys((*map(str, ErrorCode), *(code for _, code in ROUTER_CODES.values())))),
)


class TenantLabel:
    """The ``tenant`` label: the tenant if it is in the allowlist, else ``other``."""

    def __init__(self, allowlist: Iterable[str]) -> None:
        self._allowlist = frozenset(allowlist)

    def __call__(self, tenant_id: str | None) -> str:
        return tenant_id if tenant_id in self._allowlist and tenant_id else OTHER


class SubjectLabel:
    """The ``subject`` label: a configured subject as it is, one that a configured pattern covers as the pattern.

    Whoever may publish to NATS makes up the subjects that a wildcard takes in, and their dead letters' subjects with
    them.
    """

    def __init__(self, configured: Iterable[str]) -> None:
        self._exact = frozenset(configured)
        self._patterns = tuple(name for name in self._exact if "*" in name or ">" in name)

    def __call__(self, subject: str) -> str:
        if subject in self._exact:
            return subject
        return next((p for p in self._patterns if subject_covers(p, subject)), OTHER)


def method_label(method: str) -> str:
    """A known HTTP verb, or ``other``."""
    return method if method in _METHODS else OTHER
