"""Limits at the door: who spends which limit, in which order refusals come, and what clients are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import REGISTRY
from werkzeug.test import TestResponse

from gateway.errors import GatewayError
from gateway.limits import Limits
from gateway.openapi import document
from gateway.runtime import EXTENSION, Runtime
from gateway.windows import Windows
from tests.unit.gateway.given import (
    CALLER,
    DECIDE,
    DECIDE_BODY,
    STRANGER,
    app_without_nats,
    expect,
    post,
    settings,
)

OTHER = {"X-Tenant-ID": "umbrella", "X-Role": "admin"}
HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
PROBES = ("/livez", "/readyz", "/health", "/_health", "/metrics")

Gateway = Callable[..., Flask]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Makes the app with limits; what passes the door and the schema is answered 503, since there is no NATS."""
    made: list[Flask] = []

    def make(*, everybody: int = 0, tenant: int = 0, **environ: str) -> Flask:
        app = app_without_nats(
            RATE_LIMIT_GLOBAL_REQUESTS=str(everybody),
            RATE_LIMIT_TENANT_REQUESTS=str(tenant),
            **{"RATE_LIMIT_FILE": str(tmp_path / "limits.sqlite"), **environ},
        )
        made.append(app)
        return app

    yield make
    for app in made:
        runtime_of(app).limits.close()


def runtime_of(app: Flask) -> Runtime:
    runtime: Runtime = app.extensions[EXTENSION]
    return runtime


def told(answer: TestResponse) -> tuple[str | None, ...]:
    """Limit, what remains, and when it starts again."""
    return tuple(answer.headers.get(name) for name in HEADERS)


def refused(answer: TestResponse, limit: str) -> bool:
    """Whether the answer is a refusal, a proper one, by this limit. Fails on one by the other limit."""
    if answer.status_code != 429:
        return False
    body = expect(answer, 429, "rate_limit_exceeded")
    assert body["error"]["details"] == {"limit": limit}
    assert told(answer)[1] == "0"
    assert answer.headers["Retry-After"] == answer.headers["X-RateLimit-Reset"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    return True


def sample(name: str, limit: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", {"limit": limit}) or 0.0


# -- who spends what --------------------------------------------------------------------------------


def test_requests_over_the_tenants_limit_are_refused_and_counted(gateway: Gateway) -> None:
    app = gateway(tenant=2)
    before = sample("beamline_gateway_rate_limited_requests", "tenant")
    assert [post(app).status_code for _ in range(4)] == [503, 503, 429, 429]
    assert refused(post(app), "tenant")
    assert sample("beamline_gateway_rate_limited_requests", "tenant") == before + 3


def test_one_tenant_does_not_spend_anothers_limit(gateway: Gateway) -> None:
    app = gateway(tenant=1)
    post(app)
    assert refused(post(app), "tenant")
    assert post(app, headers=OTHER).status_code == 503


def test_who_names_another_tenant_spends_its_own_limit(gateway: Gateway) -> None:
    app = gateway(tenant=1)
    expect(post(app, body=DECIDE_BODY | {"tenant_id": "umbrella"}), 403, "denied")
    assert post(app, headers=OTHER).status_code == 503, "umbrella's was spent"
    assert refused(post(app), "tenant")


def test_the_global_limit_is_spent_by_everybody(gateway: Gateway) -> None:
    app = gateway(everybody=2)
    before = sample("beamline_gateway_rate_limited_requests", "global")
    post(app)
    post(app, headers=OTHER)
    assert refused(post(app, headers={"X-Tenant-ID": "third", "X-Role": "admin"}), "global")
    assert sample("beamline_gateway_rate_limited_requests", "global") == before + 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (DECIDE, 401),
        ("/nothing", 404),
        ("/api/v1/usage", 401),
        ("/docs", 308),
        ("/openapi.json", 200),
    ],
)
def test_without_credentials_only_the_global_limit_is_spent(
    gateway: Gateway, path: str, status: int
) -> None:
    app = gateway(everybody=3, tenant=1)
    client = app.test_client()
    method = "POST" if status == 401 else "GET"
    answers = [client.open(path, method=method, environ_base=STRANGER) for _ in range(2)]
    assert {answer.status_code for answer in answers} <= {status}
    assert post(app).status_code == 503, "the tenant's limit was spent"
    assert refused(client.open(path, method=method, environ_base=STRANGER), "global")


@pytest.mark.parametrize("path", PROBES)
def test_probes_spend_nothing_and_are_never_refused(gateway: Gateway, path: str) -> None:
    app = gateway(everybody=1, tenant=1)
    client = app.test_client()
    for _ in range(3):
        answer = client.get(path)
        assert answer.status_code in (200, 503)
        assert told(answer) == (None, None, None)
    assert post(app).status_code == 503
    assert refused(post(app), "global")
    assert client.get(path).status_code in (200, 503)


def test_what_the_global_limit_refuses_does_not_spend_the_tenants(gateway: Gateway) -> None:
    app = gateway(everybody=1, tenant=2)
    post(app)
    for _ in range(3):
        assert refused(post(app), "global")
    assert runtime_of(app).limits.check_tenant("acme")["X-RateLimit-Remaining"] == "0"
    with pytest.raises(GatewayError):
        runtime_of(app).limits.check_tenant("acme")


# -- the order of refusals --------------------------------------------------------------------------

BROKEN: dict[str, dict[str, Any]] = {
    "broken JSON": {"data": b'{"task": ', "content_type": "application/json"},
    "no JSON": {"data": b"hello", "content_type": "text/plain"},
    "empty": {"data": b"", "content_type": "application/json"},
    "too large": {"data": b" " * 2_000_000, "content_type": "application/json"},
    "broken headers": {"json": DECIDE_BODY, "headers": {"X-Trace-ID": "zz"}},
    "another tenant": {"json": DECIDE_BODY | {"tenant_id": "umbrella"}},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("limit", ["global", "tenant"])
def test_a_limit_comes_before_whatever_is_wrong_with_the_request(
    gateway: Gateway, broken: dict[str, Any], limit: str
) -> None:
    app = gateway(**{"everybody" if limit == "global" else "tenant": 1})
    client = app.test_client()

    def send() -> TestResponse:
        headers = {**CALLER, **broken.get("headers", {})}
        return client.post(DECIDE, **{**broken, "headers": headers})

    assert send().status_code in (400, 403, 413, 415)
    assert refused(send(), limit)


def test_the_global_limit_comes_before_authentication_and_the_tenants_after_it(
    gateway: Gateway,
) -> None:
    app = gateway(tenant=1)
    client = app.test_client()
    post(app)
    assert refused(post(app), "tenant")
    expect(client.post(DECIDE, headers=CALLER, environ_base=STRANGER), 401, "unauthorized")
    app = gateway(everybody=2, tenant=1)
    # The file is the one of before: acme's place is taken.
    assert refused(post(app), "tenant")
    post(app)
    assert refused(app.test_client().post(DECIDE, headers=CALLER, environ_base=STRANGER), "global")


@pytest.mark.parametrize(
    ("headers", "environ"),
    [
        (CALLER | {"X-Role": "nobody"}, {}),
        (CALLER, {"GATEWAY_TENANT_ALLOWLIST": "umbrella"}),
    ],
    ids=["role", "allowlist"],
)
def test_the_tenants_limit_comes_before_authorisation(
    gateway: Gateway, headers: dict[str, str], environ: dict[str, str]
) -> None:
    app = gateway(tenant=1, **environ)
    expect(post(app, headers=headers), 403, "denied")
    assert refused(post(app, headers=headers), "tenant")


def test_the_global_limit_comes_before_the_gate(gateway: Gateway) -> None:
    app = gateway(everybody=2, GATEWAY_THREADS="8")
    gate = runtime_of(app).gate
    while gate.enter():
        pass
    expect(post(app), 503, "overloaded")
    expect(post(app), 503, "overloaded")
    assert refused(post(app), "global")


# -- what is told -----------------------------------------------------------------------------------


def test_allowed_answers_tell_the_tenants_limit(gateway: Gateway) -> None:
    app = gateway(everybody=100, tenant=3)
    assert [told(post(app)) for _ in range(3)] == [
        ("3", "2", "60"),
        ("3", "1", "60"),
        ("3", "0", "60"),
    ]


def test_allowed_answers_tell_the_global_limit_if_that_is_the_only_one(gateway: Gateway) -> None:
    app = gateway(everybody=3)
    assert told(post(app)) == ("3", "2", "60")
    assert told(app.test_client().get("/nothing")) == ("3", "1", "60")


def test_answers_before_the_tenant_is_known_do_not_mix_two_limits(gateway: Gateway) -> None:
    app = gateway(everybody=10, tenant=3)
    client = app.test_client()
    assert told(client.get("/nothing")) == (None, None, None)
    assert told(client.post(DECIDE, environ_base=STRANGER)) == (None, None, None)


def test_without_limits_nothing_is_told_and_nothing_opened(
    gateway: Gateway, tmp_path: Path
) -> None:
    assert told(post(gateway())) == (None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_the_api_description_tells_the_headers_that_answers_have(gateway: Gateway) -> None:
    app = gateway(tenant=1)
    answers = {answer.status_code: answer for answer in (post(app), post(app))}
    operations = [operation for path in document()["paths"].values() for operation in path.values()]
    limited = [operation for operation in operations if operation.get("security") != []]
    assert limited
    for operation in limited:
        described = operation["responses"]["429"]["headers"]
        assert set(described) == {"Retry-After", *HEADERS}
        assert set(described) <= set(answers[429].headers.keys())
        successes = [answer for status, answer in operation["responses"].items() if status < "3"]
        assert successes
        assert all(set(answer["headers"]) == set(HEADERS) for answer in successes)


# -- when nothing can be counted --------------------------------------------------------------------


def test_without_a_file_to_count_in_the_app_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RATE_LIMIT_FILE"):
        app_without_nats(RATE_LIMIT_TENANT_REQUESTS="1")


def test_requests_pass_and_are_counted_in_a_metric_when_the_file_cannot_be_used(
    gateway: Gateway, tmp_path: Path
) -> None:
    app = gateway(everybody=1, tenant=1, RATE_LIMIT_FILE=str(tmp_path / "missing" / "file"))
    name = "beamline_gateway_rate_limit_uncounted_requests"
    before = {limit: sample(name, limit) for limit in ("global", "tenant")}
    for _ in range(3):
        answer = post(app)
        assert answer.status_code == 503
        assert told(answer) == (None, None, None)
    assert {limit: sample(name, limit) - before[limit] for limit in before} == {
        "global": 3,
        "tenant": 3,
    }


def test_the_log_says_once_a_minute_that_requests_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    windows = Windows(tmp_path / "missing" / "file", 60_000)
    limits = Limits(windows, of_tenant=1, clock=lambda: now[0])

    def lines() -> list[str]:
        return [
            record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
        ]

    for _ in range(5):
        limits.check_tenant("acme")
    assert len(lines()) == 1
    assert "unable to open" in lines()[0]
    now[0] += 59.9
    limits.check_tenant("acme")
    assert len(lines()) == 1
    now[0] += 0.1
    limits.check_tenant("acme")
    assert len(lines()) == 2


def test_settings_of_the_limits_have_bounds_that_make_sense() -> None:
    made = settings()
    assert (made.rate_limit_global_requests, made.rate_limit_tenant_requests) == (0, 0)
    assert made.rate_limit_window_ms == 60_000
    assert made.rate_limit_file is None
