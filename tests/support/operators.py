"""Operator: somebody at a shell, with keys, roles and an audit log in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.support.operator_command import (
    Ended,
    beamline_gateway,
    command_line,
    operator_environment,
)
from tests.support.waiting import wait_until

#: What keeps keys and roles in NATS, for gateways and operators alike.
IN_NATS: Final = {"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"}


#: What a command may take from its start on a machine that is busy with others.
COMMAND_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Operator:
    """``variables`` are laid over what the shell holds."""

    folder: Path
    nats_url: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> Path:
        return self.folder / "apikeys.json"

    @property
    def log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "APIKEYS_FILE": str(self.keys),
            "AUDIT_LOG_FILE": str(self.log),
            **self.variables,
        }

    def run(self, *arguments: str, prefix: Sequence[str] = (), **variables: str) -> Ended:
        """Run a command to its end. ``prefix``: a program that runs it."""
        environment = {**self.environment, **variables}
        return beamline_gateway(
            *arguments, nats_url=self.nats_url, environment=environment, prefix=prefix
        )

    def having(self, **variables: str) -> Operator:
        """The same with other settings."""
        return replace(self, variables={**self.variables, **variables})

    def make_key(self, tenant: str = "acme", *roles: str) -> str:
        """A new key; fails if there is none."""
        options = [option for role in roles or ("service",) for option in ("--role", role)]
        made = self.run("apikeys", "create", "--tenant", tenant, *options)
        assert made.code == 0, made
        return made.out.strip()

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """``apikeys list``, for programs."""
        ended = self.run("apikeys", "list", "--json", *arguments)
        assert ended.code == 0, ended
        return ended.lines()

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs; killed if it still does at the end of the block."""
        process = subprocess.Popen(
            command_line(*arguments),
            env=operator_environment(self.nats_url, self.environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def records(self) -> list[dict[str, Any]]:
        """The audit log's lines; none without a log."""
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in self.log.read_text().splitlines()]
        return []

    def acts(self) -> list[tuple[str, str]]:
        """What the log says was done: action and outcome, line by line."""
        return [(record["action"], record["outcome"]) for record in self.records()]


def all_at_once(operator: Operator, *commands: Sequence[str]) -> list[Ended]:
    """Several commands in the same moment; how each ended, in their order."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: operator.run(*command), commands))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Somebody else is changing the file, for as long as the block runs."""
    with lock_of(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _open_files(pid: int) -> set[Path]:
    found = set()
    with contextlib.suppress(OSError):  # it may end meanwhile
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(descriptor.readlink())
    return found


@contextlib.contextmanager
def in_the_middle(operator: Operator, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that has begun its act and waits for the file of keys, which somebody else is changing.

    It goes on when the block ends, if it still can.
    """
    lock = lock_of(operator.keys)
    with contextlib.ExitStack() as stack:
        with held(operator.keys):
            process = stack.enter_context(operator.started(*arguments))
            # Not as soon as the log says that it is started: that line is seen before it is on the disk.
            wait_until(lambda: lock in _open_files(process.pid), COMMAND_SECONDS)
            yield process
        process.wait(COMMAND_SECONDS)
