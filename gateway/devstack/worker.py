"""The reference worker: takes assignments, acknowledges them and returns results, as the contract says.

A durable pull consumer (``reference-worker``, shared by all processes of it) of ``caf.exec.assign.v1``.
Each assignment yields one ExecAssignmentAck and then one ExecResult. Their ids and ``Nats-Msg-Id`` follow
from tenant and assignment alone, so that an assignment that is delivered twice leaves one of each on the
stream. An assignment that breaks the contract is acknowledged as ``rejected`` if it says whose it is, and
has no result.

``job.type`` asks for something else than success:

================  ========================================================================
``fail``          a result with status ``error``, ``error_code`` and ``error_message``
``timeout``       a result with status ``timeout``
``cancel``        a result with status ``cancelled``
``reject``        the acknowledgement says ``rejected``; no result
``no-result``     accepted; no result
``slow:<ms>``     success, but only after so long (at most 20,000)
================  ========================================================================

Run it with ``python -m gateway.devstack.worker``; ``NATS_URL`` says where
(`gateway.devstack.service_process`). While no stream holds the subject it waits for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

import orjson

from bridge import Bus, ConsumerSpec, Delivery
from gateway.devstack import reports
from gateway.devstack.contract import ContractError, read_exec_assignment, subjects
from gateway.devstack.reports import Report
from gateway.devstack.service_process import run_services

DURABLE: Final = "reference-worker"
_PUBLISH_SECONDS: Final = 5.0
_log = logging.getLogger("worker")


def assignments(environ: Mapping[str, str]) -> ConsumerSpec:
    """The consumer. ``NATS_ACK_WAIT_MS``: how long a worker that says nothing keeps an assignment."""
    ack_wait_ms = int(environ.get("NATS_ACK_WAIT_MS") or "30000")
    return ConsumerSpec(subject=subjects.ASSIGN, durable=DURABLE, ack_wait_ms=ack_wait_ms)


async def work(bus: Bus, spec: ConsumerSpec) -> None:
    """Service: work off assignments until cancelled."""

    async def take(delivery: Delivery) -> None:
        try:
            assignment = read_exec_assignment(delivery.payload, delivery.headers)
        except ContractError as error:
            _log.warning("refused assignment %d: %s", delivery.stream_seq, error)
            refusal = reports.refusal(delivery.payload, delivery.headers, str(error))
            if refusal is not None:
                await _publish(bus, refusal)
            return
        ack = reports.acknowledgement(assignment)
        await _publish(bus, ack)
        outcome = reports.outcome_of(assignment.job_type)
        if outcome is None:
            _log.info("took %s, without a result", assignment.assignment_id)
            return
        await asyncio.sleep(outcome.delay_ms / 1000)
        await _publish(bus, reports.result(assignment, outcome, now_ms=time.time_ns() // 1_000_000))
        _log.info(
            "%s for %s, tenant=%s trace=%s: %s",
            assignment.job_type,
            assignment.assignment_id,
            assignment.envelope.tenant_id,
            assignment.envelope.trace_id,
            outcome.status,
        )

    _log.info("taking assignments from %s", spec.subject)
    await bus.consume(spec, take)


async def _publish(bus: Bus, report: Report) -> None:
    # An error here redelivers the assignment; what was stored already is recognised by its id.
    await bus.publish(
        report.subject,
        orjson.dumps(report.payload),
        headers=report.headers,
        deadline=time.monotonic() + _PUBLISH_SECONDS,
    )


def main() -> int:
    """Run the worker in this process; the exit status."""
    spec = assignments(os.environ)
    return run_services("reference-worker", (lambda bus: work(bus, spec),), os.environ)


if __name__ == "__main__":
    sys.exit(main())
