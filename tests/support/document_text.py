"""The Markdown files of the product as text: their blocks of code, what stands between backticks, and the prose."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.gateway_process import REPOSITORY

_BLOCK: Final = re.compile(r"^( *)(```|~~~)(\w*)\n(.*?)^ *\2$", re.DOTALL | re.MULTILINE)
_SPAN: Final = re.compile(r"(`+)(.+?)\1", re.DOTALL)
#: About the product's history and its tests; everything else is for those who use it.
_NOT_FOR_READERS: Final = ("CHANGELOG.md", "tests/")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: where it begins, what language it says it is (may be none), and its lines."""

    document: str
    line: int
    language: str
    text: str

    @property
    def first_line(self) -> str:
        """What it is known by in lists: line numbers move."""
        return self.text.partition("\n")[0].strip()

    def is_right_above(self, other: Block) -> bool:
        """Whether nothing but an empty line is between the two."""
        return other.line == self.line + self.text.count("\n") + 3

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """All that git has, or will have; without git, as in a copy of the checkout, all that lie here."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split() if listed.returncode == 0 else []
    found = [REPOSITORY / name for name in names] or [
        path
        for path in REPOSITORY.rglob("*.md")
        if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
    ]
    return sorted(path for path in found if path.exists())


def name_of(document: Path) -> str:
    """Its path in the checkout."""
    return document.relative_to(REPOSITORY).as_posix()


def for_readers() -> list[Path]:
    """The documents that users, operators and developers of other programs are given."""
    return [path for path in documents() if not name_of(path).startswith(_NOT_FOR_READERS)]


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of code, in order."""
    text = document.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(name_of(document), line, found[3], found[4])


def prose(document: Path) -> str:
    """The text without its blocks of code."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def spans(document: Path) -> list[str]:
    """What stands between backticks outside of blocks, on one line each."""
    return spans_in(prose(document))


def spans_in(text: str) -> list[str]:
    """The same, of a piece of prose."""
    return [" ".join(found[2].split()) for found in _SPAN.finditer(text)]
