"""Redaction: credentials, the process' own secrets and e-mail addresses never pass; everything else does."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.settings import Settings
from gateway.telemetry.logging.redaction import Redactor, secrets_in_force

PASSWORD = "c0rrect/h@rse"
BASIC = base64.b64encode(b"user:battery-staple").decode()
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2lnbmF0dXJlLXN0YXBsZQ"
SEED = "SUAOTX6BFVIPSVCTPCNC7CWPRLVMGUDXSDSPGWKC6JWPHYAGGFUVBYQ4FU"
CREDENTIALS_FILE = f"""-----BEGIN NATS USER JWT-----
{JWT}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""
KEY = "blk_0a1b2c3d_" + "hH739b9GsXGH1KOyG4GnZFFM3eDd7vnR4TpU48EG8is"
"""The same in every process: its tests are named by it."""


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} is not known", KEY[13:]),
        (f"token {JWT} has expired", JWT[22:]),
        (f"nkeys: invalid seed {SEED}", SEED),
        (f"cannot read {CREDENTIALS_FILE}", SEED[:40]),
        (f"cannot read {CREDENTIALS_FILE[:-60]}", SEED[:40]),
        ("connect to nats://gateway:battery@staple@10.0.0.1:4222/x failed", "battery"),
        ("connect to nats://t0kenalone@10.0.0.1:4222 failed", "t0kenalone"),
        ("POST https://user:battery@collector:4318/v1/traces: 503", "battery"),
        ("Authorization: Bearer battery", "battery"),
        ("authorization: some-scheme battery staple", "staple"),
        (f"sent Authorization: Basic {BASIC}", BASIC),
        ("{'Authorization': 'Bearer battery'}", "battery"),
        ('{"authorization": "Bearer battery"}', "battery"),
        ("('X-API-Key', 'battery')", "battery"),
        (r"b'GET / HTTP/1.1\r\nCookie: a=battery; b=2\r\nHost: gateway\r\n'", "battery"),
        (r"b'X-API-Key: battery\'s staple\r\nHost: gateway'", "staple"),
        ("Set-Cookie: session=battery", "battery"),
        (f"Bearer {BASIC} was refused", BASIC),
        ("connect(user='gateway', password='bat tery')", "tery"),
        ("connect(user='gateway', password=None, token='battery')", "battery"),
        ("?api_key=battery&x=1", "battery"),
        ('{"client_secret": "battery"}', "battery"),
        ("NATS_PASSWORD=battery", "battery"),
        ("user jane.doe+x@mail.example.com has no such session", "jane.doe"),
        ("user jane.doe+x@mail.example.com has no such session", "example"),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str, secret: str) -> None:
    redactor = Redactor()
    shown = redactor.text(text)
    assert secret not in shown and "***" in shown, shown
    assert redactor.concerns(json.dumps({"event": text})), text


@pytest.mark.parametrize(
    "text",
    [
        "connected to NATS",
        "NATS: nats: no servers available for connection",
        "BEAMLINE_EXEC: duplicate window 1000 ms is shorter than the 360000 ms that caf.exec.assign.v1 needs",
        "account: may not publish to $JS.API.STREAM.MSG.GET.BEAMLINE_USAGE",
        "message BEAMLINE_EXEC/17 given up: tenant_not_allowed",
        "the key blk_0a1b2c3d was revoked",
        "Listening at: http://127.0.0.1:8080 (4711)",
        'File "/srv/gateway/door.py", line 31, in _enter\n    raise GatewayError(\n',
        "AUTH_MODE=api_key",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "0f3a7c2e-8d53-4a36-a1f4-6d0c8c0b6a11",
        "STATUS and SUBJECTS and SANCTIONS",
        "a basic understanding, a bearer of news",
        "@blueprint.get('/x')",
    ],
)
def test_everything_else_passes(text: str) -> None:
    assert Redactor(["c0rrect"]).text(text) == text


def test_an_access_line_passes_the_quick_look() -> None:
    """It is on the way of every request, and names its key: the rules would cost more than all the rest of the line."""
    line = {
        "timestamp": "2026-03-01T10:00:00.000000Z", "level": "info", "event": "request", "logger": "gateway.access",
        "pid": 4711, "route": "/api/v1/routes/decide", "method": "POST", "status": 200, "latency_ms": 3.141,
        "tenant": "acme", "key": "blk_0a1b2c3d", "request_id": "0f3a7c2e-8d53-4a36-a1f4-6d0c8c0b6a11",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "cp_phase": "cp2", "sticky": "hit", "replayed": False,
        "request_bytes": 122, "response_bytes": 301,
    }  # fmt: skip
    assert not Redactor(["c0rrect"]).concerns(json.dumps(line))


@pytest.mark.parametrize("secret", [PASSWORD, 'tr0ub4dor"&\\3', "pässwort", "\x01\x7f hidden"])
@pytest.mark.parametrize(
    "found",
    [
        lambda secret: f"refused: {secret}!",
        lambda secret: {"event": "refused", "details": [{"deep": f"<{secret}>"}]},
        lambda secret: ValueError(f"{secret} is wrong"),
        lambda secret: {secret: 1},
    ],
    ids=["text", "nested", "object", "name"],
)
def test_the_secrets_in_force_are_hidden_whatever_they_look_like(secret: str, found: Any) -> None:
    redactor = Redactor([secret])
    value = found(secret)
    line = json.dumps(value, default=str, ensure_ascii=False)
    assert redactor.concerns(line) and redactor.concerns(json.dumps(value, default=str))
    assert secret not in json.dumps(redactor.value(value), ensure_ascii=False)


def test_a_secret_of_three_letters_does_not_blacken_every_text() -> None:
    assert Redactor(["abc"]).text("abcdefg") == "abcdefg"


def test_values_of_fields_with_a_secret_name_are_hidden_and_numbers_stay() -> None:
    event = {"event": "x", "nats_password": "abc", "Authorization": "q", "tokens": 7, "status": 200}
    shown: Mapping[str, Any] = Redactor().value(event)
    assert shown["nats_password"] == shown["Authorization"] == "***"
    assert (shown["tokens"], shown["status"], shown["event"]) == (7, 200, "x")


def test_the_secrets_in_force_are_those_of_the_settings_and_of_the_collector() -> None:
    environ = {
        "TRUSTED_PROXIES": "127.0.0.1",
        "AUTH_MODE": "headers",
        "NATS_URL": "nats://gateway:p%40ss-1@n1:4222,nats://t0ken-2@n2:4222",
        "NATS_USER": "gateway",
        "NATS_PASSWORD": "pass-3",
        "NATS_TOKEN": "token-4",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://u:pass-5@collector:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=a-team,api=pass%2D6",
    }
    known = secrets_in_force(Settings.from_environ(environ), environ)
    redactor = Redactor(known)
    for secret in ("p%40ss-1", "p@ss-1", "t0ken-2", "pass-3", "token-4", "pass-5", "pass-6"):
        assert redactor.text(f"refused {secret}") == "refused ***", secret


_WORDS = st.text(alphabet=string.printable, max_size=40)


@given(before=_WORDS, after=_WORDS, name=_WORDS)
@example(before="", after="@", name="password")
def test_no_surroundings_bring_a_secret_through(before: str, after: str, name: str) -> None:
    redactor = Redactor([PASSWORD])
    # A key that goes on with more of its own letters is longer, not another one.
    edge = after if not after[:1].isalnum() and after[:1] not in ("_", "-") else f" {after}"
    event = {"event": f"{before}{PASSWORD}{after}", name: f"{before} {KEY}{edge} {JWT}{edge}"}
    line = json.dumps(event)
    assert redactor.concerns(line)
    shown = json.dumps(redactor.value(event))
    assert PASSWORD not in shown
    assert KEY[13:] not in shown and JWT[30:] not in shown


@given(st.text(alphabet=string.ascii_letters + string.digits + "@./:-=_ '\"\\", max_size=400))
def test_what_the_quick_look_lets_pass_has_nothing_to_hide(text: str) -> None:
    redactor = Redactor([PASSWORD])
    if not redactor.concerns(json.dumps({"event": text})):
        assert redactor.text(text) == text
