"""Gateways that let nobody in without a credential: one of API keys, one of tokens, before one NATS server.

Keys and roles are kept in buckets, so that every lookup is a message that a tap sees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.devstack.nats_server import NatsServer
from tests.support.access_credentials import DEFAULT_ROLES, KeyBucket, put_roles
from tests.support.access_tokens import SigningKey, environment, jwks
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready, worker_clients
from tests.support.nats_session import NatsSession
from tests.support.reference_router import ReferenceRouter


@dataclass(frozen=True)
class Guarded:
    """What is running, and who can make credentials for it."""

    nats: NatsServer
    session: NatsSession
    gateway: GatewayProcess
    by_token: GatewayProcess
    keys: KeyBucket
    signing: SigningKey


@contextlib.contextmanager
def running_guarded(
    name: str, folder: Path, settings: Mapping[str, str | None] | None = None
) -> Iterator[Guarded]:
    """Start all of it, ready to be asked, with the roles that come with the gateway; end all of it afterwards."""
    signing = SigningKey("one")
    published = folder / "jwks.json"
    published.write_bytes(jwks(signing))
    common = {"ROLES_SOURCE": "bucket", "TRUSTED_PROXIES": None, **(settings or {})}
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name=name))
        session = stack.enter_context(NatsSession(nats.url, name="operator"))
        keys = KeyBucket(session)
        put_roles(session, DEFAULT_ROLES)
        stack.enter_context(ReferenceRouter(nats))
        gateways = [
            GatewayProcess(nats.url, environment={**common, **mode})
            for mode in (KeyBucket.environment, environment(JWT_JWKS_FILE=str(published)))
        ]
        for gateway in gateways:
            stack.callback(gateway.close)
        stack.callback(terminate, gateways)
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            wait_until_each_worker_is_ready(gateway)
        yield Guarded(nats, session, gateways[0], gateways[1], keys, signing)


@contextlib.contextmanager
def bare_workers(gateway: GatewayProcess) -> Iterator[list[Client]]:
    """A client without any credentials for every worker, its connection open."""
    with worker_clients(gateway) as found:
        for client in found.values():
            client.headers.clear()
        yield [found[pid] for pid in sorted(found)]


def terminate(gateways: Iterable[GatewayProcess]) -> None:
    """Ask all of them to end, before each is waited for."""
    for gateway in gateways:
        if gateway.running:
            gateway.terminate()
