"""The pages for people, in a real browser: `/status` and `/docs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import Chromium
from tests.support.access_credentials import KeyFile, bearer
from tests.support.documents import ASSIGNMENTS, DECIDE, assignment_body, decide_body
from tests.support.http_client import Client
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready
from tests.support.nats_session import NatsSession
from tests.support.result_messages import publish, result_body, result_headers
from tests.support.stacks import Running, running
from tests.support.waiting import wait_until

QUICK: Final = {
    "NATS_BACKOFF_MS": "10",
    "NATS_MAX_DELIVER": "1",
    "ROUTER_REQUEST_TIMEOUT_MS": "700",
}


@dataclass(frozen=True)
class House:
    """A gateway that wants keys, and an administrator's."""

    stack: Running
    key: str

    def client(self) -> Client:
        return self.stack.gateway.client(bearer(self.key))

    def page(self, path: str, *, key: str | None = None) -> str:
        """A page's address, with the key as the password that the browser will be asked for."""
        gateway = self.stack.gateway
        return f"http://me:{key or self.key}@{gateway.host}:{gateway.port}{path}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    keys = KeyFile(tmp_path_factory.mktemp("keys"))
    key = keys.make("acme", "admin")
    with running("pages", keys.environment | QUICK, reference_router=True) as stack:
        wait_until_each_worker_is_ready(stack.gateway)
        yield House(stack, key)


@pytest.fixture
def browser() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


def stays_at_home(browser: Chromium, house: House) -> None:
    """No request left for anywhere else, and the console is empty."""
    home = (house.stack.gateway.host, house.stack.gateway.port)
    asked = browser.requested()
    assert asked and {(urlsplit(url).hostname, urlsplit(url).port) for url in asked} == {home}
    assert browser.complaints() == []


def test_the_status_shows_a_request_that_is_made_meanwhile(browser: Chromium, house: House) -> None:
    browser.open(house.page("/status"))
    assert "Ready" in browser.text and "BEAMLINE_EXEC" in browser.text

    def since_start() -> list[int]:
        row = next(line for line in browser.text.splitlines() if line.startswith("since the start"))
        return [int(number.replace("\u202f", "")) for number in row.split()[3:]]

    before = since_start()
    with house.client() as client:
        for _ in range(7):
            assert client.post(DECIDE, decide_body()).status == 200
        assert client.post(DECIDE, {}).status == 400
    wait_until(lambda: since_start() == [before[0] + 7, before[1], before[2] + 1, before[3]])
    stays_at_home(browser, house)
    # The page was not loaded again: its content was replaced.
    loads = [url for url in browser.requested() if url.endswith("/status.css")]
    assert len(loads) == 1


def test_the_status_shows_trouble_as_it_comes_and_goes(house: House, browser: Chromium) -> None:
    browser.open(house.page("/status"))
    with house.client() as client, NatsSession(house.stack.nats.url) as session:
        publish(session, result_body(cost=-1), result_headers("acme"))
        for _ in range(3):
            assert client.post(ASSIGNMENTS, assignment_body()).status == 202
            assert client.post(DECIDE, decide_body(context={"session_id": "s-1"})).status == 200
        wait_until(lambda: "schema_invalid" in browser.text)
        house.stack.nats.freeze()
        try:
            lost = client.post(ASSIGNMENTS, assignment_body())
            assert lost.code == "outcome_unknown"
            wait_until(lambda: lost.json()["context"]["request_id"] in browser.text)
            wait_until(lambda: "Not ready" in browser.text and "not connected" in browser.text)
            browser.screenshot("status-in-trouble")
        finally:
            house.stack.nats.thaw()
    wait_until(lambda: browser.text.count("Not ready") == 0 and "BEAMLINE_EXEC" in browser.text)
    browser.screenshot("status")
    stays_at_home(browser, house)


def test_the_status_can_be_read_without_scripts_and_reloads_itself(house: House) -> None:
    with Chromium(scripts=False) as browser:
        browser.open(house.page("/status"))
        assert "Ready" in browser.text and "IDEMPOTENCY_TTL_MS" in browser.text
        loads = len([url for url in browser.requested() if url.endswith("/status")])
        wait_until(lambda: len([u for u in browser.requested() if u.endswith("/status")]) > loads)
        assert not [url for url in browser.requested() if url.endswith(".js")]
        browser.screenshot("status-without-scripts")
        stays_at_home(browser, house)


def test_the_status_says_that_it_is_old_when_the_gateway_is_gone(
    tmp_path_factory: pytest.TempPathFactory, browser: Chromium
) -> None:
    keys = KeyFile(tmp_path_factory.mktemp("gone"))
    key = keys.make("acme", "viewer")
    with running("gone", keys.environment) as stack:
        house = House(stack, key)
        browser.open(house.page("/status"))
        assert "cannot be refreshed" not in browser.text
        stack.gateway.terminate()
        assert stack.gateway.wait() == 0
        wait_until(lambda: "cannot be refreshed" in browser.text)
        assert "BEAMLINE_EXEC" in browser.text, "what was known is still to be read"


def test_the_status_in_the_dark(house: House) -> None:
    with Chromium(dark=True) as browser:
        browser.open(house.page("/status"))
        browser.screenshot("status-dark")
        stays_at_home(browser, house)


def test_without_a_key_the_status_shows_nothing(house: House, browser: Chromium) -> None:
    browser.open(house.page("/status", key="blk_0a1b2c3d_" + "x" * 43))
    assert "BEAMLINE_EXEC" not in browser.text and "IDEMPOTENCY" not in browser.text


def test_the_docs_work_and_come_from_this_host_alone(house: House, browser: Chromium) -> None:
    # Without credentials: the docs are open, and a browser fetches nothing for a page with a password in its address.
    browser.open(f"{house.stack.gateway.url}/docs/")
    wait_until(lambda: "/api/v1/routes/decide" in browser.text)
    assert "Beamline Gateway" in browser.text
    browser.screenshot("docs")
    stays_at_home(browser, house)
