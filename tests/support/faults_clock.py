"""Another clock for a process: Debian's ``faketime``, as an environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from tests.support.gateway_process import REPOSITORY

_SITE: Final = REPOSITORY / "tests" / "faults" / "faketime_site"
_NAMES: Final = (
    "LD_PRELOAD",
    "FAKETIME",
    "FAKETIME_DONT_FAKE_MONOTONIC",
    "FAKETIME_FORCE_MONOTONIC_FIX",
)


def shifted_clock(offset: str) -> Mapping[str, str]:
    """The variables under which a program's wall clock is off by ``offset`` (``+30m``, ``-1h``).

    Its monotonic clock stays as it is: that is what machines with wrong clocks are like. For programs in Python. Fails
    where ``faketime`` is not installed.
    """
    wrapper = shutil.which("faketime")
    assert wrapper, "faketime is not installed; on Debian: apt-get install -y faketime"
    # Whatever the wrapper sets; the library's path differs from system to system.
    printed = subprocess.run(
        [wrapper, "-m", "--exclude-monotonic", "-f", offset, "/usr/bin/env"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    pairs = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    # By default the library shifts timed waits on conditions, those by the monotonic clock, too. Each wait for Python's
    # own lock is one: threads that hand over to each other got slower by a factor of a hundred.
    pairs["FAKETIME_FORCE_MONOTONIC_FIX"] = "0"
    return {**{name: pairs[name] for name in _NAMES}, "PYTHONPATH": f"{_SITE}:{REPOSITORY}"}
