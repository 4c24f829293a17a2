"""Lets tox find the interpreters that pyenv keeps.

pyenv puts one `python3.12` shim on PATH that answers only while 3.12 is the *selected* version, so
tox takes an installed interpreter for missing. The folders of the interpreters themselves, appended
to PATH, need no selection. Without pyenv nothing is added, and what PATH has already comes first.
"""

import os
from pathlib import Path


def _pyenv_interpreters() -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return [str(folder) for folder in sorted(root.glob("versions/3.*/bin"))]


os.environ["PATH"] = os.pathsep.join(
    [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_pyenv_interpreters()]
)
