"""Every command and request that the documents show, carried out by a reader against what `make run` starts.

Blocks are pasted in the order of their document. Those that need a site of their own are in
test_documented_operations.py; what is carried out elsewhere, or cannot be here, is listed in
`tests.support.document_exceptions`. A new block or command is carried out here without a line of code.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.support.devstack_process import Started, running_devstack
from tests.support.document_commands import (
    GATEWAY,
    Command,
    commands_in_blocks,
    commands_in_sentences,
    parsed,
)
from tests.support.document_exceptions import COMMANDS, carried_out_elsewhere
from tests.support.document_reader import Reader
from tests.support.document_text import Block, blocks, for_readers, name_of
from tests.support.gateway_process import REPOSITORY
from tests.support.nats_session import NatsSession
from tests.support.operators import Operator
from tests.support.result_messages import letters, publish, result_body, result_headers
from tests.support.waiting import wait_until

NATS_NODES = "nats://nats-1:4222,nats://nats-2:4222,nats://nats-3:4222"
REFUSED = '"ok":false'
IN_BLOCKS = set(map(str, commands_in_blocks()))
SENTENCES = [
    command
    for command in commands_in_sentences()
    if command.program == GATEWAY
    and str(command) not in IN_BLOCKS | COMMANDS.keys()
    and parsed(command)[1]
]
_MILLISECONDS = itertools.count(4)


@dataclass(frozen=True)
class Site:
    """What runs, and who reads."""

    devstack: Started
    reader: Reader


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared by this module. A refused result is a dead letter at once."""
    folder = tmp_path_factory.mktemp("reader")
    once = {"NATS_MAX_DELIVER": "1"}
    with running_devstack(folder, once) as devstack, OtlpReceiver("http") as collector:
        held = devstack.operators
        nats = held.pop("NATS_URL")
        operator = Operator(folder, nats, held)
        keys = {tenant: operator.make_key(tenant) for tenant in ("checks", "checks-2", "acme")}
        own = {
            "http://127.0.0.1:8080": devstack.url,
            "http://gateway-1:8080": devstack.url,
            "http://INSTANCE": devstack.url,
            "http://collector:4318": collector.endpoint,
            NATS_NODES: nats,
            "nats://nats-1:4222": nats,
            "BEAMLINE_KEY=blk_…": f"BEAMLINE_KEY={keys['checks']}",
            "BEAMLINE_TENANT_KEY=blk_…": f"BEAMLINE_TENANT_KEY={keys['checks-2']}",
            "blk_1a2b3c4d": keys["acme"][:12],
            "/backups/2030-01-31": f"{folder}/backup",
            **{f"dlq {verb} 17": f"dlq {verb} {_letter(nats)}" for verb in ("show", "replay")},
        }  # fmt: skip
        environment = {
            **held,
            "NATS_URL": nats,
            "KEY": devstack.key,
            "BEAMLINE_KEY": keys["checks"],
            "BEAMLINE_URL": devstack.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            **once,
        }
        shutil.copy(REPOSITORY / "docs" / "clients" / "beamline.sh", folder)
        yield Site(devstack, Reader(folder, devstack.url, environment, own))


def _letter(nats: str) -> int:
    """A dead letter of the tenant of the example; its sequence."""
    with NatsSession(nats) as session:
        publish(session, result_body(status=None), result_headers("acme"))
        return wait_until(lambda: letters(session))[-1].seq


def _pasted(document: Path) -> list[tuple[Block, Block | None]]:
    """The blocks of a document that are pasted here, each with what is shown right below it."""
    found = list(blocks(document))
    return [
        (block, below if below is not None and block.is_right_above(below) else None)
        for block, below in itertools.zip_longest(found, found[1:])
        if block.language == "sh" and not carried_out_elsewhere(block)
    ]


@pytest.mark.parametrize("document", [path for path in for_readers() if _pasted(path)], ids=name_of)
def test_the_blocks_of_a_document_do_what_they_say(document: Path, site: Site) -> None:
    reader = site.reader.having(NOW=_now())
    for block, shown in _pasted(document):
        done = reader.paste(block.text)
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        refused = shown is not None and REFUSED in shown.text
        assert (REFUSED in done.stdout) == refused, f"{block}\n{done.stdout}"
        if shown is not None and shown.language == "":
            assert _outline(done.stdout) == _outline(reader.written(shown.text))


def _now() -> str:
    """Another millisecond each time: ids are made of it."""
    return str(int(time.time()) * 1000 + next(_MILLISECONDS))


def _outline(output: str) -> list[str]:
    """What was printed, but for numbers and ids."""
    return [re.sub(r"[0-9a-f]{32}|\d+", "#", line) for line in output.splitlines()]


@pytest.mark.parametrize("command", SENTENCES, ids=str)
def test_a_command_in_a_sentence_does_what_it_says(
    command: Command, site: Site, tmp_path: Path
) -> None:
    roles = tmp_path / "roles.toml"
    roles.write_text('[service]\npermissions = ["usage:write"]\n')
    reader = site.reader
    if "apply" in str(command):
        reader = reader.having(ROLES_SOURCE="bucket")
    done = reader.paste(str(command).replace("FILE", str(roles)))
    assert done.returncode == 0, done.stdout + done.stderr
