"""Tables for people: columns as wide as they must be, and nothing in them that a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a table; nothing but the header for no rows."""
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        yield "  ".join(padded).rstrip()


def printable(text: str) -> str:
    """The text without control characters: what others wrote (a name, a reason) may hold escape sequences."""
    return "".join(c if c.isprintable() else _UNPRINTABLE for c in text)
