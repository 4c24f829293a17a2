"""The programs of docs/clients as users start them: the same arguments, variables and exit codes in each language."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.support.gateway_process import REPOSITORY

FOLDER: Final = REPOSITORY / "docs" / "clients"
LANGUAGES: Final = ("shell", "python", "java")

DONE: Final = 0
REFUSED: Final = 1
NOT_SETTLED: Final = 3
AGAIN: Final = "again in "

_SECONDS: Final = 90.0
# A program that ends after a request needs no optimising compiler and one core's worth of collector.
_JAVA: Final = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m")


def compile_java(folder: Path) -> None:
    """Compile for the oldest Java that the page promises, warnings are errors but the one about its age."""
    subprocess.run(
        ["javac", "--release", "8", "-Xlint:all,-options", "-Werror", "-d", str(folder)]
        + [str(path) for path in sorted(FOLDER.glob("*.java"))],
        check=True,
        timeout=_SECONDS,
    )


@dataclass(frozen=True)
class Programs:
    """How each is started; ``classes`` is where the compiled ones are."""

    classes: Path

    def client(self, language: str) -> list[str]:
        """The command of the client."""
        return self._command(language, "beamline", "Beamline")

    def example(self, language: str) -> list[str]:
        """The command of the whole piece of work."""
        return self._command(language, "example", "Example")

    def _command(self, language: str, name: str, main: str) -> list[str]:
        if language == "java":
            return [*_JAVA, "-cp", str(self.classes), main]
        if language == "python":
            return [sys.executable, str(FOLDER / f"{name}.py")]
        return [str(FOLDER / f"{name}.sh")]


class Started:
    """A program at work; as a context manager it does not outlive its test."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        url: str,
        key: str = "blk_none",
        body: bytes = b"",
        patience_seconds: float = 60,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="client-")
        self._said = Path(self._folder.name) / "said"
        sent = Path(self._folder.name) / "sent"
        sent.write_bytes(body)
        with sent.open("rb") as stdin, self._said.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=said,
                env={
                    **os.environ,
                    "BEAMLINE_URL": url,
                    "BEAMLINE_KEY": key,
                    "BEAMLINE_PATIENCE_SECONDS": f"{patience_seconds:g}",
                },
            )

    @property
    def said(self) -> str:
        """Its standard error so far."""
        return self._said.read_text(errors="replace")

    @property
    def repeats(self) -> int:
        """How often it has announced another attempt."""
        return self.said.count(AGAIN)

    def end(self, timeout: float = _SECONDS) -> tuple[int, bytes]:
        """Wait for it: exit code and standard output."""
        out, _ = self._process.communicate(timeout=timeout)
        return self._process.returncode, out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()
