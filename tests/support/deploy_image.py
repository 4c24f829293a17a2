"""Image: the delivered Dockerfile, carried out without a container engine.

Each instruction does what it says, in a sandbox (bubblewrap) whose system and Python are this machine's instead of the
base image's. What is proved is that the steps work, that nothing but what is copied is needed, and how it runs: as a
number, on a read-only root, with an empty environment, as process 1.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.support.deploy_files import DOCKERFILE
from tests.support.gateway_process import REPOSITORY

BWRAP: Final = "/usr/bin/bwrap"
#: Of the machine's root; what else an image has it must make itself.
_SYSTEM: Final = (
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc",
    "/opt/wheels",
    "/opt/pypi",
    "/opt/pypi-more",
)
_STEP_SECONDS: Final = 300
_MOUNTS: Final = re.compile(r"--mount=\S+\s+")


@dataclass
class Stage:
    """What a stage has made so far: ``files`` is its root, beside the system."""

    files: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    settings: dict[str, Any] = field(default_factory=dict)

    def at(self, path: str) -> Path:
        """Where a path of the image is here."""
        absolute = path if path.startswith("/") else f"{self.workdir}/{path}"
        return self.files / os.path.normpath(absolute).lstrip("/")


def build(folder: Path) -> Stage:
    """Carry out the Dockerfile; its last stage. Fails, showing the output, where a step fails."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in _instructions():
        match word:
            case "FROM":
                name = rest.partition(" AS ")[2] or "last"
                stage = stages[name] = Stage(folder / name)
                for place in (*_system(), "/proc", "/dev", "/tmp"):
                    stage.at(place).mkdir(parents=True, exist_ok=True)
            case "ENV":
                stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "WORKDIR":
                stage.workdir = rest
                stage.at(rest).mkdir(parents=True, exist_ok=True)
            case "USER":
                stage.user = rest
            case "COPY":
                _copy(rest, stage, stages)
            case "RUN":
                _run(stage, _MOUNTS.sub("", rest))
            case "ENTRYPOINT" | "CMD":
                stage.settings[word] = json.loads(rest)
            case "HEALTHCHECK":
                stage.settings[word] = json.loads(rest[rest.index("[") :])
            case "ARG" | "LABEL" | "EXPOSE" | "STOPSIGNAL":
                stage.settings[word] = rest
            case _:
                raise AssertionError(f"the Dockerfile holds an instruction not known here: {word}")
    return stage


def command(stage: Stage, environment: Mapping[str, str], *arguments: str) -> list[str]:
    """The command line that runs the image: ``docker run --read-only --tmpfs /tmp --cap-drop ALL --user …``.

    ``arguments`` take the place of CMD. The network is the machine's.
    """
    inside = [*stage.settings["ENTRYPOINT"], *(arguments or stage.settings["CMD"])]
    return [*_sandbox(stage, environment, writable=False), *inside]


def healthcheck(stage: Stage, environment: Mapping[str, str]) -> list[str]:
    """The command line that asks a running container how it is."""
    return [*_sandbox(stage, environment, writable=False), *stage.settings["HEALTHCHECK"]]


def _instructions() -> Iterator[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word, " ".join(rest.split())


def _copy(rest: str, stage: Stage, stages: Mapping[str, Stage]) -> None:
    words = rest.split()
    options = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
    *names, target = [word for word in words if not word.startswith("--")]
    for name in names:
        source = stages[options["from"]].at(name) if "from" in options else REPOSITORY / name
        into = stage.at(target) / Path(name).name if target.endswith("/") else stage.at(target)
        into.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignore = None if "from" in options else shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, into, symlinks=True, ignore=ignore)
        else:
            shutil.copy2(source, into)


def _run(stage: Stage, script: str) -> None:
    ran = subprocess.run(
        [*_sandbox(stage, _package_index(), writable=True), "/bin/sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=_STEP_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"RUN {script}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"


def _package_index() -> dict[str, str]:
    """Where this machine gets packages: a build has that from a secret."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def _system() -> dict[str, str]:
    """What of this machine stands for the base image: its place in the image → its place here."""
    python = sys.base_prefix
    found = {path: path for path in _SYSTEM if Path(path).exists()}
    # The base image's Python is in /usr/local, and `pip` there names its interpreter by this machine's path.
    found |= {"/usr/local": python, python: python}
    return found


def _sandbox(stage: Stage, environment: Mapping[str, str], *, writable: bool) -> list[str]:
    uid, gid = stage.user.split(":")
    path = stage.environment.get("PATH", "$PATH").replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    settings = {"HOME": "/", **stage.environment, "PATH": path, **environment}
    return [
        BWRAP,
        *("--bind" if writable else "--ro-bind", str(stage.files), "/"),
        *(w for inside, here in _system().items() for w in ("--ro-bind", here, inside)),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"),
        *("--uid", uid, "--gid", gid, "--cap-drop", "ALL", "--die-with-parent", "--clearenv"),
        *(w for name, value in settings.items() for w in ("--setenv", name, value)),
        *("--chdir", stage.workdir),
    ]
