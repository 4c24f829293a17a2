"""The description against the gateway: whatever fits it or does not, no 5xx, no undocumented status, no strange body.

Schemathesis makes the requests from ``/openapi.json``, valid ones and broken ones, for every kind of caller.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, BaseSchema, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.access_credentials import DEFAULT_ROLES, bearer
from tests.support.access_routes import routes
from tests.support.access_stack import Guarded, running_guarded
from tests.support.documents import now_ms

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ROLES: Final = {
    role: set(table["permissions"]) for role, table in tomllib.loads(DEFAULT_ROLES.decode()).items()
}
#: Examples of each kind an operation; who may do most is asked most.
EXAMPLES: Final = {"admin": 12, "operator": 2, "service": 2, "viewer": 2, "token": 4}


@dataclass(frozen=True)
class Described:
    """A gateway, and what it says of itself."""

    url: str
    schema: BaseSchema
    headers: Mapping[str, str]
    role: str
    examples: int


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with running_guarded("described", tmp_path_factory.mktemp("described")) as started:
        yield started


@pytest.fixture(params=EXAMPLES)
def described(request: pytest.FixtureRequest, guarded: Guarded) -> Described:
    by_token = request.param == "token"
    role = "admin" if by_token else request.param
    gateway = guarded.by_token if by_token else guarded.gateway
    credential = (
        guarded.signing.token(roles=[role]) if by_token else guarded.keys.make("acme", role)
    )
    schema = schemathesis.openapi.from_dict(requests.get(f"{gateway.url}/openapi.json").json())
    # The credential is a real one, and not made up.
    schema.config.generation.update(with_security_parameters=False)
    return Described(gateway.url, schema, bearer(credential), role, EXAMPLES[request.param])


def permissions() -> dict[str, str]:
    """``GET /api/v1/results/{assignment_id}`` → the permission that it needs, or ``-``."""
    return {f"{method} {_as_described(rule)}": permission for method, rule, permission in routes()}


def _as_described(rule: str) -> str:
    """Flask's ``<path:id>`` as OpenAPI's ``{id}``."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def test_no_request_finds_a_5xx_an_undocumented_status_or_a_body_that_is_not_as_described(
    described: Described,
) -> None:
    needed = permissions()
    answered = Counter[str]()
    with requests.Session() as session:
        session.headers.update(described.headers)
        for found in described.schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()
            statuses = Counter[int]()
            for mode in GenerationMode:
                statuses += ask(operation, mode, described, session)
            permission = needed[operation.label]
            if permission != "-" and permission not in ROLES[described.role]:
                assert set(statuses) == {403}, (operation.label, statuses)
            else:
                assert 401 not in statuses, (operation.label, statuses)
                answered[operation.label] = statuses.total() - statuses[403]
    assert all(answered.values()), f"nobody got beyond the door: {answered}"


def ask(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    described: Described,
    session: requests.Session,
) -> Counter[int]:
    """Send requests of a kind, and check every answer; the statuses."""
    statuses = Counter[int]()

    @hypothesis_settings(
        max_examples=described.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case[Any]) -> None:
        made_bearable(case)
        response = case.call(base_url=described.url, session=session)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    try:
        send()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, (
            "an operation that takes nothing cannot be asked wrongly"
        )
    return statuses


def made_bearable(case: Case[Any]) -> None:
    """Bound what a client may ask for on purpose, and let what is valid get beyond the first check."""
    if case.headers:
        case.headers.pop("X-Request-Timeout-Ms", None)  # 504 is the right answer to 1 ms
    if isinstance(case.query, dict):
        if case.path.endswith("/stream"):
            case.query["close_after_ms"] = 100
        if "wait_ms" in case.query:
            case.query["wait_ms"] = (
                min(case.query["wait_ms"], 20) if _is_whole(case.query["wait_ms"]) else "x"
            )
    for body in _documents(case.body):
        if isinstance(body.get("tenant_id"), str):
            body["tenant_id"] = "acme"
        if _is_whole(body.get("timestamp")):
            body["timestamp"] = now_ms()


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _documents(body: Any) -> Iterator[dict[str, Any]]:
    """The objects in a body that may name a tenant: itself, an older envelope's message, a batch's events."""
    if isinstance(body, dict):
        yield body
        inner = body.get("events")
        for one in (body.get("message"), *(inner if isinstance(inner, list) else [])):
            if isinstance(one, dict):
                yield one
