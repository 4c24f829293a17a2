"""The capture of the whole suite: canaries planted in each channel are found, by the name of the test that they are of.

Shown with the name of a tenant, which is told on purpose in all of them; here it is the canary.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, get_args

import pytest

from tests.support.access_credentials import nobodys_key
from tests.support.access_tokens import hs256
from tests.support.canaries import HEADERS, MAIL, MARK, SECRET, TEXT, leaks_in
from tests.support.capture import Capture, Channel
from tests.support.documents import USAGE, usage_body
from tests.support.gateway_process import REPOSITORY
from tests.support.stacks import running

#: Run by a pytest of its own. Each of the three tells the name in one channel and shuts the others.
LEAKING: Final = f"""
from tests.support.capture import nothing_planted_leaks, telemetry_is_captured
from tests.support.documents import USAGE, usage_body
from tests.support.http_client import as_tenant
from tests.support.leaks import process_mark
from tests.support.stacks import running


def use(tenant="acme", **environment):
    with running("leaking", environment) as started:
        with started.gateway.client(as_tenant(tenant)) as client:
            answer = client.post(USAGE, usage_body(tenant_id=tenant))
            assert answer.status == 202, answer


def test_nothing():
    use()


def test_logs():
    use("{MARK}", OTEL_SDK_DISABLED="true")


def test_metrics():
    use("{MARK}", METRICS_TENANT_LABEL_ALLOWLIST="{MARK}", LOG_LEVEL="error", OTEL_SDK_DISABLED="true")


def test_spans():
    use("{MARK}", LOG_LEVEL="error")
"""


def run(tmp_path: Path, program: str) -> tuple[int, str]:
    """The exit code and output of a pytest that runs this program alone."""
    path = tmp_path / "test_inner.py"
    path.write_text(program)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "-rE",
            str(path),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_leak_in_any_channel_fails_the_test_that_it_is_of(tmp_path: Path) -> None:
    code, output = run(tmp_path, LEAKING)
    assert code == 1, output
    for channel in ("logs", "metrics", "spans"):
        told = f"{channel} of a gateway of test_inner.py::test_{channel}"
        assert told in output, output
    assert "gateway of test_inner.py::test_nothing" not in output
    assert output.count("of a gateway of test_inner.py::test_metrics") == output.count(
        "metrics of a gateway of test_inner.py::test_metrics"
    )


@pytest.mark.parametrize("planted", [SECRET, TEXT, MAIL, MARK.upper(), *HEADERS.values()])
def test_a_canary_is_found_in_the_middle_of_anything(planted: str) -> None:
    [leak, *_] = leaks_in(b"\x00\xff before" + planted.encode() + b"\n after \xfe")
    assert "before" in leak and "after" in leak


@pytest.mark.parametrize("user", ["a", "ab", "abc", "abcd"])
def test_a_canary_is_found_in_base64(user: str) -> None:
    assert leaks_in(base64.b64encode(f"{user}:{SECRET}".encode()))


def test_keys_and_tokens_are_found_though_nobody_planted_them() -> None:
    key = nobodys_key()
    token = hs256({"alg": "HS256"}, {"sub": "somebody"}, b"secret")
    for credential in (key, token):
        assert leaks_in(f'{{"event": "refused {credential}"}}'.encode())


def test_what_is_no_canary_is_not_found() -> None:
    assert not leaks_in(b'{"event": "request", "tenant": "acme", "status": 200}')


@pytest.mark.parametrize("channel", ["logs", "metrics", "spans"])
def test_a_channel_that_told_nothing_fails_the_run(channel: Channel) -> None:
    with Capture() as capture:
        assert not capture.silent(), "no gateway has run"
        capture.saw_log(b'{"logger": "gateway.access"}', "a test", in_order=True)
        capture.seen.update(get_args(Channel))
        assert not capture.silent()
        del capture.seen[channel]
        assert capture.silent() == [channel]


def test_the_gateways_of_this_run_are_captured(telemetry_is_captured: Capture) -> None:
    before = dict(telemetry_is_captured.seen)
    with running("captured") as started, started.gateway.client() as client:
        assert client.post(USAGE, usage_body()).status == 202
    assert telemetry_is_captured.ended
    for channel in get_args(Channel):
        assert telemetry_is_captured.seen[channel] > before.get(channel, 0), channel
