"""``GET /api/v1/operations/{operation}/{id}``: what is known of one of the caller's own ids."""

from __future__ import annotations

from flask import Blueprint, Response

from gateway.access import Permission, requires
from gateway.blueprints.query import load_query
from gateway.context import ID_PATTERN
from gateway.door import respond
from gateway.errors import ErrorCode, GatewayError, invalid_request
from gateway.idempotency import mark_http_id
from gateway.operations import inspect
from gateway.runtime import context, runtime
from gateway.schemas import OperationQuery

blueprint = Blueprint("operations", __name__, url_prefix="/api/v1/operations")
_QUERY = OperationQuery()


@blueprint.get("/<operation>/<path:id>")
@blueprint.get("/<operation>", defaults={"id": None})
@requires(Permission.OPERATIONS_READ)
def operation(operation: str, id: str | None) -> Response:
    """The state of an id; another tenant's is as unknown as one that was never used."""
    if operation not in inspect.KEY_TYPES:
        known = ", ".join(inspect.KEY_TYPES)
        raise GatewayError(ErrorCode.NOT_FOUND, f"There is no such operation; there are {known}.")
    given = id if id is not None else load_query(_QUERY).get("id")
    if given is None:
        raise invalid_request("id is required, in the path or as ?id=.")
    if not ID_PATTERN.fullmatch(given):
        raise invalid_request("id must be 1 to 128 printable ASCII characters without blanks.")
    ctx = context()
    key = mark_http_id(ctx.tenant, inspect.KEY_TYPES[operation], given)
    seen = runtime().cross(
        lambda bus: inspect.look(bus, operation, key, ctx.deadline), ctx.deadline, publishing=False
    )
    if seen is None:
        raise GatewayError(ErrorCode.NOT_FOUND, "Nothing is known of this id.")
    return respond({"ok": True, **seen, "context": ctx.correlation()})
