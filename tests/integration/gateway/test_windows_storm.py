"""Counted windows of several processes, any of which may be killed at any moment."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.support.gateway_process import REPOSITORY
from tests.support.windows_storm import THREADS

LIMIT = 120_000
KILLS = 60


def test_kills_at_any_moment_neither_add_a_place_nor_lose_more_than_was_in_flight(
    tmp_path: Path,
) -> None:
    """A killed worker may have counted a request, one a thread, that nobody could be told of."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.windows_storm", tmp_path, str(LIMIT), str(KILLS)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["failed"] == 0, f"a living worker could not count: {ended.stderr}"
    assert report["before_the_end"] < LIMIT, "the limit was reached before the kills were done"
    assert LIMIT - KILLS * THREADS <= report["allowed"] <= LIMIT
    with closing(sqlite3.connect(tmp_path / "limits.sqlite")) as file:
        assert file.execute("SELECT count FROM windows").fetchall() == [(LIMIT,)]
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
