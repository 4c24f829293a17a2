"""``POST /api/v1/routes/decide``."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.access import Permission, requires
from gateway.blueprints import once
from gateway.blueprints.body import load, take_ids
from gateway.door import respond
from gateway.idempotency import KeyType, fingerprint, mark_http_id
from gateway.operations import decide
from gateway.runtime import context, runtime
from gateway.schemas import DecideRequest

blueprint = Blueprint("routes", __name__, url_prefix="/api/v1/routes")
_SCHEMA = DecideRequest()


@blueprint.post("/decide")
@requires(Permission.ROUTES_DECIDE)
def decide_route() -> Response:
    """Ask the Router which provider takes a task."""
    parts = runtime()
    request = load(_SCHEMA, id_field=KeyType.ASSIGNMENT_ID, id_required=False)
    parts.admission.allowlists.check_policy(request.get("policy_id"))
    take_ids(request, request_id=True)
    ctx = context()
    asked = decide.question(
        request,
        ctx,
        subject=parts.settings.decide_subject,
        session_field=parts.settings.sticky_session_key,
    )
    count = parts.sticky_counter(ctx.tenant)
    if (assignment_id := request.get(KeyType.ASSIGNMENT_ID)) is not None:
        key = mark_http_id(ctx.tenant, KeyType.ASSIGNMENT_ID, assignment_id)
        return once.decide_once(key, fingerprint(request), asked, count)
    decision = parts.cross(
        lambda bus: decide.ask(bus, asked, parts.sessions, count), ctx.deadline, publishing=False
    )
    return respond(decision.body, headers=once.sticky_header(decision.sticky))
