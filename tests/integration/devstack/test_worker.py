"""The reference worker over real NATS: assignments in, acknowledgements and results out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.devstack.contract import read_exec_ack, read_exec_result
from gateway.devstack.nats_server import NatsServer
from tests.integration.devstack.processes import ServiceProcess
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.waiting import wait_until
from tests.unit.devstack.messages import ASSIGNMENT, STORED_HEADERS, TRACE, changed

ASSIGN, ACK, RESULT = "caf.exec.assign.v1", "caf.exec.assign.v1.ack", "caf.exec.result.v1"


def assign(nats: NatsSession, number: int = 1, job_type: str = "chat", **fields: Any) -> None:
    message = {**changed(ASSIGNMENT, "job.type", job_type), "assignment_id": f"a-{number}"}
    headers = {**STORED_HEADERS, "Nats-Msg-Id": f"m-{number}"}
    payload = orjson.dumps({**message, **fields})
    nats.call(nats.jetstream.publish(ASSIGN, payload, headers=headers))


def on(nats: NatsSession, stream: str, subject: str) -> list[StoredMessage]:
    return [message for message in nats.stream_messages(stream) if message.subject == subject]


def wait_for(nats: NatsSession, stream: str, subject: str, count: int = 1) -> list[StoredMessage]:
    wait_until(
        lambda: len(on(nats, stream, subject)) >= count,
        message=lambda: f"{len(on(nats, stream, subject))} of {count} on {subject}",
    )
    return on(nats, stream, subject)


def all_acknowledged(nats: NatsSession, stream: str, count: int) -> bool:
    info = nats.call(nats.jetstream.consumer_info(stream, "reference-worker"))
    floor = info.ack_floor
    assert floor is not None
    return (info.num_ack_pending, info.num_pending) == (0, 0) and floor.consumer_seq >= count


@pytest.mark.usefixtures("worker")
def test_an_assignment_is_acknowledged_and_then_has_a_result(
    nats: NatsSession, exec_stream: str
) -> None:
    assign(nats)
    [result] = wait_for(nats, exec_stream, RESULT)
    [ack] = on(nats, exec_stream, ACK)
    assert ack.seq < result.seq
    read = read_exec_result(result.payload, result.headers)
    assert (read.assignment_id, read.request_id) == ("a-1", "request-1")
    assert (read.status, read.provider_id, read.job_type) == ("success", "openai:gpt-4o", "chat")
    assert read_exec_ack(ack.payload, ack.headers).status == "accepted"


@pytest.mark.usefixtures("worker")
def test_the_trace_goes_on(nats: NatsSession, exec_stream: str) -> None:
    assign(nats)
    wait_for(nats, exec_stream, RESULT)
    stored = nats.stream_messages(exec_stream)
    assert {message.headers["trace_id"] for message in stored} == {TRACE}
    assert {message.headers["cp_phase"] for message in stored} == {"cp2"}
    spans = [message.headers["traceparent"].split("-") for message in stored]
    assert {trace for _, trace, _, _ in spans} == {TRACE}
    assert len({span for _, _, span, _ in spans}) == 3


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("job_type", "status"), [("fail", "error"), ("timeout", "timeout"), ("cancel", "cancelled")]
)
def test_other_outcomes_come_on_demand(
    nats: NatsSession, exec_stream: str, job_type: str, status: str
) -> None:
    assign(nats, job_type=job_type)
    [result] = wait_for(nats, exec_stream, RESULT)
    assert read_exec_result(result.payload, result.headers).status == status


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("job_type", "ack"), [("reject", "rejected"), ("no-result", "accepted")])
def test_no_result_comes_on_demand(
    nats: NatsSession, exec_stream: str, job_type: str, ack: str
) -> None:
    assign(nats, job_type=job_type)
    [message] = wait_for(nats, exec_stream, ACK)
    assert read_exec_ack(message.payload, message.headers).status == ack
    wait_until(lambda: all_acknowledged(nats, exec_stream, 1))
    assert on(nats, exec_stream, RESULT) == []


@pytest.mark.usefixtures("worker")
def test_a_slow_job_holds_no_other_up(nats: NatsSession, exec_stream: str) -> None:
    assign(nats, 1, "slow:1500")
    assign(nats, 2)
    first, second = wait_for(nats, exec_stream, RESULT, 2)
    ids = [orjson.loads(message.payload)["assignment_id"] for message in (first, second)]
    assert ids == ["a-2", "a-1"]


@pytest.mark.usefixtures("worker")
def test_a_broken_assignment_is_rejected_and_holds_nothing_up(
    nats: NatsSession, exec_stream: str
) -> None:
    assign(nats, 1, version="2")
    nats.call(nats.jetstream.publish(ASSIGN, b"no json", headers={"Nats-Msg-Id": "m-2"}))
    assign(nats, 3)
    [result] = wait_for(nats, exec_stream, RESULT)
    assert orjson.loads(result.payload)["assignment_id"] == "a-3"
    wait_until(lambda: all_acknowledged(nats, exec_stream, 3))
    acks = [read_exec_ack(one.payload, one.headers) for one in on(nats, exec_stream, ACK)]
    assert {(ack.assignment_id, ack.status) for ack in acks} == {
        ("a-1", "rejected"),
        ("a-3", "accepted"),
    }


def test_an_assignment_of_a_worker_that_was_killed_ends_with_one_ack_and_one_result(
    nats: NatsSession, server: NatsServer, exec_stream: str, tmp_path: Path
) -> None:
    soon = {"NATS_ACK_WAIT_MS": "1000"}
    with ServiceProcess("worker", server, tmp_path, soon) as first:
        assign(nats, job_type="slow:900")
        wait_for(nats, exec_stream, ACK)
        first.kill()
    assert on(nats, exec_stream, RESULT) == []
    with ServiceProcess("worker", server, tmp_path, soon):
        wait_for(nats, exec_stream, RESULT)
        wait_until(lambda: all_acknowledged(nats, exec_stream, 2))
    assert len(on(nats, exec_stream, ACK)) == len(on(nats, exec_stream, RESULT)) == 1


def test_assignments_of_before_its_start_are_worked_off(
    nats: NatsSession, server: NatsServer, exec_stream: str, tmp_path: Path
) -> None:
    for number in range(20):
        assign(nats, number)
    with ServiceProcess("worker", server, tmp_path):
        results = wait_for(nats, exec_stream, RESULT, 20)
    ids = [orjson.loads(message.payload)["assignment_id"] for message in results]
    assert sorted(ids) == sorted(f"a-{number}" for number in range(20))
    assert len(on(nats, exec_stream, ACK)) == 20


def test_two_workers_share_the_work(
    nats: NatsSession,
    server: NatsServer,
    worker: ServiceProcess,
    exec_stream: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "second").mkdir()
    with ServiceProcess("worker", server, tmp_path / "second") as second:
        second.wait_for_output("taking assignments")
        for number in range(30):
            assign(nats, number)
        wait_for(nats, exec_stream, RESULT, 30)
        wait_until(lambda: all_acknowledged(nats, exec_stream, 30))
        assert len(on(nats, exec_stream, RESULT)) == len(on(nats, exec_stream, ACK)) == 30


@pytest.mark.usefixtures("worker")
def test_it_goes_on_when_nats_comes_back(
    nats: NatsSession, server: NatsServer, exec_stream: str
) -> None:
    assign(nats, 1)
    wait_for(nats, exec_stream, RESULT, 1)
    server.kill()
    server.start()
    wait_until(lambda: nats.client.is_connected)
    assign(nats, 2)
    wait_for(nats, exec_stream, RESULT, 2)


def test_without_a_stream_it_waits_for_one(
    nats: NatsSession, server: NatsServer, tmp_path: Path
) -> None:
    with ServiceProcess("worker", server, tmp_path) as early:
        early.wait_for_output("taking assignments")
        add = nats.jetstream.add_stream(name="LATER", subjects=[ASSIGN, ACK, RESULT])
        nats.call(add)
        assign(nats)
        wait_for(nats, "LATER", RESULT)


def test_it_ends_in_order_when_it_is_told_to(worker: ServiceProcess) -> None:
    assert worker.terminate() is True
    assert worker.exit_status() == 0
