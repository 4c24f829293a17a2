"""What requests and answers look like: marshmallow schemas that validate, and that OpenAPI is made from.

Requests are strict: an unknown top-level field is refused and named, since a misspelt ``assignment_id`` must not
silently cost a client its idempotency.
"""

from gateway.schemas.answers import (
    BatchAnswer,
    DecisionAnswer,
    ErrorAnswer,
    HealthAnswer,
    LivezAnswer,
    OperationAnswer,
    ReadyzAnswer,
    ReceiptAnswer,
    ResultAnswer,
    StatusAnswer,
    UsageReceiptAnswer,
)
from gateway.schemas.decide import DecideEnvelope, DecideRequest
from gateway.schemas.execution import ExecAssignment, ExecAssignmentAck
from gateway.schemas.query import OperationQuery, ResultQuery, StreamQuery
from gateway.schemas.result import ExecResult
from gateway.schemas.usage import UsageBatch, UsageEvent

__all__ = [
    "BatchAnswer",
    "DecideEnvelope",
    "DecideRequest",
    "DecisionAnswer",
    "ErrorAnswer",
    "ExecAssignment",
    "ExecAssignmentAck",
    "ExecResult",
    "HealthAnswer",
    "LivezAnswer",
    "OperationAnswer",
    "OperationQuery",
    "ReadyzAnswer",
    "ReceiptAnswer",
    "ResultAnswer",
    "ResultQuery",
    "StatusAnswer",
    "StreamQuery",
    "UsageBatch",
    "UsageEvent",
    "UsageReceiptAnswer",
]
