"""NatsServer: what tests and the devstack rely on, against the real server."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from gateway.devstack import child_process
from gateway.devstack.nats_server import NatsServer, NatsServerError, find_binary
from gateway.devstack.ports import PortReservation
from tests.integration.devstack.processes import environment
from tests.support.nats_cluster import nats_cluster
from tests.support.nats_session import NatsSession
from tests.support.process_table import is_alive
from tests.support.waiting import wait_until


def publish(server: NatsServer, count: int) -> None:
    with NatsSession(server.url) as nats:
        nats.call(nats.jetstream.add_stream(name="S", subjects=["s.>"]))
        for number in range(count):
            nats.call(nats.jetstream.publish("s.a", b"%d" % number))


def stored(server: NatsServer) -> list[bytes]:
    with NatsSession(server.url) as nats:
        return [message.payload for message in nats.stream_messages("S")]


def test_it_serves_clients_and_jetstream_when_start_returns() -> None:
    with NatsServer() as server:
        publish(server, 1)
        assert stored(server) == [b"0"]


def test_it_tells_about_itself() -> None:
    with NatsServer(name="told") as server, NatsSession(server.url, name="me"):
        assert server.varz()["server_name"] == "told"
        assert server.varz()["total_connections"] == 1
        assert server.connz()["connections"][0]["name"] == "tests: me"
        assert server.jsz()["config"]["store_dir"].startswith(str(server.folder))
        assert server.monitor_url.startswith("http://127.0.0.1:")
        with pytest.raises(OSError, match="404"):
            server.monitor("/nothing")


@pytest.mark.parametrize("end", [NatsServer.stop, NatsServer.kill])
def test_it_starts_again_on_the_same_port_with_its_store_kept(
    end: Callable[[NatsServer], None],
) -> None:
    with NatsServer() as server:
        url, monitor_url = server.url, server.monitor_url
        publish(server, 3)
        for _ in range(3):
            end(server)
            assert not server.running
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", server.port), timeout=5)
            server.start()
            assert (server.url, server.monitor_url) == (url, monitor_url)
        assert stored(server) == [b"0", b"1", b"2"]


def test_frozen_it_keeps_its_sockets_and_answers_nothing_until_it_is_thawed() -> None:
    with NatsServer() as server:
        server.freeze()
        socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
        with pytest.raises(TimeoutError):
            server.varz()
        server.thaw()
        assert server.varz()["server_name"] == "devstack"


def test_a_frozen_one_is_stopped_like_any_other() -> None:
    with NatsServer() as server:
        server.freeze()
        server.stop(timeout=10.0)
        assert not server.running


def test_two_servers_have_nothing_in_common() -> None:
    with NatsServer() as one, NatsServer() as other:
        publish(one, 1)
        assert other.jsz()["streams"] == 0
        assert one.url != other.url


def test_a_folder_of_ones_own_stays_and_a_temporary_one_goes(tmp_path: Path) -> None:
    with NatsServer(tmp_path / "kept") as server:
        publish(server, 2)
    with NatsServer(tmp_path / "kept") as server:
        assert stored(server) == [b"0", b"1"]
        assert "Server is ready" in server.log_tail()
    with NatsServer() as temporary:
        folder = temporary.folder
        assert folder.exists()
    assert not folder.exists()


def test_accounts_are_configured_and_the_configuration_is_nobody_elses_to_read() -> None:
    users = 'authorization { users: [{user: "u", password: "p"}] }'
    with NatsServer(config=users) as server:
        with NatsSession(server.url, user="u", password="p"):
            pass
        assert (server.folder / "nats-server.conf").stat().st_mode & 0o077 == 0


def test_limits_of_jetstream_are_configured() -> None:
    with NatsServer(jetstream_config="max_file_store: 1MB") as server:
        assert server.jsz()["config"]["max_storage"] == 1024 * 1024


def test_a_configuration_that_is_wrong_is_told_with_the_servers_own_words() -> None:
    server = NatsServer(config="no_such_option: 1")
    try:
        with pytest.raises(NatsServerError, match="no_such_option"):
            server.start()
        assert not server.running
    finally:
        server.close()


def test_a_given_port_is_used_and_a_taken_one_refused() -> None:
    with PortReservation() as free:
        port = free.port
    with NatsServer(port=port) as server:
        assert server.url == f"nats://127.0.0.1:{port}"
        with pytest.raises(OSError, match="in use"):
            PortReservation(server.port).close()


def test_what_is_not_running_says_so_instead_of_hanging() -> None:
    server = NatsServer()
    try:
        for ask in (server.freeze, server.thaw, lambda: server.pid):
            with pytest.raises(NatsServerError, match="not running"):
                ask()
        with pytest.raises(ConnectionRefusedError):
            server.varz()
        server.stop()
        server.kill()
        server.start()
        with pytest.raises(NatsServerError, match="running already"):
            server.start()
    finally:
        server.close()
        server.close()


def test_three_of_them_make_a_cluster() -> None:
    with nats_cluster() as servers, NatsSession(servers[0].url) as nats:

        def replicated() -> bool:
            # Until the nodes agree on a leader, requests to it are refused or lost.
            jetstream = nats.client.jetstream(timeout=1)
            add = jetstream.add_stream(name="R3", subjects=["r"], num_replicas=3)
            with contextlib.suppress(NatsError):
                return nats.call(add).config.num_replicas == 3
            return False

        wait_until(replicated, message="the three never keep a stream together")


def test_a_server_started_by_a_thread_outlives_that_thread() -> None:
    server = NatsServer()
    try:
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
        publish(server, 1)
        assert stored(server) == [b"0"]
    finally:
        server.close()


_DIES = """
import os, sys
from gateway.devstack.nats_server import NatsServer
server = NatsServer()
server.start()
if sys.argv[1] == "frozen":
    server.freeze()
print(server.pid, flush=True)
if sys.argv[1] == "raises":
    raise SystemExit("done for")
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["killed", "frozen", "raises"])
def test_no_server_survives_the_process_that_started_it(how: str, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _DIES, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(tmp_path)),  # it will not clean up after itself
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if how != "raises":
            assert is_alive(pid)
            parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not is_alive(pid), message="the server survives")


def test_a_child_whose_program_is_missing_ends_with_a_word(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        child = child_process.spawn([str(tmp_path / "nothing")], stdout=output)
    assert child.wait(10) != 0
    assert "No such file" in (tmp_path / "output").read_text()


def test_a_child_that_ignores_sigterm_is_killed_with_what_it_started(tmp_path: Path) -> None:
    stubborn = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path / 'pid'}; wait"
    child = child_process.spawn(["/bin/sh", "-c", stubborn], stdout=subprocess.DEVNULL)
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip())
    assert child_process.terminate(child, timeout=0.2) is False
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_the_binary_is_the_one_beside_this_python() -> None:
    version = subprocess.run([find_binary(), "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"nats-server: v2.")
