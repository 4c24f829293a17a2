"""The whole pieces of work of docs/CLIENTS.md, against what `make run` starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.clients.programs import DONE, FOLDER, Programs, Started
from tests.support import devstack_process
from tests.support.devstack_process import running_devstack

PAGE = (FOLDER.parent / "CLIENTS.md").read_text(encoding="utf-8")
SNIPPET = re.compile(r"```sh\n(# .*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def devstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[devstack_process.Started]:
    with running_devstack(tmp_path_factory.mktemp("clients")) as started:
        yield started


def test_the_example_decides_assigns_waits_acknowledges_and_meters(
    programs: Programs, language: str, devstack: devstack_process.Started
) -> None:
    with Started(programs.example(language), url=devstack.url, key=devstack.key) as example:
        code, out = example.end()
        assert code == DONE, example.said
    decided, assigned, result, acknowledged, metered = map(json.loads, out.decode().splitlines())
    assert decided["decision"]["provider_id"]
    assert assigned["operation"] == "assignments" and assigned["emitted"] is True
    assert result["result"]["assignment_id"] == assigned["assignment_id"]
    assert result["result"]["status"] == "success"
    assert acknowledged["operation"] == "acks" and acknowledged["emitted"] is True
    assert metered["emitted"] is False and metered["duplicate_of"] == "result"


def test_what_else_the_shell_can_do(devstack: devstack_process.Started) -> None:
    environment = {**os.environ, "BEAMLINE_URL": devstack.url, "BEAMLINE_KEY": devstack.key}
    environment["NOW"] = f"{int(time.time())}000"

    def paste(command: str) -> str:
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=FOLDER,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    batch, lookup, stream = SNIPPET.findall(PAGE)
    outcomes = [one["outcome"] for one in json.loads(paste(batch))["results"]]
    assert outcomes == ["accepted", "accepted"]
    assert json.loads(paste(lookup))["state"] == "claimed"
    assert "event: heartbeat" in paste(stream)
