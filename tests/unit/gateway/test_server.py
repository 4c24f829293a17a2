"""What the server refuses itself: the same statuses as gunicorn's own, in the contract's body."""

from __future__ import annotations

import json
import logging
import socket
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from gunicorn.http import errors
from gunicorn.workers.base import Worker as PlainWorker

from gateway import refused
from gateway.server import status_of

CANARY = "canary-5ecret"
ERRORS = sorted(
    (
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.ParseException)
        and kind is not errors.ParseException
        # Of a protocol between proxies that the gateway does not speak; gunicorn calls it a failure of its own.
        and kind.__name__ != "InvalidProxyHeader"
    ),
    key=lambda kind: kind.__name__,
)


def instance(kind: type[Exception]) -> Exception:
    try:
        return kind(CANARY)
    except TypeError:
        return kind()


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_gunicorn_has_the_status_that_gunicorn_gives_it(kind: type[Exception]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        plain = SimpleNamespace(log=logging.getLogger("nobody"))
        PlainWorker.handle_error(plain, None, ours, ("127.0.0.1", 1), instance(kind))  # type: ignore[arg-type]
        answered = int(theirs.recv(4096).split()[1])
    assert status_of(instance(kind)) == answered


def test_what_is_no_error_of_the_client_is_a_failure_of_ours() -> None:
    assert status_of(RuntimeError()) is HTTPStatus.INTERNAL_SERVER_ERROR


def test_the_answer_is_a_whole_one_with_the_contracts_body() -> None:
    answer = refused.answer(HTTPStatus.BAD_REQUEST, "The request cannot be read.", reason="X")
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert f"Content-Length: {len(body)}" in lines and "Connection: close" in lines
    told = json.loads(body)
    assert told["error"] == {
        "code": "invalid_request",
        "message": "The request cannot be read.",
        "intake_error_code": None,
        "details": {},
    }
    assert told["context"]["tenant_id"] is None
    assert f"X-Trace-ID: {told['context']['trace_id']}" in lines


def test_a_failure_of_ours_says_nothing_of_what_failed() -> None:
    answer = refused.answer(HTTPStatus.INTERNAL_SERVER_ERROR, CANARY, reason=CANARY)
    assert b" 500 " in answer and b'"internal"' in answer and CANARY.encode() not in answer
