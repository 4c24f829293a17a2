"""The merged log of several processes."""

from __future__ import annotations

import io
import os
import re

from gateway.devstack.merged_log import MergedLog


def test_each_line_comes_whole_behind_the_name_of_its_process() -> None:
    out = io.StringIO()
    log = MergedLog(out)
    with log.channel("first") as first, log.channel("second") as second:
        os.write(first, b"half ")
        os.write(second, b"other\n")
        os.write(first, b"a line\nlast")
    log.finish(5.0)
    lines = out.getvalue().splitlines()
    assert sorted(lines) == ["first   │ half a line", "first   │ last", "second  │ other"]


def test_noise_is_left_out() -> None:
    out = io.StringIO()
    log = MergedLog(out)
    with log.channel("nats", noise=re.compile("banner")) as output:
        os.write(output, b"a banner\nready\n")
    log.finish(5.0)
    assert out.getvalue() == "nats    │ ready\n"


def test_bytes_that_are_no_text_do_not_end_it() -> None:
    out = io.StringIO()
    log = MergedLog(out)
    with log.channel("x") as output:
        os.write(output, b"\xff\xfe\nnext\n")
    log.finish(5.0)
    assert out.getvalue().endswith("next\n")
    assert not log.broken


class _ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_when_nobody_reads_any_more_the_processes_are_still_drained() -> None:
    log = MergedLog(_ClosedPipe())
    with log.channel("x") as output:
        for _ in range(64):
            os.write(output, b"x" * 4095 + b"\n")  # more than a pipe holds: blocks if not drained
    log.finish(5.0)
    assert log.broken
