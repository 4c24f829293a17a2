"""``beamline-gateway dev``: everything at once, as somebody with a laptop starts it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from tests.integration.devstack.processes import REPOSITORY, environment
from tests.support import capture
from tests.support.nats_session import NatsSession
from tests.support.process_table import children_of, command_of, is_alive
from tests.support.waiting import wait_until

ENDS_WITHIN_SECONDS = 10.0
PARTS = {
    "nats": "nats-server",
    "router": "gateway.devstack.router",
    "worker": "gateway.devstack.worker",
    "gateway": "gunicorn",
}


class DevStack:
    """One ``beamline-gateway dev`` in ``folder``, on a free port."""

    def __init__(self, folder: Path, bind: str = "127.0.0.1:0", **variables: str) -> None:
        self.folder = folder
        self.output_path = folder / "output.log"
        with self.output_path.open("wb") as output:
            self.child: Child = child_process.spawn(
                [sys.executable, "-m", "gateway.cli", "dev", "--bind", bind],
                stdout=output,
                env=environment(**variables),
                cwd=folder,
            )

    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.child.poll() is None, self.output()
            return "State  " in self.output() and "taking assignments" in self.output()

        wait_until(ready, 60.0, lambda: f"never ready:\n{self.output()}")

    def wait_ended(self) -> int:
        return self.child.wait(ENDS_WITHIN_SECONDS)

    def part(self, name: str) -> int:
        """The process id of one of `PARTS`."""
        [pid] = [pid for pid in children_of(self.child.pid) if PARTS[name] in command_of(pid)]
        return pid

    def everything(self) -> set[int]:
        """The process ids of the stack and all below it."""
        found, unseen = {self.child.pid}, [self.child.pid]
        while unseen:
            below = set(children_of(unseen.pop())) - found
            found |= below
            unseen += below
        return found

    def gateway_url(self) -> str:
        found = re.search(r"is ready at (http://\S+)", self.output())
        assert found is not None
        return found[1]

    def nats_url(self) -> str:
        found = re.search(r"nats://\S+", self.output())
        assert found is not None
        return found[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        child_process.terminate(self.child, ENDS_WITHIN_SECONDS)
        capture.saw_devstack(self.output())


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[DevStack]:
    with DevStack(tmp_path) as running:
        running.wait_ready()
        yield running


def pasted(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def status(stack: DevStack, key: str) -> int:
    """What a bearer of the key is answered: 404, since nobody has used the id."""
    url = f"{stack.gateway_url()}/api/v1/operations/usage/nobody-has-used-this-id"
    return int(pasted(f"curl -sS -o /dev/null -w '%{{http_code}}' -H 'X-API-Key: {key}' {url}"))


def printed_requests(output: str) -> dict[str, str]:
    """title → command, as printed."""
    found = re.findall(r"^# (.+)\n((?:curl .*|  .*)(?:\n(?:curl .*|  .*))*)", output, re.MULTILINE)
    return dict(found)


def test_every_request_that_it_prints_can_be_pasted(stack: DevStack) -> None:
    requests = printed_requests(stack.output())
    answers: dict[str, Any] = {
        title: json.loads(pasted(command))
        for title, command in requests.items()
        if not title.startswith("Ready")
    }
    assert len(answers) == 5
    assert {title for title, answer in answers.items() if answer["ok"] is not True} == set()
    decision = answers["A routing decision"]["decision"]
    assert decision["provider_id"] == "openai:gpt-4o"
    probes = pasted(requests["Ready? And its metrics"])
    assert "beamline_gateway_cp_requests_total" in probes
    page = re.search(r"API page +(\S+) +\(its source: (\S+)\)", stack.output())
    assert page is not None
    assert "<html" in pasted(f"curl -sSfL {page[1]}").lower()
    assert json.loads(pasted(f"curl -sSf {page[2]}"))["openapi"].startswith("3.1")

    def subjects() -> list[str]:
        with NatsSession(stack.nats_url()) as nats:
            return [message.subject for message in nats.stream_messages("BEAMLINE_EXEC")]

    # The assignment, its acknowledgement by the worker, the pasted one, and the result.
    wait_until(lambda: len(subjects()) == 4)
    assert subjects().count("caf.exec.assign.v1.ack") == 2
    assert subjects().count("caf.exec.result.v1") == 1
    for line in ("router  │ INFO    decide tenant=demo", "worker  │ INFO    chat for assignment-"):
        assert line in stack.output()


def test_its_keys_are_what_the_api_page_asks_for(stack: DevStack) -> None:
    document = json.loads(pasted(f"curl -sSf {stack.gateway_url()}/openapi.json"))
    schemes = document["components"]["securitySchemes"]
    [bearer] = [name for name, scheme in schemes.items() if scheme.get("scheme") == "bearer"]
    assert {bearer: []} in document["security"], "what Authorize sends with every request"
    printed = dict(re.findall(r"(blk_\S+)  (\w+ of \w+)", stack.output()))
    assert sorted(printed.values()) == ["admin of demo", "service of demo", "service of demo2"]
    assert {status(stack, key) for key in printed} == {404}
    plain = stack.folder / ".devstack" / "demo.key"
    assert printed[plain.read_text().strip()] == "service of demo"
    for path in (plain, plain.with_name("apikeys.json")):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_operators_environment_that_it_prints_reaches_its_keys_and_its_nats(
    stack: DevStack,
) -> None:
    export = re.search(r"^Operators +(export .+)$", stack.output(), re.MULTILINE)
    assert export is not None
    command = f"{shlex.quote(sys.executable)} -m gateway.cli"
    prepared = f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}; {export[1]}; cd /"
    listed = pasted(f"{prepared}; {command} apikeys list")
    assert len(listed.splitlines()) == 4, listed
    key = pasted(f"{prepared}; {command} apikeys create --tenant mine --role viewer 2>&-").strip()
    assert status(stack, key) == 404
    assert pasted(f"{prepared}; {command} streams").endswith("ready\n")
    assert (stack.folder / ".devstack" / "audit.log").is_file()


def test_with_another_way_in_it_makes_no_keys_and_prints_what_fits(tmp_path: Path) -> None:
    with DevStack(tmp_path, AUTH_MODE="headers") as stack:
        stack.wait_ready()
        requests = printed_requests(stack.output())
        assert json.loads(pasted(requests["A routing decision"]))["ok"] is True
        assert "blk_" not in stack.output()
    assert not (tmp_path / ".devstack" / "demo.key").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_seconds(stack: DevStack, number: signal.Signals) -> None:
    everything = stack.everything()
    assert len(everything) == 7  # the stack, NATS, Router, worker, gunicorn and its two workers
    stack.child.send_signal(number)
    assert stack.wait_ended() == 0
    wait_until(lambda: not [pid for pid in everything if is_alive(pid)])
    assert "unexpectedly" not in stack.output()
    assert "Traceback" not in stack.output()


@pytest.mark.parametrize("name", PARTS)
def test_when_one_process_dies_it_is_named_and_all_end(stack: DevStack, name: str) -> None:
    everything = stack.everything()
    os.kill(stack.part(name), signal.SIGKILL)
    assert stack.wait_ended() == 1
    assert re.search(rf"^beamline-gateway dev: {name} ended", stack.output(), re.MULTILINE)
    wait_until(lambda: not [pid for pid in everything if is_alive(pid)])


def test_nothing_survives_when_the_stack_itself_is_killed(stack: DevStack) -> None:
    everything = stack.everything()
    stack.child.kill()
    stack.child.wait()
    wait_until(lambda: not [pid for pid in everything if is_alive(pid)])


def test_what_was_stored_is_there_again_at_the_next_start(tmp_path: Path) -> None:
    keys: list[str] = []
    for run in (1, 2):
        with DevStack(tmp_path) as stack:
            stack.wait_ready()
            answer = json.loads(pasted(printed_requests(stack.output())["A usage event"]))
            assert answer.get("seq") == run, answer
            keys.append((tmp_path / ".devstack" / "demo.key").read_text().strip())
            assert [status(stack, key) for key in keys] == [401, 404][-run:], (
                "a start ends old keys"
            )
    assert {path.name for path in tmp_path.iterdir()} == {".devstack", "output.log"}


def test_a_second_one_in_the_same_folder_is_refused(stack: DevStack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "dev", "--bind", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=stack.folder,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert "another one is running" in done.stdout
    assert stack.child.poll() is None


def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with DevStack(tmp_path, bind) as stack:
            assert stack.wait_ended() == 1
    assert stack.output() == (
        f"beamline-gateway dev: cannot listen on {bind}: Address already in use (GATEWAY_BIND)\n"
    )


def test_a_wrong_environment_of_the_gateway_is_told_in_its_words(tmp_path: Path) -> None:
    with DevStack(tmp_path, GATEWAY_THREADS="many") as stack:
        assert stack.wait_ended() == 1
    assert "GATEWAY_THREADS" in stack.output()
    assert "gateway ended unexpectedly (status 2)" in stack.output()


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:99999", "203.0.113.1:8080"])
def test_an_address_that_cannot_be_had_is_told(tmp_path: Path, bind: str) -> None:
    with DevStack(tmp_path, bind) as stack:
        assert stack.wait_ended() == 1
    assert f"cannot listen on {bind}" in stack.output()
