"""The account that may do just what the bridge says it needs, and accounts that may do less."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from bridge import (
    Bridge,
    BridgeConfig,
    Bus,
    ConsumerSpec,
    Delivery,
    Refusal,
    Refused,
    Unknown,
    required_permissions,
)
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_accounts import PASSWORD, Rules, account, accounts, reload, user
from tests.support.bridge_running import (
    ACK,
    ASSIGN,
    DECIDE,
    EXEC,
    KEYS,
    RESULT,
    RunningBridges,
    outcome,
    publish,
    request,
    soon,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import AT_ONCE_SECONDS, GENEROUS_SECONDS, wait_until

RESULTS: Final = ConsumerSpec(subject=RESULT, durable="results")
LISTENED: Final = "beamline.gateway.wakeup"
NEEDS: Final[dict[str, Any]] = {
    "streams": (EXEC,),
    "buckets": (KEYS,),
    "requests": (DECIDE,),
    "reads": (EXEC.name,),
    "consumers": (RESULTS,),
    "listens": (LISTENED,),
}
REQUIRED: Final = required_permissions(BridgeConfig(**NEEDS))
EACH: Final = [(verb, subject) for verb, subjects in REQUIRED.items() for subject in subjects]


def allowing(*, without: tuple[str, str] | None = None) -> Rules:
    """Permissions for all that is required, but for one."""
    return {
        verb: {"allow": [subject for subject in subjects if (verb, subject) != without]}
        for verb, subjects in REQUIRED.items()
    }


def test_an_account_with_the_least_privileges_can_do_everything(bridges: RunningBridges) -> None:
    config = accounts(account("A", user("gateway", allowing()), user("others")))
    handled: list[Delivery] = []

    async def results(bus: Bus) -> None:
        async def handle(delivery: Delivery) -> None:
            handled.append(delivery)

        await bus.consume(RESULTS, handle)

    heard: list[bytes] = []

    async def listener(bus: Bus) -> None:
        async with bus.subscribe(LISTENED) as messages:
            async for message in messages:
                heard.append(message.payload)

    async def use_bucket(bus: Bus) -> None:
        bucket, deadline = bus.bucket(KEYS.name), soon()
        revision = await bucket.create("key", b"1", deadline=deadline)
        await bucket.update("key", b"2", revision, deadline=deadline)
        entry = await bucket.get("key", deadline=deadline)
        assert entry is not None and entry.value == b"2"
        await bucket.delete("key", deadline=deadline)

    async def answer(message: Any) -> None:
        await message.respond(b"answer")

    with (
        NatsServer(config=config) as server,
        NatsSession(server.url, user="others", password=PASSWORD) as others,
    ):
        others.call(others.client.subscribe(DECIDE, cb=answer))
        bridge = bridges.start(
            server.url,
            user="gateway",
            password=PASSWORD,
            services=[results, listener],
            **NEEDS,
        )
        assert bridge.health().findings == ()
        for subject in (ASSIGN, ACK, RESULT):
            publish(bridge, subject)
        assert request(bridge).payload == b"answer"
        bridge.run(use_bucket, soon())
        stored = bridge.run(lambda bus: bus.stored(EXEC.name, 1, deadline=soon()), soon())
        assert stored is not None and stored.subject == ASSIGN
        wait_until(lambda: handled, message="no result is consumed")
        others.publish(LISTENED, b"heard")
        wait_until(lambda: heard, message="nothing is heard")
        assert bridge.health().missing == (), "something was refused that is not on the list"
        # Widening asks for a permission of its own.
        narrow = dataclasses.replace(others.stream_info(EXEC.name).config, subjects=[ASSIGN])
        others.call(others.jetstream.update_stream(narrow))
        again = bridges.start(server.url, user="gateway", password=PASSWORD, **NEEDS)
        assert again.health().findings == ()
        wait_until(lambda: others.stream_info(EXEC.name).config.subjects == list(EXEC.subjects))


@pytest.fixture(scope="module")
def lacking() -> Iterator[dict[tuple[str, str], Bridge]]:
    """For each permission a bridge that lacks it, each in an account of its own."""
    config = accounts(
        *(
            account(f"A{number}", user(f"user-{number}", allowing(without=permission)))
            for number, permission in enumerate(EACH)
        )
    )
    made = RunningBridges()
    with NatsServer(config=config) as server, contextlib.closing(made):
        yield {
            permission: made.start(
                server.url, ready=False, user=f"user-{number}", password=PASSWORD, **NEEDS
            )
            for number, permission in enumerate(EACH)
        }


@pytest.mark.parametrize("permission", EACH, ids=lambda permission: " ".join(permission))
def test_one_permission_less_is_named_and_the_bridge_is_not_ready(
    lacking: dict[tuple[str, str], Bridge], permission: tuple[str, str]
) -> None:
    bridge, (verb, subject) = lacking[permission], permission
    wait_until(lambda: bridge.health().audited, message=lambda: f"{bridge.health()}")

    def named() -> list[str]:
        return [s for s in bridge.health().missing if s.startswith("account: may not ")]

    sentences = wait_until(named, message=lambda: f"{bridge.health()}")
    assert any(f"may not {verb} to {subject}" in sentence for sentence in sentences), sentences
    assert not bridge.health().ready
    if (
        subject != f"{BridgeConfig().inbox_prefix}.>"
    ):  # without answers the others cannot be checked
        assert len(sentences) == 1, "it is the only one"


def test_a_subject_denied_while_the_bridge_runs_is_refused_at_once_and_named(
    bridges: RunningBridges,
) -> None:
    def config(*denied: str) -> str:
        return accounts(account("A", user("gateway", {"publish": {"deny": denied}})))

    with NatsServer(config=config("nothing.yet")) as server:
        bridge = bridges.start(server.url, user="gateway", password=PASSWORD, **NEEDS)
        publish(bridge)
        reload(server, config(ASSIGN, f"$KV.{KEYS.name}.>"))
        begun = time.monotonic()
        with pytest.raises(Refused) as refusal:
            publish(bridge, ASSIGN, seconds=5)
        assert refusal.value.reason is Refusal.PERMISSION
        with pytest.raises(Refused) as refusal:
            bridge.run(lambda bus: bus.bucket(KEYS.name).create("k", b"", deadline=soon()), soon())
        assert refusal.value.reason is Refusal.PERMISSION
        assert time.monotonic() - begun < 2 * AT_ONCE_SECONDS
        publish(bridge, ACK)
        assert not bridge.health().ready
        assert f"account: may not publish to {ASSIGN}" in bridge.health().missing
        assert f"account: may not publish to $KV.{KEYS.name}.>" in bridge.health().missing
        reload(server, config("nothing.any.more"))
        publish(bridge, ASSIGN)


def test_a_publish_that_may_have_happened_stays_unknown_when_its_repetition_is_refused(
    bridges: RunningBridges,
) -> None:
    def config(*denied: str) -> str:
        return accounts(account("A", user("gateway", {"publish": {"deny": denied}})))

    with NatsServer(config=config("nothing.yet")) as server:
        bridge = bridges.start(server.url, user="gateway", password=PASSWORD)
        server.freeze()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(publish, bridge, seconds=10)
            wait_until(lambda: bridge.health().in_flight == 1)
            # What was handed over before has been sent when this one ends.
            bridge.run(lambda _: asyncio.sleep(0), soon())
            server.kill()
            server.config = config(ASSIGN)
            server.start()
            assert isinstance(outcome(call), Unknown)


def test_a_subscription_denied_at_first_works_when_it_is_allowed_later(
    bridges: RunningBridges,
) -> None:
    def config(*denied: str) -> str:
        return accounts(account("A", user("gateway", {"subscribe": {"deny": denied}})))

    with NatsServer(config=config("_INBOX.>")) as server:
        bridge = bridges.start(
            server.url, ready=False, user="gateway", password=PASSWORD, audit_interval_seconds=1.0
        )
        wait_until(
            lambda: "account: may not subscribe to _INBOX.>" in bridge.health().missing,
            GENEROUS_SECONDS,
            lambda: f"{bridge.health()}",
        )
        reload(server, config("nothing.any.more"))
        assert bridge.wait_ready(GENEROUS_SECONDS), bridge.health()
        publish(bridge)
