"""What the documents show and needs a site of its own: a gateway run for real, a restore, a node that goes.

`tests.support.document_exceptions` sends here from the test of all blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.support.certificates import make_certificates
from tests.support.document_exceptions import is_environment, known_by
from tests.support.document_reader import Reader
from tests.support.document_text import Block, blocks, for_readers
from tests.support.documented_account import documented_account
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_cluster import nats_cluster
from tests.support.nats_jwt import make_decentralised_auth
from tests.support.nats_session import NatsSession
from tests.support.operators import Operator
from tests.support.result_messages import publish, result_body
from tests.support.waiting import wait_until

RESTART_NEEDED = 7
#: What a reader waits for before the next command is typed.
READY = 'until curl -fsS -o /dev/null "$READERS_GATEWAY/readyz"; do sleep 0.1; done'


def shown(program: str) -> list[Block]:
    """The blocks that begin with these words."""
    found = [
        block
        for document in for_readers()
        for block in blocks(document)
        if known_by(block).startswith(program)
    ]
    assert found
    return found


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    """Shared by this module, with gateways of one after the other."""
    with NatsServer(name="documented") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(nats: NatsServer) -> Iterator[GatewayProcess]:
    """Behind a proxy that authenticates; shared."""
    with GatewayProcess(nats.url) as process:
        yield process


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    with OtlpReceiver("http") as receiver:
        yield receiver


def files_of(folder: Path) -> dict[str, str]:
    return {
        "APIKEYS_FILE": str(folder / "apikeys.json"),
        "AUDIT_LOG_FILE": str(folder / "audit.log"),
    }


def test_a_gateway_is_run_for_real_as_the_readme_says(
    tmp_path: Path, collector: OtlpReceiver
) -> None:
    [block] = shown("pip install")
    installed, _, commands = block.text.partition("\n")
    assert installed == "pip install beamline-gateway"  # the wheel is, in tests/deploy
    commands, made = re.subn(
        r"(?m)^(beamline-gateway apikeys create[^#]*)#.*", r"KEY=$(\1)", commands
    )
    commands, served = re.subn(r"(?m)^(beamline-gateway serve)\b.*", rf"\1 &\n{READY}", commands)
    assert (made, served) == (1, 1)
    with nats_cluster() as nodes, PortReservation() as port:
        own = {
            "nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222": ",".join(
                node.url for node in nodes
            ),
            "http://collector:4318": collector.endpoint,
            "/etc/beamline/": f"{tmp_path}/",
            "/var/log/beamline/": f"{tmp_path}/",
            "blk_…": "$KEY",
        }
        reader = Reader(tmp_path, f"http://{port.address}", {"GATEWAY_BIND": port.address}, own)
        done = reader.paste(commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks passed" in done.stdout
    assert "FAILED" not in done.stdout


def test_a_proxys_headers_are_enough_for_smoke(
    gateway: GatewayProcess, nats: NatsServer, tmp_path: Path, collector: OtlpReceiver
) -> None:
    [block] = shown("beamline-gateway smoke --header")
    environment = {"NATS_URL": nats.url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    done = Reader(tmp_path, gateway.url, environment).paste(block.text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tenants checks and checks-2" in done.stdout


@pytest.mark.parametrize("block", shown("OTEL_EXPORTER_OTLP_ENDPOINT="), ids=str)
def test_a_gateway_sends_its_traces_to_smoke_before_it_serves(
    block: Block, nats: NatsServer, tmp_path: Path
) -> None:
    files = files_of(tmp_path)
    key = Operator(tmp_path, nats.url, files).make_key("checks")
    with PortReservation() as free:
        receiver = free.address
    with PortReservation() as port:
        environment = {
            **files,
            "NATS_URL": nats.url,
            "GATEWAY_BIND": port.address,
            "BEAMLINE_KEY": key,
        }
        url = f"http://{port.address}"
        own = {f"127.0.0.1:{shown}": receiver for shown in (4317, 4318)}
        reader = Reader(tmp_path, url, environment, {**own, "http://127.0.0.1:8080": url})
        done = reader.paste(block.text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok +traces ", done.stdout, re.MULTILINE), done.stdout


def test_a_backup_is_restored_as_the_guide_says(tmp_path: Path) -> None:
    [block] = shown("beamline-gateway backup")
    backup, restore = block.text.splitlines()
    own = {"/backups/2030-01-31": f"{tmp_path}/backup", "FOLDER": f"{tmp_path}/backup"}
    reader = Reader(tmp_path, "", files_of(tmp_path), own)
    with NatsServer(name="was") as was, NatsServer(name="new") as new:
        old, now = reader.having(NATS_URL=was.url), reader.having(NATS_URL=new.url)
        assert old.paste("beamline-gateway streams").returncode == 0
        with NatsSession(was.url) as worker:
            publish(worker, result_body())
        assert old.paste(backup).returncode == 0
        restored = now.paste(restore)
        assert restored.returncode == RESTART_NEEDED, restored
        new.stop()
        new.start()
        checked = now.paste("beamline-gateway restore --check FOLDER")
        assert checked.returncode == 0, checked
        # It leaves alone what is there.
        assert now.paste("beamline-gateway restore FOLDER").returncode == 1
        with NatsSession(was.url) as before, NatsSession(new.url) as after:
            names = [
                sorted(str(info.config.name) for info in s.call(s.jetstream.streams_info()))
                for s in (before, after)
            ]
        assert names[0] == names[1]


@pytest.mark.parametrize(
    "block", [b for path in for_readers() for b in blocks(path) if is_environment(b)], ids=str
)
def test_the_variables_shown_let_the_gateway_into_nats(block: Block, tmp_path: Path) -> None:
    made, signed = make_certificates(tmp_path), make_decentralised_auth(tmp_path)
    own = {
        "/etc/nats/server.pem": made.server,
        "/etc/nats/server.key": made.server_key,
        "/etc/nats/ca.pem": made.authority,
        "/etc/beamline/ca.pem": made.authority,
        "/etc/beamline/gateway.pem": made.client,
        "/etc/beamline/gateway.key": made.client_key,
        "/etc/beamline/gateway.creds": signed.credentials,
    }
    reader = Reader(tmp_path, "", files_of(tmp_path), {k: str(v) for k, v in own.items()})
    if "NATS_TLS_CERT_FILE" in block.text:
        [tls] = shown("tls {")
        config = reader.written(tls.text)
    else:
        config = signed.config if "NATS_CREDENTIALS_FILE" in block.text else documented_account()
    with NatsServer(name="let-in", config=config) as server:
        given = re.sub(r"nats-1:4222(,\S+)?", f"127.0.0.1:{server.port}", block.text)
        done = reader.paste(f"set -a\n{given}beamline-gateway streams")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_node_of_nats_goes_as_the_guide_says(tmp_path: Path) -> None:
    with NatsServer(name="node") as node:
        done = Reader(tmp_path, "").paste(f"nats-server --signal ldm={node.pid}")
        assert done.returncode == 0, done
        wait_until(lambda: not node.running, message=node.log_tail)


def test_the_probe_of_an_instance_is_answered(gateway: GatewayProcess, tmp_path: Path) -> None:
    reader = Reader(tmp_path, gateway.url, own={"http://INSTANCE": gateway.url})
    done = reader.paste("curl http://INSTANCE/livez")
    assert done.returncode == 0 and '"status"' in done.stdout, done
