"""The README's requests, pasted in their order, give the answers that are printed there.

Those of the readiness document, which a reader is sent to from here, do what it says.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.devstack_process import Started, running_devstack

ROOT = Path(__file__).resolve().parents[2]
READINESS = ROOT / "CP2_READINESS_ROUTER_GATEWAY_RU.md"
PRINTED_AT = "http://127.0.0.1:8080"
BLOCK = re.compile(r"```(sh|json)\n(.*?)```", re.DOTALL)
#: What differs from paste to paste.
PLACEHOLDERS = {
    "<TRACE>": r"[0-9a-f]{32}",
    "<ID>": r"[!-~]+?",
    "<SEQ>": r"\d+",
    "<MS>": r"\d{13}",
}


@pytest.fixture(scope="module")
def devstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """What `make run` starts, in a folder of its own."""
    with running_devstack(tmp_path_factory.mktemp("readme")) as started:
        yield started


def _pairs() -> list[tuple[str, str]]:
    """Each request and the answer printed under it, from the section "Try it"."""
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Try it") : readme.index("## Run it for real")]
    blocks = [(kind, text.strip()) for kind, text in BLOCK.findall(section)]
    return [
        (command, answer)
        for (kind, command), (next_kind, answer) in pairwise(blocks)
        if kind == "sh" and next_kind == "json"
    ]


def _paste(command: str, devstack: Started, now: str) -> str:
    """Paste after the README's preparations, with a time of the test's own."""
    prepared = f"{_preparations()}\nNOW={now}"
    ran = subprocess.run(
        ["bash", "-c", f"{prepared}\n{command.replace(PRINTED_AT, devstack.url)}"],
        cwd=devstack.folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _preparations() -> str:
    """What a reader is told to paste first."""
    readme = (ROOT / "README.md").read_text()
    [text] = [str(text) for _, text in BLOCK.findall(readme) if text.startswith("NOW=")]
    return text


def _pattern(answer: str, now: str) -> str:
    pattern = re.escape(answer.replace("<NOW>", now))
    for placeholder, stands_for in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), stands_for)
    return pattern


def test_every_request_pasted_gives_the_answer_printed_under_it(devstack: Started) -> None:
    pairs = _pairs()
    assert len(pairs) >= 6
    now = f"{int(time.time())}000"
    for command, answer in pairs:
        output = _paste(command, devstack, now)
        body = output.split("\n\n")[-1]
        assert re.fullmatch(_pattern(answer, now), body), f"{command}\n{body}\n{answer}"


def test_the_assignment_pasted_twice_is_replayed(devstack: Started) -> None:
    command = next(command for command, _ in _pairs() if "/assignments" in command)
    now = f"{int(time.time())}001"
    first, second = (_paste(command, devstack, now) for _ in range(2))
    assert "Idempotency-Replayed" not in first
    assert "Idempotency-Replayed: true" in second
    assert second.split("\n\n")[-1] == first.split("\n\n")[-1]


def test_the_session_pasted_twice_is_a_miss_and_then_a_hit(devstack: Started) -> None:
    readme = (ROOT / "README.md").read_text()
    command = next(text for kind, text in BLOCK.findall(readme) if '"session_id"' in text)
    now = f"{int(time.time())}002"
    first, second = (_paste(command, devstack, now) for _ in range(2))
    assert "X-Sticky: miss" in first
    assert "X-Sticky: hit" in second


def test_the_two_commands_lead() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make run") < readme.index("make test") < readme.index("## Try it")


def test_the_traffic_of_a_phase_is_seen_as_the_readiness_document_says(devstack: Started) -> None:
    commands = [text for kind, text in BLOCK.findall(READINESS.read_text()) if kind == "sh"]
    send, look = commands
    assert '"emitted":true' in _paste(send, devstack, f"{int(time.time())}003")
    # The README's own events may have been answered on this stack before, with 200.
    seen = [line for line in _paste(look, devstack, "").splitlines() if "/usage" in line]
    [series] = [line for line in seen if 'status="202"' in line]
    assert float(series.split()[-1]) >= 1
