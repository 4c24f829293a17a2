"""The readiness document as data: what it claims, by which tests, and the parts of it that are made for it.

The document is the declaration, and there is no second one. A claim is an item of a list that begins with its id,
and the tests that show it are the items below it::

    - **S-1.** Cold start: …
      - `tests/e2e/test_sticky_sessions.py::test_cold_start_asks_freely_and_keeps_the_provider`

Made for it, by `complete`: the status between its two comments, the cells of the tables of metrics and labels that the
declarations know, and the numbers of lines that it points to (``[`make smoke`](.ci/run#L40)``: the first line of that
file that holds these words).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.telemetry.metrics import declarations as metrics

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "CP2_READINESS_ROUTER_GATEWAY_RU.md"

_CLAIM: Final = re.compile(r"^- \*\*([A-Z]+-\d+)\.\*\* (.*)$")
_ANY_CLAIM: Final = re.compile(r"\*\*([A-Z]+-\d+)\.?\*\*")
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
_ITEM: Final = re.compile(r"^  - (`tests/[\w/]+\.py::\w+`)")
_STATUS: Final = re.compile(r"(<!-- status[^>]*-->\n)(.*?)(\n<!-- /status -->)", re.DOTALL)
_LINE: Final = re.compile(r"\[`([^`]+)`\]\(([\w./-]+)#L(\d+)\)")
_METRICS: Final = "| Метрика | Тип | Метки |"
_LABELS: Final = "| Метка | Значения |"


class Unsound(Exception):
    """The document contradicts itself or names what there is not; one sentence."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed under an id, and the tests that show it: node ids without parameters."""

    name: str
    text: str
    tests: tuple[str, ...]


def claims(text: str) -> list[Claim]:
    """All claims, in their order. Raises Unsound."""
    found: list[Claim] = []
    for line in text.splitlines():
        if claim := _CLAIM.match(line):
            found.append(Claim(claim[1], claim[2], ()))
        elif found and (item := _ITEM.match(line)):
            last = found[-1]
            found[-1] = Claim(last.name, last.text, (*last.tests, item[1].strip("`")))
    _must_be_none([claim.name for claim in found if not claim.tests], "is shown by no test")
    names = [claim.name for claim in found]
    _must_be_none(_repeated(names), "is claimed twice")
    _must_be_none(sorted(set(_ANY_CLAIM.findall(text)) - set(names)), "is no claim")
    shown = [test for claim in found for test in claim.tests]
    _must_be_none(sorted(set(_TEST.findall(text)) - set(shown)), "is named by no claim")
    if not found:
        raise Unsound("nothing is claimed")
    return found


def status(text: str) -> str:
    """What the document says of the last run. Raises Unsound."""
    return _status(text)[2]


def complete(text: str, *, said: str | None = None) -> str:
    """The document with all that is made for it as it is now; ``said`` is the status, or it stays. Raises Unsound."""
    if said is not None:
        before, after = _status(text)[1], _status(text)[3]
        text = _STATUS.sub(lambda _: f"{before}{said}{after}", text)
    text = "\n".join(_tables(text.split("\n")))
    return _LINE.sub(lambda link: _pointed(link[1], link[2], text), text)


def _status(text: str) -> re.Match[str]:
    found = list(_STATUS.finditer(text))
    if len(found) != 1:
        raise Unsound(f"there are {len(found)} statuses")
    return found[0]


def _pointed(words: str, path: str, itself: str) -> str:
    if path != DOCUMENT.name and not (ROOT / path).is_file():
        raise Unsound(f"{path} is pointed to and is no file")
    content = itself if path == DOCUMENT.name else (ROOT / path).read_text(encoding="utf-8")
    lines = content.splitlines()
    number = next((n for n, line in enumerate(lines, 1) if words in line), None)
    if number is None:
        raise Unsound(f"no line of {path} holds: {words}")
    return f"[`{words}`]({path}#L{number})"


def _tables(lines: list[str]) -> Iterator[str]:
    table = ""
    for line in lines:
        table = line if line.startswith((_METRICS, _LABELS)) else table if line[:1] == "|" else ""
        if not table or line == table or line.startswith("|---"):
            yield line
            continue
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        known = _metric_cells() if table.startswith(_METRICS) else _label_cells()
        if name not in known:
            raise Unsound(f"{name} is in a table and is not declared")
        given = known[name]
        cells[: len(given)] = [new or old for new, old in zip(given, cells, strict=False)]
        yield f"| {' | '.join((name, *cells))} |"


def _metric_cells() -> Mapping[str, list[str]]:
    return {
        f"`{family.name}`": [family.kind, ", ".join(f"`{label.name}`" for label in family.labels)]
        for family in metrics.families()
    }


def _label_cells() -> Mapping[str, list[str]]:
    """Name → the values of a closed set; of one that depends on the configuration nothing."""
    values: dict[str, dict[str, None]] = {}
    for family in metrics.families():
        for label in family.labels:
            values.setdefault(label.name, {}).update(dict.fromkeys(label.values))
    return {
        f"`{name}`": [", ".join(f"`{value}`" for value in known)] for name, known in values.items()
    }


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _must_be_none(names: list[str], what: str) -> None:
    if names:
        raise Unsound(f"{', '.join(names)} {what}")
