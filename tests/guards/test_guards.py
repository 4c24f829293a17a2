"""Who guards the guards: in a copy of the checkout one thing is broken at a time, and its check must go red.

A check that cannot fail is worth nothing. Each is run alone, on the untouched copy and on the broken one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.gateway_process import REPOSITORY

MADE: Final = (
    ".*", "*.egg-info", "__pycache__", "build", "dist", "reports",
)  # fmt: skip
"""What is no part of a checkout, `.ci` apart."""
DOCS: Final = "tests/unit/docs"
GENERATED: Final = f"{DOCS}/test_generated_documents.py"
CI: Final = "tests/unit/house/test_ci.py"
NAMES: Final = f"{DOCS}/test_names.py"
COMMANDS: Final = f"{DOCS}/test_commands.py"
GUIDES: Final = "tests/unit/deploy/test_guides.py"


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One thing broken: ``was`` in ``path`` becomes ``now``; ``check`` must fail and name ``told``."""

    what: str
    path: str
    was: str
    now: str
    check: str
    told: str

    def __str__(self) -> str:
        return self.what


SABOTAGES: Final = (
    Sabotage(
        "a metric is renamed", "gateway/telemetry/metrics/declarations.py",
        '"sticky_hits_total"', '"sticky_hit_total"',
        "tests/unit/smoke/test_contract.py", "sticky_hits_total",
    ),
    Sabotage(
        "a metric is renamed, and the documents are asked", "gateway/telemetry/metrics/declarations.py",
        '"sticky_hits_total"', '"sticky_hit_total"',
        f"{GENERATED}::test_a_committed_document_is_what_the_declarations_say", "METRICS.md",
    ),
    Sabotage(
        "a label is dropped", "gateway/telemetry/metrics/declarations.py",
        "    labels.PHASE, labels.ROUTE, labels.METHOD, labels.STATUS,",
        "    labels.ROUTE, labels.METHOD, labels.STATUS,",
        "tests/unit/smoke/test_contract.py", "cp_phase",
    ),
    Sabotage(
        "a test that readiness rests on is deleted", "tests/e2e/test_sticky_sessions.py",
        "def test_cold_start_asks_freely", "def cold_start_asks_freely",
        f"{DOCS}/test_readiness_document.py", "test_cold_start_asks_freely",
    ),
    Sabotage(
        "a line that readiness points to has moved", "Makefile",
        "VENV  := .venv", "\nVENV  := .venv",
        f"{DOCS}/test_readiness_document.py", "--complete",
    ),
    Sabotage(
        "a field of a schema is no longer required", "gateway/schemas/usage.py",
        'latency_ms = Number(least=0, required=True,', 'latency_ms = Number(least=0,',
        "tests/unit/gateway/test_refused_bodies.py::test_a_missing_field_is_named", "latency_ms",
    ),
    Sabotage(
        "a tox environment is dropped", "tox.ini",
        "[testenv:min]", "[testenv:lowest]",
        CI, "min",
    ),
    Sabotage(
        "a make target that CI calls is dropped", "Makefile",
        "\nsmoke: $(STAMP)", "\nchecks: $(STAMP)",
        CI, "smoke",
    ),
    Sabotage(
        "Jenkins calls a target that there is not", "Jenkinsfile",
        "sh 'make smoke'", "sh 'make smokes'",
        CI, "smokes",
    ),
    Sabotage(
        "the smoke stage is taken out of CI", ".ci/run",
        "make --no-print-directory smoke", "true",
        CI, "smoke",
    ),
    Sabotage(
        "an exit code is changed", "gateway/smoke/failures.py",
        "        33,", "        39,",
        "tests/unit/smoke/test_exit_codes.py", "stored_twice",
    ),
    Sabotage(
        "a variable is taken out of the documents", "docs/CONFIGURATION.md",
        "\n| `STICKY_TTL_MS`", "\n| `STICKY_LIFE_MS`",
        f"{GENERATED}::test_a_committed_document_is_what_the_declarations_say", "STICKY_TTL_MS",
    ),
    Sabotage(
        "a variable that there is not is named", "docs/SMOKE.md",
        "`METRICS_BIND`", "`METRICS_ADDRESS`",
        NAMES, "METRICS_ADDRESS",
    ),
    Sabotage(
        "a bucket that there is not is named", "docs/OPERATIONS.md",
        "`KV_BEAMLINE_STICKY`", "`KV_BEAMLINE_SESSIONS`",
        NAMES, "KV_BEAMLINE_SESSIONS",
    ),
    Sabotage(
        "a header is renamed", "gateway/blueprints/once.py",
        '"X-Sticky"', '"X-Session"',
        NAMES, "X-Sticky",
    ),
    Sabotage(
        "a subject that there is not is named", "docs/API_CONTRACTS.md",
        "`caf.exec.assign.v1.ack`", "`caf.exec.acknowledge.v1`",
        NAMES, "caf.exec.acknowledge.v1",
    ),
    Sabotage(
        "a span that there is not is named", "CP2_READINESS_ROUTER_GATEWAY_RU.md",
        "`nats.consume`", "`nats.receive`",
        NAMES, "nats.receive",
    ),
    Sabotage(
        "an error code that there is not is named", "docs/CLIENTS.md",
        "`outcome_unknown`", "`unknown_outcome`",
        NAMES, "unknown_outcome",
    ),
    Sabotage(
        "a command that there is not is shown", "docs/OPERATIONS.md",
        "beamline-gateway dlq show 17", "beamline-gateway dlq display 17",
        COMMANDS, "dlq display 17",
    ),
    Sabotage(
        "an option is taken away", "gateway/operator/backup.py",
        '"--replace"', '"--overwrite"',
        COMMANDS, "--replace",
    ),
    Sabotage(
        "a make target is taken away that a document names", "Makefile",
        " browser deploy-check ", " browser ",
        COMMANDS, "deploy-check",
    ),
    Sabotage(
        "a request that nobody answers is shown", "docs/MIGRATION.md",
        "`GET /_health`", "`GET /_healthz`",
        COMMANDS, "/_healthz",
    ),
    Sabotage(
        "a command of another program is shown that no test carries out", "docs/OPERATIONS.md",
        "`nats server report jetstream`", "`nats server report accounts`",
        COMMANDS, "nats server report accounts",
    ),
    Sabotage(
        "an environment of tox that there is not is shown", "deploy/README.md",
        "`make test`", "`tox run -e py399`",
        f"{COMMANDS}::test_a_tox_environment_that_is_named_exists", "py399",
    ),
    Sabotage(
        "a command that is shown ends otherwise", "gateway/operator/bus.py",
        "RESTART_NEEDED: Final = 7", "RESTART_NEEDED: Final = 8",
        "tests/e2e/test_documented_operations.py::test_a_backup_is_restored_as_the_guide_says", "returncode=8",
    ),
    Sabotage(
        "a command is shown in a block that does not say so", "docs/MIGRATION.md",
        "### A decide in the older envelope\n", "```\ncurl http://localhost:8080/livez\n```\n",
        COMMANDS, "begin it with",
    ),
    Sabotage(
        "a document is in no index", "docs/README.md",
        "[SIZING.md](SIZING.md)", "SIZING.md",
        f"{DOCS}/test_all_documents.py::test_the_index_leads_to_every_document_and_the_readme_to_it", "SIZING.md",
    ),
    Sabotage(
        "a link leads nowhere", "docs/OPERATIONS.md",
        "](CONFIGURATION.md", "](SETTINGS.md",
        f"{GUIDES}::test_a_link_leads_somewhere", "SETTINGS.md",
    ),
    Sabotage(
        "a runbook is lost", "docs/OPERATIONS.md",
        "BeamlineGatewayUnknownOutcomes\n", "Unknown outcomes\n",
        f"{GUIDES}::test_an_alert_says_whom_it_wakes_and_where_help_is", "UnknownOutcomes",
    ),
    Sabotage(
        "a role is given a right that the table does not know", "gateway/access/roles.toml",
        'permissions = ["results:read",', 'permissions = ["usage:write", "results:read",',
        f"{DOCS}/test_access_table.py", "viewer",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of what is checked out, to be broken; the interpreter and its packages are those of this run."""

    root: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a module of Python in the copy, whose packages come before those that are installed."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env={**inherited, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check(self, *paths: str) -> subprocess.CompletedProcess[str]:
        """Run these tests and no others."""
        return self.run("pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *paths)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    root = tmp_path_factory.mktemp("guards") / "checkout"
    shutil.copytree(REPOSITORY, root, ignore=shutil.ignore_patterns(*MADE))
    shutil.copytree(REPOSITORY / ".ci", root / ".ci")
    return Checkout(root)


@pytest.fixture
def break_it(checkout: Checkout) -> Iterator[Callable[[Sabotage], None]]:
    before: dict[Path, str] = {}

    def apply(sabotage: Sabotage) -> None:
        path = checkout.root / sabotage.path
        before[path] = path.read_text(encoding="utf-8")
        assert sabotage.was in before[path], f"{sabotage.path} no longer holds what is broken here"
        path.write_text(before[path].replace(sabotage.was, sabotage.now, 1), encoding="utf-8")

    yield apply
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


def test_what_was_not_broken_passes(checkout: Checkout) -> None:
    checks = sorted({sabotage.check for sabotage in SABOTAGES})
    done = checkout.check(*checks)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=str)
def test_what_was_broken_is_noticed(
    sabotage: Sabotage, checkout: Checkout, break_it: Callable[[Sabotage], None]
) -> None:
    break_it(sabotage)
    done = checkout.check("-x", sabotage.check)
    assert done.returncode == 1, done.stdout[-4000:] + done.stderr[-4000:]
    assert sabotage.told in done.stdout
