"""What the documents name exists: variables, streams and buckets, subjects, headers, spans, fields, codes, labels.

A name is what stands between backticks and looks like one, or in a block that nobody carries out; variables are looked
for in commands, too. What is somebody else's is in `FOREIGN`, each with its reason. (Metrics are in
test_all_documents.py, commands in test_commands.py.)
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from bridge import required_permissions
from gateway.bridge_config import bridge_config
from gateway.operator import backup
from gateway.operator.bus import operator_config
from gateway.operator.needs import needs_of_all
from gateway.settings import Settings, variables
from gateway.smoke.failures import Failure
from gateway.smoke.plan import Outcome
from gateway.telemetry.metrics.declarations import families
from tests.bench.sizing import MEASURED
from tests.support.code_names import names_of_the_code
from tests.support.deploy_queries import exposed, rules
from tests.support.document_text import blocks, for_readers, name_of, spans
from tests.support.gateway_process import REPOSITORY

VARIABLE: Final = re.compile(r"(?<![\w*…])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w*…]|\.md)")
HEADER: Final = re.compile(
    r"(?<![\w.$-])(?:[A-Z][A-Za-z]+|X)(?:-[A-Z][A-Za-z]*)+(?![\w.-])|\bx-[a-z-]+"
)
#: With dots: a subject, a span, an attribute of one, a field inside of another, a module, a file.
DOTTED: Final = re.compile(r"(?<![\w./$*-])[a-z_]+(?:\.[a-z_0-9*>]+)+(?![\w/(-])")
SNAKE: Final = re.compile(r"(?<![\w./$-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w./(-])")
PROGRAMS: Final = ("python", "java")
CARRIED_OUT: Final = (*PROGRAMS, "sh")

FOREIGN: Final = {
    # Variables.
    "BASH_SOURCE": "bash's own, in a program for clients",
    "BEAMLINE_KEY": "of `smoke` and of the programs for clients",
    "BEAMLINE_PATIENCE_SECONDS": "of the programs for clients",
    "BEAMLINE_TENANT_KEY": "of `smoke`",
    "BEAMLINE_URL": "of the programs for clients",
    "SO_REUSEPORT": "an option of sockets",
    # Headers.
    "Nats-Incr": "of NATS' counters, which a decision is about",
    # With dots.
    "caf.exec.result.*": "an example of a pattern",
    "caf.exec.result.v2": "an example of another version",
    "caf.exec.result.test": "an example of a subject that is not let in",
    "deployment.environment.name": "a resource attribute that operators may set",
    # With underscores.
    "best_score": "a reason of the reference Router's",
    "assigment_id": "a misspelling, whose answer is shown",
    "ca_file": "of nats-server's configuration",
    "cert_file": "of nats-server's configuration",
    "key_file": "of nats-server's configuration",
    "store_dir": "of nats-server's configuration",
}  # fmt: skip
USED: Final = {
    name
    for document in for_readers()
    for pattern in (VARIABLE, HEADER, DOTTED, SNAKE)
    for name in pattern.findall("\n".join([*spans(document), *(b.text for b in blocks(document))]))
}
SETTINGS: Final = Settings.from_environ({"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"})
STREAMS: Final = set(backup.stream_names(SETTINGS))
BUCKETS: Final = {name.removeprefix("KV_") for name in STREAMS}
#: What somebody may publish to or listen on: all subjects that there are.
SUBJECTS: Final = {
    subject
    for config in (
        bridge_config(SETTINGS),
        operator_config(SETTINGS, needs_of_all(SETTINGS)),
        operator_config(SETTINGS, backup.needs_of_all(SETTINGS)),
    )
    for allowed in required_permissions(config).values()
    for subject in allowed
}
CODE: Final = names_of_the_code()
HEADERS: Final = {name.lower() for name in CODE}
each_document: Final = pytest.mark.parametrize("document", for_readers(), ids=name_of)


def named(document: Path, pattern: re.Pattern[str]) -> set[str]:
    """What looks like a name of this kind in a document, and is not foreign."""
    without = PROGRAMS if pattern is VARIABLE else CARRIED_OUT
    shown = [block.text for block in blocks(document) if block.language not in without]
    return set(pattern.findall("\n".join([*spans(document), *shown]))) - FOREIGN.keys()


def is_a_path_of_fields(name: str) -> bool:
    """``error.details.limit``: each of them is a name of the code."""
    return all(part in CODE for part in name.split("."))


def is_a_module_or_file(name: str) -> bool:
    path = REPOSITORY.joinpath(*name.split("."))
    return (
        path.is_dir()
        or path.with_suffix(".py").exists()
        or bool(list(REPOSITORY.glob(f"*/**/{name}")))
    )


@each_document
def test_a_variable_stream_or_bucket_that_is_named_exists(document: Path) -> None:
    declared = {name for v in variables() for name in (v.name, v.alias) if name}
    assert named(document, VARIABLE) - declared - STREAMS - BUCKETS == set()


@each_document
def test_a_header_that_is_named_exists(document: Path) -> None:
    assert {name for name in named(document, HEADER) if name.lower() not in HEADERS} == set()


@each_document
def test_a_subject_span_attribute_or_field_that_is_named_exists(document: Path) -> None:
    unknown = named(document, DOTTED) - CODE - SUBJECTS
    assert {
        n for n in unknown if not is_a_path_of_fields(n) and not is_a_module_or_file(n)
    } == set()


@each_document
def test_a_field_code_label_or_reason_that_is_named_exists(document: Path) -> None:
    metrics = {*exposed(), *(family.name for family in families())}
    of_rules = {name for rule in rules() for name in rule.get("annotations", ())}
    of_rules |= {part for rule in rules() for part in rule.get("record", "").split(":")}
    of_smoke = (
        {failure.name.lower() for failure in Failure}
        | {outcome.value for outcome in Outcome}
        | {"exit_code"}
    )
    unknown = (
        named(document, SNAKE) - CODE - metrics - of_rules - of_smoke - asdict(MEASURED).keys()
    )
    # Tests are held against the reports of a run by test_readiness_document.py.
    assert {name for name in unknown if not name.startswith("test_")} == set()


def test_nothing_is_called_foreign_that_no_document_names() -> None:
    assert FOREIGN.keys() - USED == set()
