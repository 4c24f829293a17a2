"""Bodies over HTTP: read once, and every mistake is a sentence that names the field."""

from __future__ import annotations

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.gateway.given import (
    CALLER,
    DECIDE_BODY,
    app_without_nats,
    expect,
    post,
    post_bytes,
)

GATEWAY = app_without_nats()
"""One for all examples of a property: no fixture is made again for each."""


@pytest.fixture
def gateway() -> Flask:
    return GATEWAY


@pytest.mark.parametrize(
    "name", ["json", "_schema", ".hidden", "a.b", "", "\n", "details", "k" * 5000], ids=repr
)
def test_an_unknown_field_is_named_whatever_its_name(gateway: Flask, name: str) -> None:
    error = expect(post(gateway, body={**DECIDE_BODY, name: 1}), 400, "invalid_request")["error"]
    assert error["details"]["fields"] == {name: "is not a field of this request"}
    assert name in error["message"]


def test_a_wrong_field_is_named_by_its_path(gateway: Flask) -> None:
    body = {"task": {"type": 7, "payload": {"text": "hello there"}}}
    error = expect(post(gateway, body=body), 400, "invalid_request")["error"]
    assert list(error["details"]["fields"]) == ["task.type"]


def test_many_wrong_fields_are_counted_out_not_echoed_without_end(gateway: Flask) -> None:
    body = {**DECIDE_BODY, **{f"x{n}": n for n in range(5000)}}
    error = expect(post(gateway, body=body), 400, "invalid_request")["error"]
    assert len(error["details"]["fields"]) <= 20


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"{", b"null", b"[]", b"1", b'"x"', b"{'a': 1}", b'{"a": NaN}', b'{"a": 1e400}',
     b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}", b"{}{}", b"[" * 2000],
)  # fmt: skip
def test_what_is_no_json_object_is_400(gateway: Flask, text: bytes) -> None:
    expect(post_bytes(gateway, text), 400, "invalid_request")


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/json; charset=utf-8", True),
        ('application/json;charset="UTF-8"', True),
        ("application/json; charset=latin-1", False),
        ("application/problem+json", False),
        ("text/json", False),
        ("application/x-www-form-urlencoded", False),
        ("", False),
        (None, False),
    ],
)
def test_the_body_must_say_that_it_is_json(
    gateway: Flask, content_type: str | None, taken: bool
) -> None:
    answer = post_bytes(gateway, b'{"task":{"type":"x","payload_ref":"y"}}', content_type)
    if taken:
        expect(answer, 503, "unavailable")
    else:
        expect(answer, 415, "unsupported_media_type")


def test_a_compressed_body_is_not_guessed_at(gateway: Flask) -> None:
    answer = post(gateway, headers={**CALLER, "Content-Encoding": "gzip"})
    expect(answer, 415, "unsupported_media_type")


@hypothesis_settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_body_makes_the_gateway_fail(text: bytes) -> None:
    assert post_bytes(GATEWAY, text).status_code in (400, 403, 503)
