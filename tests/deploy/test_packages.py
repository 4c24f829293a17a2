"""What `pip install beamline-gateway` gives: built from the tree, installed where nothing else is, run from there."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devstack import child_process
from gateway.devstack.ports import PortReservation
from tests.support.gateway_process import REPOSITORY
from tests.support.http_client import Client
from tests.support.waiting import wait_until

PACKAGES = ("bridge", "gateway")
BUILD_SECONDS = 180
INSTALL_SECONDS = 300
START_SECONDS = 60.0


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel and what it requires, and nothing of this one."""

    folder: Path

    @property
    def command(self) -> str:
        return str(self.folder / "bin" / "beamline-gateway")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.command, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """What a shell that was just opened has."""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", **more}


def sources() -> list[str]:
    """The files of the tree that belong to it: what is committed, and what will be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = {name for name in listed.stdout.split("\0") if name}
    return sorted(name for name in names if (REPOSITORY / name).is_file())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, so that a build leaves nothing in it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((REPOSITORY / name).read_bytes())
    return tree


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from the sdist alone."""
    built = tmp_path_factory.mktemp("dist")
    copy = tmp_path_factory.mktemp("build") / "tree"
    shutil.copytree(tree, copy)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", built, copy], BUILD_SECONDS)
    return built


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, with the locked versions, as a release is installed."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", folder], BUILD_SECONDS)
    constraints = str(REPOSITORY / "constraints.txt")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--constraint", constraints, f"{wheel}[devstack]"], INSTALL_SECONDS)
    return Installed(folder)


def _run(command: Sequence[str | Path], timeout: float) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def version() -> str:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    return setup["metadata"]["version"]


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path, tree: Path) -> None:
    """Code, roles, pages, styles: whatever lies in a package is there to be used."""
    files = (path for package in PACKAGES for path in (tree / package).rglob("*") if path.is_file())
    wanted = {str(path.relative_to(tree)) for path in files}
    assert wanted - names_in(wheel) == set()


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert [
        name for name in names_in(wheel) if "test" in name.lower() or "__pycache__" in name
    ] == []


def test_the_wheel_is_for_every_machine_and_says_who_may_use_it(wheel: Path) -> None:
    assert wheel.name == f"beamline_gateway-{version()}-py3-none-any.whl"
    (licence,) = (name for name in names_in(wheel) if name.endswith("/LICENSE"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (REPOSITORY / "LICENSE").read_bytes()


def test_the_sdist_is_enough_to_build_from_and_holds_no_built_file(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert [name for name in names if name.endswith((".pyc", ".db", ".env"))] == []


def test_the_command_says_its_version(installed: Installed) -> None:
    ran = installed.run("--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split()[-1] == version()


def test_the_command_shows_the_settings(installed: Installed) -> None:
    ran = installed.run("settings", "--json", AUTH_MODE="headers", TRUSTED_PROXIES="10.0.0.0/8")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["TRUSTED_PROXIES"] == "10.0.0.0/8"


def test_a_wrong_environment_ends_the_start_with_its_own_code(installed: Installed) -> None:
    ran = installed.run("serve", NATS_REPLICAS="many", WEB_CONCURRENCY="0")
    assert ran.returncode == 2
    assert "NATS_REPLICAS" in ran.stderr and "WEB_CONCURRENCY" in ran.stderr


@pytest.fixture(scope="module")
def dev(installed: Installed) -> Iterator[Client]:
    """The whole stack of the wheel, `beamline-gateway dev`, and a client without credentials."""
    log = installed.folder / "dev.log"
    with PortReservation() as port, log.open("wb") as output:
        child = child_process.spawn(
            [installed.command, "dev", "--bind", port.address],
            stdout=output,
            env=installed.environment(),
            cwd=installed.folder,
        )
        try:
            wait_until(
                lambda: "is ready at" in log.read_text() or child.poll() is not None,
                START_SECONDS,
                log.read_text,
            )
            assert child.poll() is None, log.read_text()
            with Client(port.host, port.port, headers={}) as client:
                yield client
        finally:
            child_process.send(child, signal.SIGTERM)
            assert child.wait(60) == 0, log.read_text()


def test_the_stack_runs_from_the_wheel(dev: Client) -> None:
    assert dev.get("/readyz").json()["status"] == "ready"
    assert dev.get("/metrics").status == 200


def test_the_page_of_the_api_and_all_it_is_made_of_come_with_the_wheel(dev: Client) -> None:
    assert dev.get("/openapi.json").json()["info"]["version"] == version()
    page = dev.get("/docs")
    path = "/docs"
    if page.status in (301, 302, 308):
        path = urllib.parse.urlparse(page.header("Location") or "").path
        page = dev.get(path)
    assert page.status == 200
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page.body.decode())
    assert len(linked) >= 3
    for link in linked:
        address = urllib.parse.urljoin(path, link)
        assert address.startswith("/"), f"{address} is on another host"
        assert dev.get(address).status == 200, address


def test_the_smoke_checks_of_the_wheel_pass_on_its_own_stack(installed: Installed) -> None:
    """Metrics, traces, exactly-once: everything works where nothing of the tests is."""
    ran = installed.run("smoke", "--devstack", "--strict")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_environment_is_as_empty_as_it_should_be(installed: Installed) -> None:
    """What only tests and developers need is not what users get."""
    listed = subprocess.run(
        [installed.folder / "bin" / "python", "-m", "pip", "list", "--format=json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "beamline-gateway" in names
    assert (
        names & {"pytest", "mypy", "ruff", "hypothesis", "schemathesis", "build", "pyyaml"} == set()
    )
