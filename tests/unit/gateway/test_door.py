"""The door: of several things that are wrong the first one by the contract's precedence is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from tests.unit.gateway.given import (
    CALLER,
    DECIDE,
    DECIDE_BODY,
    STRANGER,
    TENANT,
    app_without_nats,
    expect,
    post,
    post_bytes,
)

PROXY = {"REMOTE_ADDR": "127.0.0.1"}


@pytest.fixture(scope="module")
def gateway() -> Flask:
    return app_without_nats(GATEWAY_POLICY_ALLOWLIST="default,other")


# -- precedence: each step hides what comes after it -------------------------------------------------

EVERYTHING_WRONG: dict[str, Any] = {
    "data": b"{",
    "headers": {"X-Trace-ID": "none", "Content-Type": "text/plain"},
}


def test_an_unknown_path_is_404_before_anybody_is_asked_who_they_are(gateway: Flask) -> None:
    answer = gateway.test_client().post("/nowhere", environ_base=STRANGER, **EVERYTHING_WRONG)
    expect(answer, 404, "not_found")
    assert answer.headers.get("WWW-Authenticate") is None


def test_a_method_that_the_path_does_not_take_is_405_and_says_which_it_takes(
    gateway: Flask,
) -> None:
    answer = gateway.test_client().put(DECIDE, environ_base=STRANGER, **EVERYTHING_WRONG)
    expect(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("environ", [STRANGER, PROXY], ids=["stranger", "proxy without identity"])
def test_authentication_comes_before_headers_type_and_body(
    gateway: Flask, environ: dict[str, str]
) -> None:
    answer = gateway.test_client().post(DECIDE, environ_base=environ, **EVERYTHING_WRONG)
    expect(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"]


def test_a_tenant_that_is_not_served_comes_before_headers_type_and_body() -> None:
    gateway = app_without_nats(GATEWAY_TENANT_ALLOWLIST="umbrella")
    headers = {**CALLER, **EVERYTHING_WRONG["headers"]}
    answer = gateway.test_client().post(DECIDE, data=b"{", headers=headers)
    body = expect(answer, 403, "denied")
    assert body["context"]["tenant_id"] == TENANT


def test_headers_of_the_request_come_before_type_and_body(gateway: Flask) -> None:
    headers = {**CALLER, **EVERYTHING_WRONG["headers"]}
    answer = gateway.test_client().post(DECIDE, data=b"{", headers=headers)
    body = expect(answer, 400, "invalid_request")
    assert "X-Trace-ID" in body["error"]["message"]


def test_the_media_type_comes_before_the_body(gateway: Flask) -> None:
    answer = post_bytes(gateway, b"{", "text/plain")
    expect(answer, 415, "unsupported_media_type")


def test_the_size_comes_before_what_the_body_says() -> None:
    gateway = app_without_nats(GATEWAY_BODY_MAX_BYTES="1024")
    answer = post_bytes(gateway, b"{" * 1025)
    expect(answer, 413, "payload_too_large")


def test_a_wrong_body_comes_before_the_tenant_and_policy_in_it(gateway: Flask) -> None:
    body = {**DECIDE_BODY, "tenant_id": "umbrella", "policy_id": "secret", "version": "2"}
    assert "version" in expect(post(gateway, body=body), 400, "invalid_request")["error"]["message"]


def test_another_tenant_in_the_body_is_denied(gateway: Flask) -> None:
    expect(post(gateway, body={**DECIDE_BODY, "tenant_id": "umbrella"}), 403, "denied")
    expect(post(gateway, body={**DECIDE_BODY, "tenant_id": TENANT}), 503, "unavailable")


def test_a_policy_outside_the_allowlist_is_denied(gateway: Flask) -> None:
    expect(post(gateway, body={**DECIDE_BODY, "policy_id": "secret"}), 403, "denied")
    expect(post(gateway, body={**DECIDE_BODY, "policy_id": "other"}), 503, "unavailable")
    expect(post(gateway), 503, "unavailable")


def test_when_all_is_right_only_nats_is_missing(gateway: Flask) -> None:
    answer = post(gateway)
    body = expect(answer, 503, "unavailable")
    assert body["context"]["tenant_id"] == TENANT
    assert answer.headers["Retry-After"] == "1"


# -- overload -----------------------------------------------------------------------------------------


@contextmanager
def occupied(gateway: Flask, places: int) -> Iterator[None]:
    """Requests that hold every place: their bodies do not come to an end until this does."""
    done = threading.Event()
    inside = threading.Barrier(places + 1)

    class Body:
        def read(self, _size: int = -1) -> bytes:
            inside.wait(20)
            done.wait(20)
            return b""

    def send() -> None:
        gateway.test_client().post(
            DECIDE,
            headers=CALLER,
            content_type="application/json",
            environ_overrides={"wsgi.input": Body(), "CONTENT_LENGTH": "9"},
        )

    threads = [threading.Thread(target=send) for _ in range(places)]
    for thread in threads:
        thread.start()
    try:
        inside.wait(20)
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(20)


def test_a_full_worker_answers_503_before_anything_else_and_its_probes_answer() -> None:
    gateway = app_without_nats(GATEWAY_MAX_IN_FLIGHT="2")
    client = gateway.test_client()
    with occupied(gateway, 2):
        nobody = client.post(DECIDE, environ_base=STRANGER, **EVERYTHING_WRONG)
        body = expect(nobody, 503, "overloaded")
        assert body["context"]["tenant_id"] is None
        assert nobody.headers["Retry-After"]
        expect(client.post("/nowhere"), 503, "overloaded")
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert client.get("/livez").status_code == 503  # the bridge was not started
    expect(post(gateway), 503, "unavailable")


def test_every_place_is_given_back_however_the_request_ends() -> None:
    gateway = app_without_nats(GATEWAY_MAX_IN_FLIGHT="1")
    client = gateway.test_client()
    for _ in range(3):
        expect(client.post("/nowhere"), 404, "not_found")
        expect(client.put(DECIDE), 405, "method_not_allowed")
        expect(client.post(DECIDE), 401, "unauthorized")
        expect(post(gateway, body=[]), 400, "invalid_request")
        expect(post(gateway), 503, "unavailable")
        assert client.get("/openapi.json").status_code == 200
