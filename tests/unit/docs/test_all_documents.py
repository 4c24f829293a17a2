"""Every document: its links lead somewhere, what it names exists, and what exists is named where it belongs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bridge import BucketSpec, StreamSpec
from gateway.bridge_config import bridge_config
from gateway.documentation_messages import MAPPED
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations
from tests.support.document_text import documents, name_of, prose
from tests.support.gateway_process import REPOSITORY

DOCS: Final = REPOSITORY / "docs"
SUBJECTS: Final = (DOCS / "NATS_SUBJECTS.md").read_text()
MAPPING: Final = (DOCS / "ARCHITECTURE" / "PROTO_NATS_MAPPING.md").read_text()
SETTINGS: Final = Settings.from_environ({"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"})


def links(document: Path) -> Iterator[str]:
    """The relative links of a document outside of its code."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(document: Path) -> set[str]:
    """What its headings can be linked to by."""
    headings = re.findall(r"^#+ +(.+)$", prose(document), re.MULTILINE)
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    return set(slugs)


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_its_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md" and not re.fullmatch(r"L\d+(-L\d+)?", anchor):
            assert anchor in anchors(target), f"{link}: there is no such heading"


def targets(document: Path) -> set[Path]:
    """The files and folders that it leads to."""
    named = (link.partition("#")[0] for link in links(document))
    return {(document.parent / name).resolve() for name in named if name}


def test_the_index_leads_to_every_document_and_the_readme_to_it() -> None:
    """A folder stands for its README, and the page of decisions for each of them."""
    index = DOCS / "README.md"
    reached = targets(index) | targets(DOCS / "adr" / "README.md") | {index}
    reached |= {path / "README.md" for path in reached if path.is_dir()}
    assert [name_of(path) for path in documents() if path not in reached] == []
    assert index in targets(REPOSITORY / "README.md")


def test_there_are_documents() -> None:
    names = {path.name for path in documents()}
    assert names >= {"README.md", "VISION.md", "API_CONTRACTS.md", "NATS_SUBJECTS.md"}


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_it_names_no_metric_that_there_is_not(document: Path) -> None:
    """A histogram's series have names of their own; rules record some under names with a colon."""
    families = {family.name for section in declarations.SECTIONS for family in section.families}
    known = families | {
        f"{name}{end}" for name in families for end in ("_bucket", "_sum", "_count")
    }
    text = document.read_text()
    named = set(re.findall(r"\bbeamline_gateway_[a-z_]+[a-z](?![a-z_:*])\b", text))
    assert {name for name in named if name not in known and not name.endswith("_")} <= _NO_METRICS


_NO_METRICS: Final = {"beamline_gateway_build"}


@pytest.mark.parametrize("stream", bridge_config(SETTINGS).streams, ids=lambda s: s.name)
def test_a_stream_and_its_subjects_are_in_the_page_of_subjects(stream: StreamSpec) -> None:
    assert f"| `{stream.name}` |" in SUBJECTS
    for subject in stream.subjects:
        assert f"`{subject}`" in SUBJECTS


@pytest.mark.parametrize("bucket", bridge_config(SETTINGS).buckets, ids=lambda b: b.name)
def test_a_bucket_is_in_the_page_of_subjects(bucket: BucketSpec) -> None:
    assert f"| `{bucket.name}` |" in SUBJECTS


@pytest.mark.parametrize(
    ("title", "how", "schema", "rules"), MAPPED, ids=lambda part: str(part)[:40]
)
def test_each_field_of_a_request_has_a_row_and_each_rule_a_field(
    title: str, how: str, schema: object, rules: dict[str, str]
) -> None:
    fields = set(schema.fields)  # type: ignore[attr-defined]
    section = MAPPING.partition(f"## {title}")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == fields
    assert rules.keys() <= fields


def test_the_command_of_the_page_of_subjects_does_what_it_says() -> None:
    [command] = re.findall(r"^```sh\n(.*?)^```", SUBJECTS, re.DOTALL | re.MULTILINE)
    commands = Path(sys.executable).parent
    proxied = {"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1"}
    done = subprocess.run(
        ["bash", "-c", command],
        env={"PATH": f"{commands}:{os.defpath}", **proxied},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    [row] = [line for line in done.stdout.splitlines() if "NATS_SUBJECT_ALLOWLIST" in line]
    assert "caf.exec.result.v1" in row and "caf.exec.result.v2" in row
