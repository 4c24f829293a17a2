"""Whatever breaks on the way, a client that follows the recipe causes one effect and learns of it.

Real gateways with two workers, and every language at once; NATS is frozen, killed, restarted, and workers are killed
while the clients are at work.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.clients.programs import DONE, LANGUAGES, Programs, Started
from tests.clients.scripted_http import LosingFront
from tests.support.access_credentials import KeyFile, bearer
from tests.support.documents import new_id
from tests.support.idempotency_operations import ASSIGN, PUBLISHES, Operation
from tests.support.nats_session import NatsSession
from tests.support.stacks import Running, running
from tests.support.waiting import wait_until

#: So short that a frozen NATS costs an attempt a second, not five.
ENVIRONMENT = {"ROUTER_REQUEST_TIMEOUT_MS": "1000"}


@dataclass(frozen=True)
class Site:
    """What is there, and a key to it."""

    running: Running
    key: str

    def kill_workers(self) -> None:
        """SIGKILL to all of them: every connection is reset. The master starts others."""
        for pid in self.running.gateway.workers():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For tests that break nothing in it."""
    with running_site(tmp_path_factory.mktemp("calm")) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """To be broken."""
    with running_site(tmp_path) as started:
        yield started


@contextlib.contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    keys = KeyFile(folder)
    key = keys.make("acme", "service")
    environment = {**ENVIRONMENT, **keys.environment, "TRUSTED_PROXIES": None}
    with running("clients", environment) as started:
        yield Site(started, key)


def frozen(site: Site, trouble_is_met: Callable[[], None]) -> None:
    """What was sent is stored after the thaw, although it was answered 504."""
    site.running.nats.freeze()
    trouble_is_met()
    site.running.nats.thaw()


def killed(site: Site, trouble_is_met: Callable[[], None]) -> None:
    site.running.nats.kill()
    trouble_is_met()
    site.running.nats.start()


def frozen_then_killed_with_the_workers(site: Site, trouble_is_met: Callable[[], None]) -> None:
    site.running.nats.freeze()
    trouble_is_met()
    site.kill_workers()
    site.running.nats.kill()
    site.running.nats.start()


def workers_killed_in_a_freeze(site: Site, trouble_is_met: Callable[[], None]) -> None:
    """The claims are made, or not; the messages are on their way, or not; nobody is left who knows."""
    site.running.nats.freeze()
    trouble_is_met()
    site.kill_workers()
    site.running.nats.thaw()


@dataclass(frozen=True)
class Sent:
    """A request that a client program was given."""

    operation: Operation
    id: str
    client: Started


def effects(site: Site, sent: list[Sent]) -> list[int]:
    """How many messages there are of each."""
    found: Counter[str] = Counter()
    with NatsSession(site.running.nats.url, name="reader") as reader:
        for operation in {one.operation for one in sent}:
            assert operation.stream is not None
            for message in reader.stream_messages(operation.stream):
                if message.subject == operation.subject:
                    payload = json.loads(message.payload)
                    found[message.headers.get("usage_id") or payload[operation.key_type]] += 1
    return [found[one.id] for one in sent]


@pytest.mark.parametrize(
    "scenario",
    [frozen, killed, frozen_then_killed_with_the_workers, workers_killed_in_a_freeze],
    ids=lambda scenario: scenario.__name__,
)
def test_one_effect_and_a_known_outcome(
    programs: Programs, site: Site, scenario: Callable[[Site, Callable[[], None]], None]
) -> None:
    url = site.running.gateway.url
    with contextlib.ExitStack() as stack:
        sent: list[Sent] = []

        def start_all_and_wait_until_each_has_met_the_trouble() -> None:
            for operation in PUBLISHES:
                for language in LANGUAGES:
                    id = new_id(language)
                    client = Started(
                        [*programs.client(language), "POST", operation.path],
                        url=url,
                        key=site.key,
                        body=json.dumps(operation.body(id)).encode(),
                    )
                    sent.append(Sent(operation, id, stack.enter_context(client)))
            wait_until(
                lambda: all(one.client.repeats for one in sent),
                60,
                lambda: "\n".join(one.client.said for one in sent),
            )

        scenario(site, start_all_and_wait_until_each_has_met_the_trouble)
        for one in sent:
            code, out = one.client.end()
            assert code == DONE, one.client.said
            assert json.loads(out)["emitted"] is True
            assert json.loads(out)[one.operation.key_type] == one.id
    assert effects(site, sent) == [1] * len(sent)


@pytest.mark.parametrize("operation", PUBLISHES, ids=str)
def test_an_answer_that_is_lost_is_learnt_from_the_repeat(
    programs: Programs, calm: Site, language: str, operation: Operation
) -> None:
    id = new_id(language)
    body = json.dumps(operation.body(id)).encode()
    gateway = calm.running.gateway
    command = [*programs.client(language), "POST", operation.path]
    with (
        LosingFront(gateway.host, gateway.port) as front,
        Started(command, url=front.url, key=calm.key, body=body) as client,
    ):
        code, out = client.end()
        assert (code, json.loads(out)["emitted"]) == (DONE, True), client.said
        assert len(front.heard) >= 2
        assert effects(calm, [Sent(operation, id, client)]) == [1]


def test_a_client_that_makes_a_new_id_for_an_attempt_causes_two_effects(calm: Site) -> None:
    """What the tests above would see of a wrong recipe."""
    gateway = calm.running.gateway
    ids = [new_id("attempt") for _ in range(2)]
    with LosingFront(gateway.host, gateway.port) as front:
        for id in ids:
            body = json.dumps(ASSIGN.body(id)).encode()
            headers = {**bearer(calm.key), "Content-Type": "application/json"}
            with pytest.raises(requests.ConnectionError):
                requests.post(front.url + ASSIGN.path, body, headers=headers, timeout=30)
    with NatsSession(calm.running.nats.url, name="reader") as reader:
        messages = reader.stream_messages("BEAMLINE_EXEC")
    stored = [json.loads(one.payload)["assignment_id"] for one in messages]
    assert [id for id in stored if id in ids] == ids
