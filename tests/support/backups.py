"""Sites to be backed up: NATS with the documented users, a gateway before it, and work that was done once."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.devstack.nats_server import NatsServer
from tests.support.documented_account import (
    BACKUP_LOGIN,
    GATEWAY_LOGIN,
    OPERATOR_LOGIN,
    ROUTER_PASSWORD,
    documented_account,
)
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.nats_session import NatsSession
from tests.support.operators import IN_NATS, Operator
from tests.support.result_messages import publish, result_body, result_headers, until_consumed
from tests.support.scripted_router import ScriptedRouter
from tests.support.sticky_sessions import Providers, new_session, session_body

ALL: Final = (
    "BEAMLINE_EXEC",
    "BEAMLINE_USAGE",
    "BEAMLINE_DLQ",
    "KV_BEAMLINE_IDEMPOTENCY",
    "KV_BEAMLINE_RESULTS",
    "KV_BEAMLINE_STICKY",
    "KV_BEAMLINE_APIKEYS",
    "KV_BEAMLINE_ROLES",
)
_ROLES: Final = (
    '[service]\npermissions = ["routes:decide", "assignments:write", "acks:write", "usage:write"]\n'
)


@dataclass
class Work:
    """Requests that were answered, to be sent again; a session and its provider; a result that was metered."""

    asked: list[tuple[str, dict[str, Any], Answer]] = field(default_factory=list)
    session: str = field(default_factory=new_session)
    provider: str = ""
    result: dict[str, Any] = field(default_factory=result_body)


@dataclass
class Site:
    """See the module's docstring. The gateway is there while `serving`."""

    nats: NatsServer
    folder: Path
    environment: Mapping[str, str | None]
    key: str = ""

    def __post_init__(self) -> None:
        self.keeper = Operator(self.folder, self.nats.url, {**IN_NATS, **BACKUP_LOGIN})
        operator = Operator(self.folder, self.nats.url, {**IN_NATS, **OPERATOR_LOGIN})
        roles = self.folder / "roles.toml"
        roles.write_text(_ROLES)
        assert operator.run("roles", "apply", str(roles)).code == 0
        self.key = operator.make_key("acme", "service")

    @contextlib.contextmanager
    def serving(self) -> Iterator[GatewayProcess]:
        """A gateway, ended in order."""
        with GatewayProcess(self.nats.url, environment=self.environment) as gateway:
            yield gateway
            gateway.terminate()
            assert gateway.wait() == 0

    @contextlib.contextmanager
    def session(self) -> Iterator[NatsSession]:
        """Somebody who may do everything."""
        with NatsSession(self.nats.url, user="router", password=ROUTER_PASSWORD) as session:
            yield session

    def ask(self, gateway: GatewayProcess, path: str, body: dict[str, Any]) -> Answer:
        """One request, with the key that the bucket holds."""
        with gateway.client({"Authorization": f"Bearer {self.key}"}) as client:
            return client.post(path, body)

    def work(self, gateway: GatewayProcess) -> Work:
        """Everything that happens once, done once."""
        done = Work()
        for path, body in (
            (ASSIGNMENTS, assignment_body()),
            (ACKS, ack_body()),
            (USAGE, usage_body()),
            (USAGE, without_assignment(usage_body(request_id=new_id("r")))),
        ):
            answer = self.ask(gateway, path, body)
            assert answer.status == 202, answer
            done.asked.append((path, body, answer))
        with self.session() as session, self.router():
            answer = self.ask(gateway, DECIDE, session_body(done.session))
            assert answer.status == 200, answer
            done.provider = answer.json()["decision"]["provider_id"]
            publish(session, done.result, result_headers())
            until_consumed(session)
        return done

    @contextlib.contextmanager
    def router(self) -> Iterator[ScriptedRouter]:
        """A Router that keeps preferences, and gives no provider twice."""
        options = {"user": "router", "password": ROUTER_PASSWORD}
        with ScriptedRouter(self.nats.url, Providers(), **options) as router:
            yield router

    def wipe(self) -> None:
        """The store is gone, as after a fire; the server is there, and empty."""
        self.nats.stop()
        shutil.rmtree(self.nats.folder / "jetstream")
        self.nats.start()

    def restart(self) -> None:
        self.nats.stop()
        self.nats.start()

    def streams(self) -> dict[str, tuple[int, int]]:
        """Stream → messages, last sequence."""
        with self.session() as session:
            infos = session.call(session.jetstream.streams_info())
        return {
            info.config.name or "": (info.state.messages, info.state.last_seq) for info in infos
        }

    def audited(self) -> list[tuple[str, str, str]]:
        """What the audit log says of backups and restores: action, target, outcome."""
        records = [json.loads(line) for line in self.keeper.log.read_text().splitlines()]
        return [
            (record["action"], record["target"], record["outcome"])
            for record in records
            if record["action"] in ("backup", "restore")
        ]


def without_assignment(body: dict[str, Any]) -> dict[str, Any]:
    """The same event of a request alone."""
    return {name: value for name, value in body.items() if name != "assignment_id"}


@contextlib.contextmanager
def running_site(
    name: str, folder: Path, environment: Mapping[str, str | None] | None = None
) -> Iterator[Site]:
    """NATS with keys and roles in it; `Site.serving` starts the gateway."""
    with NatsServer(name=name, config=documented_account()) as nats:
        settings = {
            **IN_NATS,
            **GATEWAY_LOGIN,
            "AUTH_MODE": "api_key",
            "TRUSTED_PROXIES": None,
            **(environment or {}),
        }
        yield Site(nats, folder, settings)
