"""The Jenkinsfile as the pipeline that Jenkins makes of it; `make jenkins-lint` looks at it as Groovy.

Jenkins alone knows the declarative syntax for certain, and it is not here. So the file is written in a form that is
easy to read, a block or a step a line, and anything else in it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

TEXT = (Path(__file__).parents[3] / "Jenkinsfile").read_text()
POST: Final = {"always", "cleanup", "failure", "success"}
STEPS: Final = {"archiveArtifacts", "checkout", "deleteDir", "junit", "sh", "stash", "unstash"}
#: Block → what may stand in it (https://www.jenkins.io/doc/book/pipeline/syntax/, as far as it is used).
GRAMMAR: Final = {
    "pipeline": {"agent", "environment", "options", "post", "stages", "triggers"},
    "stages": {"stage"},
    "stage": {"agent", "matrix", "options", "post", "stages", "steps", "when"},
    "matrix": {"agent", "axes", "stages"},
    "axes": {"axis"},
    "axis": {"name", "values"},
    "when": {"triggeredBy"},
    "triggers": {"cron"},
    "options": {
        "buildDiscarder", "disableConcurrentBuilds", "skipDefaultCheckout", "timeout", "timestamps",
    },
    "environment": {"CI"},
    "post": POST,
    "steps": {*STEPS, "catchError"},
    "catchError": STEPS,
    **dict.fromkeys(POST, STEPS),
}  # fmt: skip
LINE: Final = re.compile(r"(\w+)(?:\((.*)\)| (?!\{).+?)?( \{)?")


@dataclass
class Block:
    """A block or a step: its name, what it is given, what is in it."""

    name: str
    given: str
    line: str
    inside: list[Block] = field(default_factory=list)

    def walk(self) -> Iterator[Block]:
        yield self
        for block in self.inside:
            yield from block.walk()

    def named(self, name: str) -> list[Block]:
        return [block for block in self.walk() if block.name == name]


def parsed(text: str) -> Block:
    """The file as a tree. Raises AssertionError for what is not in the form."""
    root = Block("", "", "")
    open_blocks = [root]
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("//"):
            continue
        if line == "}":
            open_blocks.pop()
            assert open_blocks, "a block is closed that was not opened"
            continue
        found = LINE.fullmatch(line)
        assert found is not None, f"neither a block nor a step: {line}"
        block = Block(found[1], (found[2] or "").strip("'"), line)
        open_blocks[-1].inside.append(block)
        if found[3]:
            open_blocks.append(block)
    assert open_blocks == [root], "a block is not closed"
    return root


def strangers(root: Block) -> list[str]:
    """What stands where it may not."""
    return [
        f"{inner.line} in {block.name}"
        for block in root.walk()
        if block.inside and block is not root
        for inner in block.inside
        if inner.name not in GRAMMAR.get(block.name, set())
    ]


PIPELINE = parsed(TEXT)
STAGES = {stage.given: stage for stage in PIPELINE.named("stage")}


def test_it_is_one_pipeline_of_known_parts_in_their_places() -> None:
    assert [block.name for block in PIPELINE.inside] == ["pipeline"]
    assert strangers(PIPELINE) == []


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("            steps {", "            step {", "step"),
        ("triggeredBy 'TimerTrigger'", "triggerdBy 'TimerTrigger'", "triggerdBy"),
        ("                always {", "                allways {", "allways"),
    ],
)
def test_a_misspelt_part_is_found(was: str, now: str, told: str) -> None:
    assert any(told in stranger for stranger in strangers(parsed(TEXT.replace(was, now, 1))))


@pytest.mark.parametrize(
    ("was", "now"), [("stages {", "stages"), ("timestamps()", "timestamps() timestamps()\n{")]
)
def test_a_file_in_another_form_is_refused(was: str, now: str) -> None:
    with pytest.raises(AssertionError):
        parsed(TEXT.replace(was, now, 1))


def test_stages_have_names_of_their_own_and_something_to_do() -> None:
    assert len(STAGES) == len(PIPELINE.named("stage"))
    for stage in STAGES.values():
        does = {"steps", "stages", "matrix"} & {block.name for block in stage.inside}
        assert len(does) == 1, stage.line


def test_a_step_that_fails_ends_its_stage() -> None:
    """A shell step's exit code is its outcome: nothing swallows it on the way to a landing."""
    night = {id(step) for step in STAGES["Nightly"].walk()}
    for step in PIPELINE.named("sh"):
        assert not re.search(r"\|\||returnStatus|set \+e|; *true", step.line), step.line
    assert all(id(block) in night for block in PIPELINE.named("catchError"))


def test_smoke_checks_come_before_the_tests_and_alone() -> None:
    order = list(STAGES)
    assert order.index("Smoke") < order.index("Test") < order.index("Readiness")
    assert [step.line for step in STAGES["Smoke"].named("sh")] == ["sh 'make smoke'"]


def test_every_report_that_is_written_is_read_and_kept() -> None:
    for stage in STAGES.values():
        written = {
            name for sh in stage.named("sh") for name in re.findall(r"xml=(\S+?)\"", sh.line)
        }
        [always] = stage.named("always") if written and len(stage.named("always")) == 1 else [stage]
        read = {
            name for junit in always.named("junit") for name in re.findall(r"'(\S+?)'", junit.line)
        }
        assert written <= read, stage.line
    kept = [step.line for step in STAGES["Test"].named("archiveArtifacts")]
    assert any("reports/**" in line for line in kept), "coverage and reports are kept"


def test_readiness_is_judged_by_the_reports_of_this_run() -> None:
    [matrix] = STAGES["Test"].named("matrix")
    [values] = matrix.named("values")
    stashed = {f"reports-{env}" for env in re.findall(r"'(\w+)'", values.line)}
    fetched = {
        name
        for step in STAGES["Readiness"].named("unstash")
        for name in re.findall(r"'(.+)'", step.line)
    }
    assert "reports-py311" in fetched <= stashed
    assert [step.line for step in STAGES["Test"].named("stash")] == [
        "stash name: \"reports-${env.TOX_ENV}\", includes: 'reports/junit-*.xml', allowEmpty: true"
    ]
    assert sum("rm -rf reports" in step.line for step in PIPELINE.named("sh")) == 2


def test_what_takes_long_is_run_at_night_only() -> None:
    [when] = STAGES["Nightly"].named("when")
    assert [block.line for block in when.inside] == ["triggeredBy 'TimerTrigger'"]
    at_night = {step.line for step in STAGES["Nightly"].named("sh")}
    by_day = {step.line for step in PIPELINE.named("sh")} - at_night
    assert "sh 'make faults'" in at_night - by_day
    assert PIPELINE.named("cron")
