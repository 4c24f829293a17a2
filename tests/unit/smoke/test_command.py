"""The options: what is wrong is told before anything is sent, and never what may be a credential."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main

USAGE_ERROR = 2
NOBODY = "http://127.0.0.1:1"
CANARY = "canary-of-the-tests"


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["smoke", *arguments], env=environment)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "gateway:8080"),
        ("--url", "ftp://gateway"),
        ("--url", "http://"),
        ("--url", "http://gateway:port"),
        ("--url", "http://gateway:99999"),
        ("--url", f"http://user:{CANARY}@gateway"),
        ("--url", f"http://gateway/?key={CANARY}"),
        ("--metrics-url", f"http://user:{CANARY}@gateway"),
        ("--key", f"{CANARY} with blanks"),
        ("--key", f"{CANARY}\r\nX-Role: admin"),
        ("--tenant-key", f"{CANARY}é"),
        ("--header", CANARY),
        ("--header", f"X Y: {CANARY}"),
        ("--header", f"X-Role: {CANARY}\nX-Tenant-ID: x"),
        ("--tenant-header", f": {CANARY}"),
        ("--otlp-listen", "4318"),
        ("--otlp-listen", "http://127.0.0.1:4318"),
        ("--otlp-protocol", "http/json"),
        ("--timeout", "0"),
        ("--cp-phase", "cp9"),
        ("--ca-file", "/no/such/file"),
        ("--devstack", "--url", NOBODY),
        ("--devstack", "--key", CANARY),
        ("--devstack", "--otlp-listen", "127.0.0.1:0"),
    ],
)
def test_a_wrong_option_is_told_in_a_line_without_what_may_be_a_credential(
    arguments: tuple[str, ...],
) -> None:
    code, output = run(*arguments)
    assert code == USAGE_ERROR, output
    assert "Error: " in output
    assert CANARY not in output


def test_keys_in_the_environment_do_not_keep_the_devstack_from_being_asked_for() -> None:
    code, output = run("--devstack", "--otlp-protocol", "nonsense", BEAMLINE_KEY=CANARY)
    assert code == USAGE_ERROR
    assert "--otlp-protocol" in output and "--devstack" not in output.splitlines()[-1]


def test_without_json_there_is_a_line_a_check_and_one_at_the_end() -> None:
    code, output = run("--url", NOBODY, "--without-traces")
    assert code == 10
    lines = output.splitlines()
    assert re.fullmatch(r"FAILED +livez +.* \[10 gateway_unreachable\]", lines[0])
    assert all(re.match(r"-  +[a-z-]+ +not checked: needs ", line) for line in lines[1:-1])
    assert lines[-1].startswith("smoke: 1 of ") and "exit code 10" in lines[-1]


def test_a_ca_file_that_is_none_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    code, output = run("--url", "https://127.0.0.1:1", "--ca-file", str(wrong), "--without-traces")
    assert code == USAGE_ERROR, output
    assert "--ca-file" in output
