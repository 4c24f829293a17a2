"""What became of tests: from pytest's collection, which says what there is, and JUnit files, which say what was run.

A stage of CI writes ``junit-<stage>.xml``, and what it runs once more ``junit-<stage>-again.xml``: the second try
counts in place of the first. Across stages nothing makes up for a failure: a test that passed on one Python and
failed on another has failed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from tests.readiness.document import ROOT

AGAIN: Final = "-again"


@dataclass(slots=True)
class Ran:
    """Tests by node id: those that passed, those that did not (failed, in error, skipped), and when the last began."""

    passed: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


def of_reports(folder: Path) -> Ran:
    """What the JUnit files in ``folder`` tell, all stages together."""
    stages: dict[str, dict[str, tuple[bool, float]]] = {}
    # In this order "junit-a-again" comes after "junit-a".
    for path in sorted(folder.glob("junit-*.xml"), key=lambda path: path.stem):
        stage = stages.setdefault(path.stem.removesuffix(AGAIN), {})
        stage.update(_of_file(path))
    ran = Ran()
    for stage in stages.values():
        for test, (passed, began) in stage.items():
            if passed:
                ran.passed[test] = max(began, ran.passed.get(test, 0))
            else:
                ran.failed.add(test)
    return ran


def _of_file(path: Path) -> Mapping[str, tuple[bool, float]]:
    """Node id → did it pass, and when its run began (seconds since the epoch)."""
    told: dict[str, tuple[bool, float]] = {}
    for suite in ElementTree.parse(path).iter("testsuite"):
        began = datetime.fromisoformat(suite.attrib["timestamp"]).timestamp()
        for case in suite.iter("testcase"):
            test = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
            passed = not any(case.find(bad) is not None for bad in ("failure", "error", "skipped"))
            # A test whose teardown fails is told twice.
            told[test] = (passed and told.get(test, (True, 0))[0], began)
    return told


def collected(tests: Iterable[str]) -> dict[str, list[str]]:
    """Each of ``tests`` (node ids without parameters) → all of it that there is to run, with parameters.

    Raises RuntimeError if pytest cannot collect.
    """
    wanted = set(tests)
    files = sorted({test.partition("::")[0] for test in wanted})
    there = [name for name in files if (ROOT / name).is_file()]
    items: dict[str, list[str]] = {test: [] for test in wanted}
    for item in _collect(there) if there else ():
        items.setdefault(item.partition("[")[0], []).append(item)
    return {test: items[test] for test in wanted}


def _collect(files: list[str]) -> Iterator[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:randomly", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    yield from (line for line in done.stdout.splitlines() if line.startswith("tests/"))


def newest_change(*paths: str) -> float:
    """When what lies at ``paths`` was last changed, in seconds since the epoch: a result from before tells nothing."""
    files = [
        file
        for path in paths
        for file in ([ROOT / path] if (ROOT / path).is_file() else (ROOT / path).rglob("*.py"))
    ]
    return max(file.stat().st_mtime for file in files)
