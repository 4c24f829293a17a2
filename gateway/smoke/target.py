"""Target: a gateway to be checked, and what is needed to come in. Started for the occasion, or somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``caller`` and ``other_caller``: headers (names in lower case) that authenticate two tenants. ``environ``: the
    environment that tells where NATS and the collector are. ``log``: what a started stack says."""

    url: str
    metrics_url: str | None = None
    caller: Headers = field(default_factory=dict, repr=False)
    other_caller: Headers | None = field(default=None, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    log: Path | None = None


class StackFailed(Exception):
    """A stack did not start; the text is one line, ``output`` what its processes said."""

    def __init__(self, sentence: str, output: str) -> None:
        super().__init__(sentence)
        self.output = output


Starter = Callable[[str, str], AbstractContextManager[Target]]
"""OTLP endpoint and protocol → a stack that sends its traces there. Raises StackFailed."""
