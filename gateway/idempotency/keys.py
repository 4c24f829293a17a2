"""Keys: the signature ``tenant_id + id``, unambiguous whatever the parts hold.

`mark_http_id` is the only maker of idempotency keys (order W4-B). Its parts are length-delimited (netstrings), so
that tenant ``a-b`` with id ``c`` never equals tenant ``a`` with id ``b-c``. Everything that leaves for NATS is a
hash of it: keys of buckets hold a small alphabet only, and ids may hold anything printable.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class KeyType(StrEnum):
    """Which of a request's ids makes it idempotent."""

    ASSIGNMENT_ID = "assignment_id"
    ACK_ID = "ack_id"
    USAGE_ID = "usage_id"


@dataclass(frozen=True, slots=True)
class HttpId:
    """One tenant's id of one type. ``signature`` is exactly tenant, type and id."""

    tenant_id: str
    key_type: KeyType
    id: str

    @property
    def signature(self) -> str:
        """The length-delimited signature."""
        return _delimited(self.tenant_id, self.key_type, self.id)

    def record_key(self, operation: str) -> str:
        """The key of ``operation``'s record: the same id in another operation is another record."""
        return digest(operation, self.signature)


def mark_http_id(tenant_id: str, key_type: KeyType, id: str) -> HttpId:
    """The key of a request: ``tenant_id + assignment_id | ack_id | usage_id`` and nothing else."""
    return HttpId(tenant_id, key_type, id)


def usage_pair(tenant_id: str, *, assignment_id: str | None, request_id: str | None) -> str:
    """The ``Nats-Msg-Id`` under which usage is metered once: by the assignment, else by the request.

    The kind is part of it, so that an assignment and a request of equal ids differ. Raises ValueError when neither
    id is given.
    """
    if assignment_id is not None:
        return "usage." + digest("assignment", tenant_id, assignment_id)
    if request_id is not None:
        return "usage." + digest("request", tenant_id, request_id)
    raise ValueError("usage is metered by an assignment_id or a request_id")


def result_keys(
    tenant_id: str, *, assignment_id: str | None, request_id: str | None
) -> tuple[str, ...]:
    """Where a result is kept: under its assignment, and under its request (which may have several)."""
    keys = []
    if assignment_id is not None:
        keys.append(result_key(tenant_id, assignment_id=assignment_id))
    if request_id is not None:
        of = "" if assignment_id is None else assignment_id
        keys.append(f"{digest('result', 'request', tenant_id, request_id)}.{digest('of', of)}")
    return tuple(keys)


def result_key(
    tenant_id: str, *, assignment_id: str | None = None, request_id: str | None = None
) -> str:
    """The key, or pattern of keys, to read results by: of an assignment, else of a request."""
    if assignment_id is not None:
        return digest("result", "assignment", tenant_id, assignment_id)
    if request_id is not None:
        return f"{digest('result', 'request', tenant_id, request_id)}.*"
    raise ValueError("results are kept by assignment_id or request_id")


def _delimited(*parts: str) -> str:
    return "".join(f"{len(part.encode())}:{part}," for part in parts)


def digest(*parts: str) -> str:
    """A hash of parts that no other parts have, in the alphabet of bucket keys."""
    return hashlib.sha256(_delimited(*parts).encode()).hexdigest()[:40]
