"""NATS with a lock: passwords, tokens, TLS with client certificates, and permissions that are missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.certificates import Certificates, make_certificates
from tests.support.documents import DECIDE, USAGE, decide_body, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_jwt import make_decentralised_auth
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import wait_until

SECRET = "canary-nats-5d1e"
ONE_WORKER = {"WEB_CONCURRENCY": "1"}
USER = {"NATS_USER": "gateway", "NATS_PASSWORD": SECRET}


@contextlib.contextmanager
def locked(
    config: str, environment: Mapping[str, str], *, ready: bool = True
) -> Iterator[tuple[NatsServer, GatewayProcess]]:
    """A NATS server with ``config`` and a gateway that comes to it with ``environment``."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="locked", config=config))
        gateway = GatewayProcess(nats.url, environment={**ONE_WORKER, **environment})
        stack.callback(gateway.close)
        gateway.start(ready=ready)
        yield nats, gateway
        assert SECRET not in gateway.output()


def check_works(nats: NatsServer, gateway: GatewayProcess, **options: Any) -> None:
    """A decide and a publish go through; ``options`` are for the Router's own connection."""
    with ScriptedRouter(nats.url, **options), gateway.client() as client:
        assert client.post(DECIDE, decide_body()).status == 200
        assert client.post(USAGE, usage_body()).status == 202


def check_stays_out(gateway: GatewayProcess) -> None:
    """Alive, not ready, says that it is NATS, and tells no secret."""
    with gateway.client() as client:
        assert client.get("/livez").status == 200
        readiness = client.get("/readyz")
        assert readiness.status == 503
        assert b"nats" in readiness.body.lower()
        assert SECRET.encode() not in readiness.body
        assert (client.post(USAGE, usage_body())).code == "unavailable"


def test_user_and_password_are_used() -> None:
    config = f'authorization {{ user: "gateway", password: "{SECRET}" }}'
    with locked(config, USER) as (nats, gateway):
        check_works(nats, gateway, user="gateway", password=SECRET)


def test_token_is_used() -> None:
    with locked(f'authorization {{ token: "{SECRET}" }}', {"NATS_TOKEN": SECRET}) as (
        nats,
        gateway,
    ):
        check_works(nats, gateway, token=SECRET)


def test_credentials_file_is_used(tmp_path: Path) -> None:
    auth = make_decentralised_auth(tmp_path)
    with locked(auth.config, {"NATS_CREDENTIALS_FILE": str(auth.credentials)}) as (nats, gateway):
        check_works(nats, gateway, user_credentials=str(auth.credentials))
        for line in auth.credentials.read_text().splitlines():
            assert line.startswith("-") or not line or line not in gateway.output()


def test_wrong_password_is_not_ready_and_not_told() -> None:
    config = 'authorization { user: "gateway", password: "another" }'
    with locked(config, USER, ready=False) as (_, gateway):
        check_stays_out(gateway)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("other")).authority


def tls(certificates: Certificates) -> dict[str, str]:
    return {
        "NATS_TLS_CA_FILE": str(certificates.authority),
        "NATS_TLS_CERT_FILE": str(certificates.client),
        "NATS_TLS_KEY_FILE": str(certificates.client_key),
    }


def test_tls_with_a_client_certificate_works(certificates: Certificates) -> None:
    with locked(certificates.nats_config(), tls(certificates)) as (nats, gateway):
        check_works(nats, gateway, tls=certificates.client_context())
        assert nats.connz("")["connections"][0]["tls_version"]


def test_server_of_an_unknown_authority_is_not_trusted(
    certificates: Certificates, other_authority: Path
) -> None:
    environment = {**tls(certificates), "NATS_TLS_CA_FILE": str(other_authority)}
    with locked(certificates.nats_config(), environment, ready=False) as (nats, gateway):
        check_stays_out(gateway)
        assert nats.varz()["connections"] == 0


def permissions(kind: str, denied: str) -> str:
    """A user of one account who may do all but one thing."""
    return f"""
    accounts {{
      BEAMLINE {{
        jetstream: enabled
        users: [
          {{ user: "gateway", password: "{SECRET}",
             permissions: {{ {kind}: {{ deny: [{json.dumps(denied)}] }} }} }}
          {{ user: "router", password: "router" }}
        ]
      }}
    }}
    """


@pytest.mark.parametrize(
    "denied",
    [
        "beamline.router.v1.decide",
        "caf.exec.assign.v1",
        "caf.exec.assign.v1.ack",
        "beamline.usage.v1.metered",
    ],
)
def test_missing_permission_is_named_by_readiness(denied: str) -> None:
    with locked(permissions("publish", denied), USER, ready=False) as (_, gateway):

        def readiness() -> bytes:
            answer = gateway.get("/readyz")
            return answer.body if answer is not None and answer.status == 503 else b""

        wait_until(
            lambda: denied.encode() in readiness(), 10.0, lambda: str(gateway.get("/readyz"))
        )
        with gateway.client() as client:
            path, body = (DECIDE, decide_body()) if "router" in denied else (USAGE, usage_body())
            answer = client.post(path, body, {"X-Request-Timeout-Ms": "1000"})
            if denied in ("beamline.router.v1.decide", "beamline.usage.v1.metered"):
                assert answer.status in (502, 503, 504), answer
            else:
                assert answer.status == 202, answer
