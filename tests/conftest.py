"""Fixtures of the whole suite; see README.md for what each kind of test may use."""

from __future__ import annotations

from tests.support.leaks import leaves_nothing_behind, process_mark

__all__ = ["leaves_nothing_behind", "process_mark"]
