"""Two versions of the gateway side by side, on one NATS, and from each to the other and back while clients ask."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults.siege.kinds import Kind
from tests.faults.siege.site import Plan, Site
from tests.support.gateway_process import REPOSITORY, GatewayProcess

_PRODUCT: Final = ("bridge", "gateway")
_BACK: Final = 10
"""So many commits of the product lie between, where no release is tagged."""
_GIT_SECONDS: Final = 60.0


def _git(*arguments: str) -> bytes:
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, check=True, timeout=_GIT_SECONDS
    ).stdout


def version_before() -> str:
    """The tag of the last release before the present commit; without any, the commit of some changes ago.

    Raises subprocess.CalledProcessError or OSError where this is no checkout of git, AssertionError without history.
    """
    tags = _git("tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-creatordate").split()
    if tags:
        return tags[0].decode()
    commits = _git("log", "--format=%h", f"--max-count={_BACK + 1}", "--", *_PRODUCT).split()
    assert len(commits) > 1, "there is no version before: this checkout has no history"
    return commits[-1].decode()


def unpack(commit: str, folder: Path) -> None:
    """The product as it was at ``commit``, so that a Python with the folder on its path imports it from there."""
    packed = _git("archive", "--format=tar", commit, *_PRODUCT)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    # An installation for development has ways to be found, too.
    for name in _PRODUCT:
        found = subprocess.run(
            [sys.executable, "-c", f"import {name}; print({name}.__file__)"],
            env={"PYTHONPATH": str(folder)},
            cwd=folder,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        assert found.startswith(str(folder)), f"{name} is imported from {found}"


@contextlib.contextmanager
def two_versions() -> Iterator[Plan]:
    """One instance of the present version, one of the version before, run by the same interpreter and libraries."""
    commit = version_before()
    described = _git("show", "--no-patch", "--format=%h of %cs", f"{commit}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="version-before-") as folder:
        unpack(commit, Path(folder))
        yield Plan(
            per_instance=({}, {"PYTHONPATH": folder}),
            about=f"Here the version before is {described.decode().strip()}.",
        )


def exchange(site: Site) -> None:
    """An upgrade of one instance, and the other one taken back, each in order and ready before the next."""
    one, other = site.gateways
    present, before = str(REPOSITORY), _path_of(one) or _path_of(other)
    for gateway in (one, other):
        goes_back = not _path_of(gateway)
        gateway.terminate()
        gateway.wait()
        gateway.environment["PYTHONPATH"] = before if goes_back else present
        gateway.start()


def _path_of(gateway: GatewayProcess) -> str:
    """Where the version before is, if it is what this instance runs; else ""."""
    path = gateway.environment.get("PYTHONPATH", "")
    return "" if path == str(REPOSITORY) else path


VERSIONS: Final = (
    Kind(
        "two versions",
        "One instance of this version, one of the version before (the last release, or some changes ago); each is"
        " restarted as the other one, in turn.",
        exchange,
        times=10,
        plan=two_versions,
    ),
)
