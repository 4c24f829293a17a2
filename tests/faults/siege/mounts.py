"""Mounts of the program's own: small disks that anyone may mount, and that vanish with the program however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_MARK: Final = "SIEGE_HAS_OWN_MOUNTS"


def have_own_mounts(module: str, arguments: Sequence[str]) -> None:
    """Run ``python -m module`` anew in a mount namespace (and user namespace where need be), unless it is in one.

    Where the system allows none, the program goes on as it is: faults that need a disk of their own will say so.
    """
    if _MARK in os.environ or shutil.which("unshare") is None:
        return
    for command in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        if subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0:
            again = [*command, sys.executable, "-m", module, *arguments]
            os.execvpe(again[0], again, {**os.environ, _MARK: "1"})


__all__ = ["have_own_mounts"]
