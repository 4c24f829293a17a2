"""What asyncio says when a task or a future was forgotten; it says it in the log only."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest

_COMPLAINTS = (
    "exception was never retrieved",
    "Task was destroyed",
    "never awaited",
    "Exception in callback",
    "Unclosed",
)
_formatter = logging.Formatter()


@pytest.fixture
def nothing_forgotten(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test after which asyncio complains, or a closed loop holds a task that never ended."""
    yield
    gc.collect()
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]
    complaints = [
        _formatter.format(record)
        for record in records
        if any(complaint in record.getMessage() for complaint in _COMPLAINTS)
    ]
    assert not complaints, "\n".join(complaints)
    assert not unended_tasks(), "\n".join(unended_tasks())


def unended_tasks() -> list[str]:
    """Tasks of loops that are closed: nothing will ever run them."""
    return [
        repr(task)
        for task in gc.get_objects()
        if isinstance(task, asyncio.Task) and not task.done() and task.get_loop().is_closed()
    ]
