"""SIGUSR2: a new master beside the old one, on the same socket; then the old one ends in order."""

from __future__ import annotations

import os
import signal

from tests.support.documents import USAGE, usage_body
from tests.support.http_client import Answer, Client
from tests.support.load import Load, kinds
from tests.support.process_table import children_of, is_alive
from tests.support.stacks import running
from tests.support.waiting import GENEROUS_SECONDS, wait_until


def publish(client: Client) -> Answer:
    return client.post(USAGE, usage_body())


def test_a_new_master_takes_over_and_no_request_is_lost() -> None:
    with running("upgraded") as started:
        gateway = started.gateway
        old = gateway.pid
        workers = set(gateway.workers())
        new = 0
        try:
            with Load(gateway.client, publish, clients=2) as load:
                os.kill(old, signal.SIGUSR2)

                def masters() -> list[int]:
                    return [pid for pid in children_of(old) if len(children_of(pid)) == 2]

                [new] = wait_until(masters, GENEROUS_SECONDS, gateway.output_tail)
                wait_until(lambda: gateway.output().count("connected to NATS") == 4)
                os.kill(old, signal.SIGTERM)
                assert gateway.wait() == 0
                assert not any(is_alive(worker) for worker in workers)
                so_far = len(load.outcomes())
                wait_until(lambda: len(load.outcomes()) > so_far + 20)
            assert set(kinds(load.outcomes())) == {"202"}, kinds(load.outcomes())
            assert is_alive(new)
        finally:
            if new:
                os.kill(new, signal.SIGTERM)
                wait_until(lambda: not is_alive(new), GENEROUS_SECONDS, gateway.output_tail)


def test_an_upgrade_can_be_taken_back() -> None:
    with running("taken-back") as started:
        gateway = started.gateway
        workers = set(gateway.workers())
        with Load(gateway.client, publish, clients=2) as load:
            os.kill(gateway.pid, signal.SIGUSR2)

            def masters() -> list[int]:
                return [pid for pid in children_of(gateway.pid) if len(children_of(pid)) == 2]

            [new] = wait_until(masters, GENEROUS_SECONDS, gateway.output_tail)
            wait_until(lambda: gateway.output().count("connected to NATS") == 4)
            os.kill(new, signal.SIGTERM)
            wait_until(lambda: not is_alive(new), GENEROUS_SECONDS, gateway.output_tail)
            so_far = len(load.outcomes())
            wait_until(lambda: len(load.outcomes()) > so_far + 20)
        assert set(kinds(load.outcomes())) == {"202"}, kinds(load.outcomes())
        assert set(gateway.workers()) == workers
