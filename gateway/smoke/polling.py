"""A gateway counts when it has answered: look until what is expected is there, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gateway.smoke.exposition import Exposition, scrape
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.session import Session

_PAUSE_SECONDS: Final = 0.1
_LATER: Final = frozenset(
    {
        Failure.METRICS_FAMILY_MISSING,
        Failure.METRICS_STILL,
        Failure.HITS_STILL,
        Failure.MISSES_STILL,
    }
)
"""What time can mend."""


def first_without_failure(session: Session, look: Callable[[Exposition], None]) -> None:
    """Scrape and ``look``, again and again, until it raises nothing; after the wait, raise its last Failed."""
    end = time.monotonic() + session.wait_seconds
    while True:
        try:
            look(scrape(session.metrics))
        except Failed as failed:
            if failed.failure not in _LATER or time.monotonic() > end:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
