"""Gateways under siege: one of API keys, one of tokens by a JWKS, one of tokens by a shared secret, and all that can be
heard of them: logs at their most talkative, spans, every message in NATS."""

from __future__ import annotations

import contextlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.devstack.nats_server import NatsServer
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.support.access_attacks import (
    API_KEY,
    JWT,
    SECRET,
    Attack,
    Credentials,
    Provider,
    load_attack,
)
from tests.support.access_credentials import KeyFile, digest_of
from tests.support.access_stack import terminate
from tests.support.access_tokens import (
    JwksServer,
    SigningKey,
    environment,
    hs256,
    jwks,
    valid_claims,
)
from tests.support.documents import new_id
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, send_raw
from tests.support.nats_tap import NatsTap
from tests.support.reference_router import ReferenceRouter
from tests.support.waiting import wait_until

#: Whose credentials they are.
TENANT: Final = "acme"


@dataclass(frozen=True)
class Besieged:
    """Three gateways, each with another way of telling who is calling, and all that can be heard of them."""

    gateways: Mapping[str, GatewayProcess]
    credentials: Mapping[str, Credentials]
    provider: Provider
    jwks: JwksServer
    spans: OtlpReceiver
    said: NatsTap
    everything: NatsTap

    def secrets(self) -> set[str]:
        """What nobody may find anywhere: of keys the secret part, of tokens the signature, and the shared secret."""
        keys = {
            self.credentials[API_KEY].named[name][13:]
            for name in ("admin", "viewer", "revoked", "expired")
        }
        tokens = {
            self.credentials[target].named[name].split(".")[2]
            for target in (JWT, SECRET)
            for name in ("admin", "viewer")
        }
        return keys | tokens | {self.provider.secret}

    def send(self, name: str, target: str) -> tuple[Attack, Answer]:
        attack = load_attack(name, target, self.credentials[target], self.provider)
        gateway = self.gateways[target]
        if attack.raw is not None:
            return attack, _read(send_raw(gateway.host, gateway.port, [attack.raw]))
        with gateway.client(headers={}) as client:
            return attack, attack.case.send(client)


def _read(answered: bytes) -> Answer:
    """The first answer on a connection, and all that came after it in its body."""
    head, _, body = answered.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (x.partition(":") for x in lines))
    return Answer(int(first.split()[1]), headers, body, 0.0)


@contextlib.contextmanager
def running_siege(folder: Path) -> Iterator[Besieged]:
    """Start all of it, ready to be asked; end all of it afterwards."""
    keys = KeyFile(folder)
    past = datetime.now(UTC) - timedelta(seconds=1)
    key = keys.make(TENANT, "admin")
    provider = Provider(SigningKey("one"), SigningKey("one"), new_id("secret-of-the-provider"))

    def by_secret(*roles: str) -> str:
        claims = valid_claims(roles=list(roles))
        return hs256({"alg": "HS256"}, claims, provider.secret.encode())

    credentials = {
        API_KEY: Credentials(
            {
                "admin": key,
                "ADMIN": key.upper(),
                "viewer": keys.make(TENANT, "viewer"),
                "revoked": keys.make(TENANT, "admin", revoked=True),
                "expired": keys.make(TENANT, "admin", expires_at=past),
                "digest": digest_of(key),
                "prefix": key[:12],
                "basic_admin": b64encode(f"admin:{key}".encode()).decode(),
                "basic_admin_as_user": b64encode(f"{key}:".encode()).decode(),
            }
        ),
        JWT: Credentials(
            {
                "admin": provider.signing.token(),
                "viewer": provider.signing.token(roles=["viewer"]),
            }
        ),
        SECRET: Credentials({"admin": by_secret("admin"), "viewer": by_secret("viewer")}),
    }
    with contextlib.ExitStack() as stack:
        published = stack.enter_context(JwksServer(jwks(provider.signing)))
        spans = stack.enter_context(OtlpReceiver())
        nats = stack.enter_context(NatsServer(name="besieged"))
        common = {
            "WEB_CONCURRENCY": "1",
            "LOG_LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        gateways = {
            target: GatewayProcess(nats.url, environment={**common, **mode})
            for target, mode in (
                (API_KEY, keys.environment),
                (JWT, environment(JWT_JWKS_URL=published.url)),
                (SECRET, environment(JWT_SECRET=provider.secret)),
            )
        }
        for gateway in gateways.values():
            stack.callback(gateway.close)
        stack.callback(terminate, gateways.values())
        for gateway in gateways.values():
            gateway.spawn()
        stack.enter_context(ReferenceRouter(nats))
        for gateway in gateways.values():
            wait_until(lambda gateway=gateway: _ready(gateway), message=gateway.output_tail)  # type: ignore[misc]
        taps = [stack.enter_context(NatsTap(nats.url, internals=all)) for all in (False, True)]
        yield Besieged(gateways, credentials, provider, published, spans, *taps)


def _ready(gateway: GatewayProcess) -> bool:
    assert gateway.running, gateway.output_tail()
    answer = gateway.get("/readyz")
    return answer is not None and answer.status == 200
