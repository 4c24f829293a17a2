"""The environment is the only configuration: a wrong one stops the gateway and names all that is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.gateway_process import BASE_ENVIRONMENT, REPOSITORY, GatewayProcess
from tests.support.http_client import as_tenant
from tests.support.scripted_router import ScriptedRouter
from tests.support.stacks import Running, running
from tests.support.waiting import GENEROUS_SECONDS
from tests.support.wire import expect_error

SECRET = "hunter2-canary"

WRONG = {
    "GATEWAY_THREADS": "many",
    "ROUTER_REQUEST_TIMEOUT_MS": "-1",
    "NATS_REPLICAS": "two",
    "LOG_LEVEL": "loud",
    "IDEMPOTENCY_TTL_MS": "5",
}
SECRETS = {"NATS_USER": "gateway", "NATS_PASSWORD": SECRET}


def start(environment: Mapping[str, str | None]) -> tuple[int, str]:
    """Exit code and output of a gateway that must not come up."""
    gateway = GatewayProcess("nats://127.0.0.1:9", environment=environment)
    try:
        gateway.spawn()
        return gateway.wait(GENEROUS_SECONDS), gateway.output()
    finally:
        gateway.close()


def command(*arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command line and wait for its end."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=GENEROUS_SECONDS,
        check=False,
    )


def test_five_wrong_variables_are_five_lines_and_no_secret() -> None:
    code, output = start({**WRONG, **SECRETS})
    assert code != 0
    lines = output.splitlines()
    for name in WRONG:
        assert len([line for line in lines if name in line]) == 1, f"{name}:\n{output}"
    naming = [line for line in lines if any(name in line for name in WRONG)]
    assert len(naming) == 5, output
    assert "Traceback" not in output
    assert SECRET not in output


def test_url_with_a_password_is_not_shown_when_it_is_wrong() -> None:
    code, output = start({"NATS_URL": f"nats//gateway:{SECRET}@nats.example:4222"})
    assert code != 0
    assert "NATS_URL" in output
    assert SECRET not in output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_BIND", "nowhere"),
        ("GATEWAY_BIND", "127.0.0.1:99999"),
        ("WEB_CONCURRENCY", "0"),
        ("GATEWAY_THREADS", "2"),
        ("AUTH_MODE", "trust-me"),
        ("TRUSTED_PROXIES", "not-a-network"),
        ("TRUSTED_PROXIES", None),
        ("NATS_URL", "ftp://127.0.0.1"),
        ("GATEWAY_GRACEFUL_TIMEOUT_MS", "soon"),
        ("GATEWAY_DEFAULT_CP_PHASE", "cp99"),
    ],
)
def test_wrong_variable_is_named(name: str, value: str | None) -> None:
    code, output = start({name: value})
    assert code != 0, output
    assert name in output
    assert "Traceback" not in output


def test_settings_prints_the_effective_table_without_secrets() -> None:
    environment = {**BASE_ENVIRONMENT, **SECRETS, "ROUTER_REQUEST_TIMEOUT_MS": "1234"}
    for_people = command("settings", environment=environment)
    assert for_people.returncode == 0, for_people.stderr
    assert "ROUTER_REQUEST_TIMEOUT_MS" in for_people.stdout
    assert "1234" in for_people.stdout
    for_machines = command("settings", "--json", environment=environment)
    assert for_machines.returncode == 0
    document = json.loads(for_machines.stdout)
    assert "ROUTER_REQUEST_TIMEOUT_MS" in json.dumps(document)
    assert SECRET not in for_people.stdout + for_machines.stdout


def test_settings_of_a_wrong_environment_name_all_that_is_wrong() -> None:
    result = command("settings", environment={**BASE_ENVIRONMENT, **WRONG, **SECRETS})
    assert result.returncode != 0
    output = result.stdout + result.stderr
    assert all(name in output for name in WRONG), output
    assert SECRET not in output


# -- who and what is let in ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def allowing() -> Iterator[Running]:
    environment = {
        "GATEWAY_TENANT_ALLOWLIST": "acme,globex",
        "GATEWAY_POLICY_ALLOWLIST": "default,gold",
        "WEB_CONCURRENCY": "1",
    }
    with running("allowing", environment) as started, ScriptedRouter(started.nats.url):
        yield started


@pytest.mark.parametrize(
    ("tenant", "policy", "allowed"),
    [
        ("acme", "default", True),
        ("globex", "gold", True),
        ("umbrella", "default", False),
        ("ACME", "default", False),
        ("acme", "silver", False),
        ("acme", "Default", False),
    ],
)
def test_allowlists_let_in_only_what_they_name(
    allowing: Running, tenant: str, policy: str, allowed: bool
) -> None:
    body = decide_body(tenant_id=tenant, policy_id=policy)
    with allowing.gateway.client() as client:
        answer = client.post(DECIDE, body, as_tenant(tenant))
    if allowed:
        assert answer.status == 200, answer
    else:
        expect_error(answer, 403, "denied", tenant=None)


def test_identity_headers_of_an_untrusted_peer_are_no_identity() -> None:
    environment = {"TRUSTED_PROXIES": "10.0.0.0/8", "WEB_CONCURRENCY": "1"}
    with running("untrusted", environment) as started, started.gateway.client() as client:
        answer = client.post(DECIDE, decide_body(), {"X-Forwarded-For": "10.0.0.1"})
        expect_error(answer, 401, "unauthorized", tenant=None)
        assert answer.header("WWW-Authenticate")
        assert client.get("/livez").status == 200


def test_default_cp_phase_is_configured() -> None:
    environment = {"GATEWAY_DEFAULT_CP_PHASE": "cp7", "WEB_CONCURRENCY": "1"}
    with (
        running("phase", environment) as started,
        ScriptedRouter(started.nats.url) as router,
        started.gateway.client() as client,
    ):
        assert client.post(DECIDE, decide_body()).status == 200
        assert router.requests()[0].headers["cp_phase"] == "cp7"
