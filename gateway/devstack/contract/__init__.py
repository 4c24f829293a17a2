"""The wire contract as the receiving side reads it: pure functions from bytes and headers to values.

`read_decide_request`, `read_exec_assignment`, `read_exec_ack` and `read_exec_result` return what a
message says or raise `ContractError` with everything that is wrong with it. They neither log nor send,
and share no code with the gateway's own schemas: two independent readings of one contract, so that each
finds the other's mistakes (tests use these as the oracle for what the gateway sends).
"""

from gateway.devstack.contract.decide_request import DecideRequest, Task, read_decide_request
from gateway.devstack.contract.exec_messages import (
    ExecAck,
    ExecAssignment,
    ExecResult,
    read_exec_ack,
    read_exec_assignment,
    read_exec_result,
)
from gateway.devstack.contract.headers import Envelope, envelope_headers, read_headers
from gateway.devstack.contract.violations import ContractError, Intake, Violation

__all__ = [
    "ContractError",
    "DecideRequest",
    "Envelope",
    "ExecAck",
    "ExecAssignment",
    "ExecResult",
    "Intake",
    "Task",
    "Violation",
    "envelope_headers",
    "read_decide_request",
    "read_exec_ack",
    "read_exec_assignment",
    "read_exec_result",
    "read_headers",
]
