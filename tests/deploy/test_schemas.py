"""What others' tools say of the delivered files: Compose's and Kubernetes' own schemas, systemd."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.devstack.nats_server import find_binary
from tests.support.deploy_files import COMPOSE_FILE, DEPLOY, NOT_OBJECTS, compose_variables
from tests.support.gateway_process import GatewayProcess
from tests.support.waiting import GENEROUS_SECONDS

#: The oldest and the newest Kubernetes that we say it runs on.
KUBERNETES = ("1.29.1", "1.37.0")
BIN = Path(sys.executable).parent
UNIT = DEPLOY / "systemd" / "beamline-gateway.service"
OBJECTS = [p for p in sorted((DEPLOY / "kubernetes").glob("*.yaml")) if p.name not in NOT_OBJECTS]


def said_by(command: Sequence[str | Path], **environment: str) -> tuple[int, str]:
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    return ran.returncode, ran.stdout + ran.stderr


def test_compose_takes_the_file() -> None:
    check = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    code, said = said_by([*check, COMPOSE_FILE])
    assert code == 0, said


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object_and_knows_every_field(version: str) -> None:
    check = [str(BIN / "kubernetes-validate"), "--strict", "--kubernetes-version", version]
    code, said = said_by([*check, *OBJECTS])
    assert code == 0, said
    assert "deprecat" not in said.lower()


def test_the_check_of_kubernetes_finds_a_misspelt_field(tmp_path: Path) -> None:
    wrong = tmp_path / "deployment.yaml"
    text = (DEPLOY / "kubernetes" / "deployment.yaml").read_text()
    wrong.write_text(text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
    code, _ = said_by([str(BIN / "kubernetes-validate"), "--strict", wrong])
    assert code != 0


def test_nats_takes_its_configuration() -> None:
    variables = dict.fromkeys(compose_variables(), "secret")
    check = [str(find_binary()), "-t", "-c", str(DEPLOY / "nats" / "nats.conf")]
    code, said = said_by(check, NATS_NAME="nats-1", **variables)
    assert code == 0, said


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a command that is here."""
    text, count = re.subn(
        r"^ExecStart=\S+", f"ExecStart={BIN / 'beamline-gateway'}", UNIT.read_text(), flags=re.M
    )
    assert count == 1
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


def test_systemd_takes_the_unit_without_a_warning(unit: Path) -> None:
    assert said_by(["systemd-analyze", "verify", "--man=no", unit]) == (0, "")


def test_systemd_rates_the_unit_as_safe(unit: Path) -> None:
    """Its own scale ends at 10.0, "dangerous"; a daemon that only needs sockets is below 2."""
    check = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20"]
    code, said = said_by([*check, unit])
    assert code == 0, said.splitlines()[-1]


def test_systemd_is_told_when_the_gateway_listens_and_not_before(tmp_path: Path) -> None:
    """``Type=notify``: what starts after the unit finds the port open, without NATS, too."""
    assert "Type=notify" in UNIT.read_text()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(GENEROUS_SECONDS)
        gateway = GatewayProcess(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with contextlib.closing(gateway):
            gateway.spawn()
            assert b"READY=1" in listener.recv(4096).split(b"\n")
            answer = gateway.get("/livez")
            assert answer is not None and answer.status == 200


def test_a_wrong_environment_ends_with_the_code_that_systemd_does_not_start_again() -> None:
    (code,) = re.findall(r"^RestartPreventExitStatus=(\d+)$", UNIT.read_text(), re.MULTILINE)
    gateway = GatewayProcess(environment={"NATS_REPLICAS": "many"})
    with contextlib.closing(gateway):
        gateway.spawn()
        assert gateway.wait() == int(code)
