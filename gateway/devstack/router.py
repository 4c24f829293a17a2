"""The reference Router: answers ``beamline.router.v1.decide`` as strictly as the wire contract reads.

It refuses every request that breaks the contract with the right ``code`` and ``intake_error_code``, and
answers a repeated ``idempotency_key`` (per tenant, the last 100,000) with silence, as the real one does.
It continues the trace of each request, and keeps nothing over a restart.

``policy_id`` of a valid request tells it what to do; any name not listed here decides:

=================================  =====================================================================
``error:<code>``                   answer that runtime error (any code of the contract, or any other)
``error:<code>:<INTAKE>``          the same as an intake error: with ``intake_error_code``, no request id
``unknown-code``                   an error whose code the contract does not know
``silence``                        no answer, ever
``delay:<ms>``                     decide, but answer only after so long
``late:<ms>``                      answer after so long with the provider ``reference:late``: whoever
                                   sees that one was given an answer that came after its deadline
``broken-json``, ``empty-reply``,  bytes that are no JSON
``not-utf8``
``wrong-shape``, ``wrong-shape:``  JSON that is no reply; after the colon ``list``, ``null``, ``ok``,
                                   ``decision``, ``provider``, ``error`` or ``code`` (what is wrong)
``without:<provider>``             decide as if that provider were gone
=================================  =====================================================================

Providers that are there: ``REFERENCE_ROUTER_PROVIDERS`` (comma list), else four built-in ones. Run it with
``python -m gateway.devstack.router``; ``NATS_URL`` says where (`gateway.devstack.service_process`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections import OrderedDict
from typing import Any, Final

import orjson
from opentelemetry.trace import SpanKind

from bridge import BridgeError, Bus, Message
from gateway.devstack import answers
from gateway.devstack.behaviour import Behaviour, BehaviourError, behaviour_of
from gateway.devstack.contract import (
    ContractError,
    DecideRequest,
    Intake,
    envelope_headers,
    read_decide_request,
    read_exec_ack,
    read_exec_result,
    subjects,
)
from gateway.devstack.providers import Catalogue
from gateway.devstack.service_process import run_services
from gateway.devstack.tracing import continued, handling

QUEUE: Final = "reference-router"

_SEEN_KEYS: Final = 100_000
_PUBLISH_SECONDS: Final = 2.0
_log = logging.getLogger("router")


class ReferenceRouter:
    """See the module's docstring. Its services run on one bridge's loop."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def decide(self, bus: Bus) -> None:
        """Service: answer decide requests, all at once, until cancelled."""
        async with (
            bus.subscribe(subjects.DECIDE, queue=QUEUE) as requests,
            asyncio.TaskGroup() as group,
        ):
            _log.info("listening to %s", subjects.DECIDE)
            async for request in requests:
                group.create_task(self._answer(bus, request))

    async def hear_acks(self, bus: Bus) -> None:
        """Service: read what executors say about assignments, strictly, and log it."""
        async with bus.subscribe(subjects.ACK, queue=QUEUE) as messages:
            async for message in messages:
                with handling("router.ack", message, SpanKind.CONSUMER):
                    _hear_ack(message)

    async def hear_results(self, bus: Bus) -> None:
        """Service: read results, strictly, and log them."""
        async with bus.subscribe(subjects.RESULT, queue=QUEUE) as messages:
            async for message in messages:
                with handling("router.result", message, SpanKind.CONSUMER):
                    _hear_result(message)

    # -- one request --------------------------------------------------------------------------------

    async def _answer(self, bus: Bus, message: Message) -> None:
        try:
            with handling("router.decide", message, SpanKind.SERVER):
                await self._answer_or_keep_silent(bus, message)
        except BridgeError as error:
            _log.warning("could not answer: %s", error)
        except Exception:
            # One request must not end the service for the others.
            _log.exception("a request failed")
            failed = answers.failure(
                "internal", "the reference Router failed", intake=Intake.INTERNAL_VALIDATION_ERROR
            )
            with contextlib.suppress(BridgeError):
                await bus.reply(message, orjson.dumps(failed))

    async def _answer_or_keep_silent(self, bus: Bus, message: Message) -> None:
        try:
            request = read_decide_request(message.payload, message.headers)
        except ContractError as error:
            _log.warning("refused a request: %s", error)
            refusal = answers.intake_failure(error, message.headers.get("trace_id"))
            await bus.reply(message, orjson.dumps(refusal), headers={"version": "1"})
            return
        try:
            behaviour = behaviour_of(request.policy_id)
        except BehaviourError as error:
            unknown = f"policy {request.policy_id}: {error}"
            await self._reply(
                bus, message, request, answers.failure("policy_not_found", unknown, request=request)
            )
            return
        if self._repeated(request) or behaviour.silent:
            _log.info("silent about %s", request.request_id)
            return
        await asyncio.sleep(behaviour.delay_ms / 1000)
        if behaviour.raw_reply is not None:
            await bus.reply(message, behaviour.raw_reply)
            return
        await self._reply(bus, message, request, await self._outcome(bus, request, behaviour))

    async def _outcome(
        self, bus: Bus, request: DecideRequest, behaviour: Behaviour
    ) -> dict[str, Any]:
        if behaviour.error_code is not None:
            return answers.failure(
                behaviour.error_code,
                f"asked for by the policy {request.policy_id}",
                request=request,
                intake=behaviour.intake,
            )
        if behaviour.late:
            return answers.success(request, answers.late_decision(request))
        decision = answers.decide(request, self._catalogue, behaviour.without)
        if decision is None:
            return answers.failure("decision_failed", "no provider is left", request=request)
        if request.push_assignment:
            try:
                await self._assign(bus, request, decision)
            except BridgeError as error:
                why = f"the assignment could not be published: {error}"
                return answers.failure("internal", why, request=request)
        return answers.success(request, decision)

    async def _assign(self, bus: Bus, request: DecideRequest, decision: dict[str, Any]) -> None:
        published = answers.assignment(request, decision)
        headers = envelope_headers(request.envelope, answers.assignment_msg_id(published))
        stored = await bus.publish(
            subjects.ASSIGN,
            orjson.dumps(published),
            headers=headers,
            deadline=time.monotonic() + _PUBLISH_SECONDS,
        )
        _log.info("assigned %s (%s/%d)", published["assignment_id"], stored.stream, stored.seq)

    async def _reply(
        self, bus: Bus, message: Message, request: DecideRequest, reply: dict[str, Any]
    ) -> None:
        outcome = reply["decision"]["provider_id"] if reply["ok"] else reply["error"]["code"]
        _log.info(
            "decide tenant=%s request=%s trace=%s → %s",
            request.envelope.tenant_id,
            request.request_id,
            request.envelope.trace_id,
            outcome,
        )
        headers = continued(envelope_headers(request.envelope))
        await bus.reply(message, orjson.dumps(reply), headers=headers)

    def _repeated(self, request: DecideRequest) -> bool:
        if request.idempotency_key is None:
            return False
        key = (request.envelope.tenant_id, request.idempotency_key)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > _SEEN_KEYS:
            self._seen.popitem(last=False)
        return False


def _hear_ack(message: Message) -> None:
    try:
        ack = read_exec_ack(message.payload, message.headers)
    except ContractError as error:
        _log.warning("refused an ack: %s", error)
    else:
        _log.info("ack of %s: %s", ack.assignment_id, ack.status)


def _hear_result(message: Message) -> None:
    try:
        result = read_exec_result(message.payload, message.headers)
    except ContractError as error:
        _log.warning("refused a result: %s", error)
    else:
        _log.info(
            "result of %s from %s: %s",
            result.assignment_id or result.request_id,
            result.provider_id,
            result.status,
        )


def main() -> int:
    """Run the Router in this process; the exit status."""
    router = ReferenceRouter(Catalogue.from_environ(os.environ))
    services = (router.decide, router.hear_acks, router.hear_results)
    return run_services("reference-router", services, os.environ)


if __name__ == "__main__":
    sys.exit(main())
