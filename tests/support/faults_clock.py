"""Another clock for a process: Debian's ``faketime``, as an environment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from tests.support.gateway_process import REPOSITORY

_SITE: Final = REPOSITORY / "tests" / "faults" / "faketime_site"
_NAMES: Final = ("LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC")


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
    return {**{name: pairs[name] for name in _NAMES}, "PYTHONPATH": f"{_SITE}:{REPOSITORY}"}
