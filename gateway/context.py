"""RequestContext: who asks, under which ids, in which phase, and until when. Frozen, made once a request."""

from __future__ import annotations

import random
import re
import time
import uuid
from typing import Final, NamedTuple, Self

from gateway.identity import Principal

ID_PATTERN: Final = re.compile(r"[!-~]{1,128}")
"""Ids: printable ASCII without blanks (wire contract, "Limits")."""
CP_PHASES: Final = frozenset(f"cp{n}" for n in range(9))
UNKNOWN_PHASE: Final = "unknown"

_HEX_TRACE: Final = re.compile(r"[0-9a-fA-F]{32}")
_UUID4: Final = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
)
_ZERO_TRACE: Final = "0" * 32


def normal_trace_id(text: str) -> str | None:
    """A trace id as the wire has it: 32 lower-case hex. From hex or UUIDv4; None for anything else."""
    if not (_HEX_TRACE.fullmatch(text) or _UUID4.fullmatch(text)):
        return None
    trace_id = text.replace("-", "").lower()
    return None if trace_id == _ZERO_TRACE else trace_id


def new_trace_id() -> str:
    """A random trace id, for when tracing made none."""
    return random.randbytes(16).hex()


def new_request_id() -> str:
    """A random UUIDv4. Not from the system's source, which is for secrets: asking it lets go of the GIL, and to get it
    back under load costs a request more than the rest of its arrival."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


class RequestContext(NamedTuple):
    """What the rest of the request needs to know about it. A tuple, which is changed six times a request: that costs a
    fifth of what it does with a frozen dataclass.

    ``principal`` is None until authentication is done. ``trace_id`` is the correlation id of the messages and
    answers; ``trace_id_given`` says that the client named it in a header, which beats one in the body.
    ``deadline`` is in monotonic seconds.
    """

    request_id: str
    trace_id: str
    cp_phase: str
    timeout_seconds: float
    deadline: float
    principal: Principal | None = None
    trace_id_given: bool = False

    @property
    def tenant_id(self) -> str | None:
        """The principal's tenant; None before authentication."""
        return self.principal.tenant_id if self.principal else None

    @property
    def caller(self) -> Principal:
        """The principal. Raises RuntimeError before authentication: never guess one."""
        if self.principal is None:
            raise RuntimeError("no principal: authentication has not run")
        return self.principal

    @property
    def tenant(self) -> str:
        """The principal's tenant. Raises RuntimeError before authentication."""
        return self.caller.tenant_id

    def of(self, principal: Principal) -> Self:
        """The same, of this caller."""
        return self._replace(principal=principal)

    def with_deadline_from_now(self) -> Self:
        """The same with its whole time ahead: for when the body has arrived at last."""
        return self._replace(deadline=time.monotonic() + self.timeout_seconds)

    def with_body_ids(self, *, request_id: str | None, trace_id: str | None) -> Self:
        """Take over ids that the body names: its request id wins, its trace id loses against a header."""
        return self._replace(
            request_id=request_id or self.request_id,
            trace_id=trace_id if trace_id and not self.trace_id_given else self.trace_id,
        )

    def correlation(self) -> dict[str, str]:
        """The ``context`` of a success body."""
        return {"request_id": self.request_id, "trace_id": self.trace_id}


def cp_phase_of(header: str | None, default: str) -> str:
    """The phase that ``X-CP-Phase`` names: a known one, ``unknown`` for anything else, ``default`` if absent."""
    if header is None:
        return default
    phase = header.strip().lower()
    return phase if phase in CP_PHASES else UNKNOWN_PHASE
