"""``POST /api/v1/assignments`` and ``POST /api/v1/acks``."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.access import Permission, requires
from gateway.blueprints import once
from gateway.blueprints.body import load, take_ids
from gateway.idempotency import KeyType, fingerprint, mark_http_id
from gateway.operations import publish
from gateway.runtime import context, runtime
from gateway.schemas import ExecAssignment, ExecAssignmentAck
from gateway.schemas.base import Strict

blueprint = Blueprint("execution", __name__, url_prefix="/api/v1")
_ASSIGNMENT = ExecAssignment()
_ACK = ExecAssignmentAck()


@blueprint.post("/assignments")
@requires(Permission.ASSIGNMENTS_WRITE)
def assignments() -> Response:
    """Store an assignment for the workers."""
    subject = runtime().settings.assignment_subject
    return _store(_ASSIGNMENT, publish.ASSIGNMENTS, KeyType.ASSIGNMENT_ID, subject)


@blueprint.post("/acks")
@requires(Permission.ACKS_WRITE)
def acks() -> Response:
    """Store a worker's acknowledgement of an assignment."""
    subject = runtime().settings.assignment_subject + ".ack"
    return _store(_ACK, publish.ACKS, KeyType.ACK_ID, subject)


def _store(schema: Strict, operation: str, key_type: KeyType, subject: str) -> Response:
    body = load(schema, id_field=key_type)
    take_ids(body, request_id=operation == publish.ASSIGNMENTS)
    ctx = context()
    key = mark_http_id(ctx.tenant, key_type, body[key_type])
    publication = publish.execution(
        operation,
        key,
        fingerprint(body),
        body,
        ctx,
        subject=subject,
        on_claimed=runtime().counter(ctx.tenant, key_type, operation),
    )
    return once.publish(publication)
