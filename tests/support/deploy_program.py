"""A program of Debian's under test: a port and a folder of its own, started and waited for, ended with the test."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.ports import PortReservation
from tests.support.http_client import Client
from tests.support.waiting import GENEROUS_SECONDS, wait_until


class DebianProgram(ABC):
    """What is the same for all of them; a subclass writes its configuration into ``folder`` when it is made."""

    name: ClassVar[str]
    probe: ClassVar[tuple[str, int]]
    """A path, and the status with which the program says that it is there."""

    def __init__(self) -> None:
        self._port = PortReservation()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{self.name}-under-test-")
        self.folder = Path(self._folder.name)
        self._child: Child | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """How it is started, in the foreground."""

    @property
    def host(self) -> str:
        return self._port.host

    @property
    def port(self) -> int:
        return self._port.port

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "output.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        with (self.folder / "output.log").open("ab") as output:
            self._child = child_process.spawn(self.command(), stdout=output)
        try:
            wait_until(self._answers, GENEROUS_SECONDS, self.log)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(f"{self.name} says:\n{self.log()[-3000:]}")
        if self._child is not None:
            child_process.terminate(self._child, GENEROUS_SECONDS)
        self._port.close()
        self._folder.cleanup()

    def _answers(self) -> bool:
        path, status = self.probe
        with Client(self.host, self.port, headers={}) as client:
            try:
                return client.get(path).status == status
            except OSError:
                return False
