"""Who the bridge says it is: passwords, tokens, certificates; wrong ones, and ones that become right."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import NotSent, Tls
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_accounts import PASSWORD, account, accounts, reload, user
from tests.support.bridge_certificates import Authority
from tests.support.bridge_running import RunningBridges, publish, wait_published
from tests.support.waiting import GENEROUS_SECONDS, RECOVERY_SECONDS, wait_until

WRONG = "a-wrong-password"


def config_for(password: str) -> str:
    return accounts(account("A", user("gateway", password=password)))


def test_a_wrong_password_never_connects_and_says_so_until_the_server_accepts_it(
    bridges: RunningBridges, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer(config=config_for(PASSWORD)) as server:
        bridge = bridges.start(server.url, ready=False, user="gateway", password=WRONG)
        wait_until(
            # More than one attempt: it goes on trying.
            lambda: server.varz()["total_connections"] >= 3,
            message="it does not try again",
        )
        health = bridge.health()
        assert (health.connected, health.connects) == (False, 0)
        assert "Authorization Violation" in str(health.last_error)
        assert "Authorization Violation" in health.missing[0]
        with pytest.raises(NotSent, match="Authorization Violation"):
            publish(bridge)
        reload(server, config_for(WRONG))
        wait_published(bridge, RECOVERY_SECONDS)
        assert bridge.health().last_error is None
    said = " ".join(record.getMessage() for record in caplog.records)
    assert WRONG not in said + repr(health) + repr(bridge.config)


def test_a_password_that_is_revoked_ends_the_connection_and_one_that_is_restored_makes_a_new_one(
    bridges: RunningBridges,
) -> None:
    with NatsServer(config=config_for(PASSWORD)) as server:
        bridge = bridges.start(server.url, user="gateway", password=PASSWORD)
        for round_ in range(1, 3):
            reload(server, config_for(WRONG))
            wait_until(
                lambda: "authorization violation" in str(bridge.health().last_error).lower(),
                message=lambda: f"{bridge.health()}",
            )
            assert not bridge.health().connected
            reload(server, config_for(PASSWORD))
            wait_published(bridge, RECOVERY_SECONDS)
            assert bridge.health().connects == 1 + round_
        wait_until(lambda: server.varz()["connections"] == 1, message="connections pile up")


def test_a_token_is_taken(bridges: RunningBridges) -> None:
    with NatsServer(config='authorization { token: "a-token" }') as server:
        publish(bridges.start(server.url, token="a-token"))
        assert "a-token" not in repr(bridges.start(server.url, token="a-token").config)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs the certificates of the server and of those that it trusts."""
    return Authority(tmp_path)


@pytest.fixture
def tls_server(authority: Authority) -> Iterator[NatsServer]:
    """A server that speaks TLS only and wants a certificate of its clients."""
    own = authority.issue("server")
    config = f"""
    tls {{
      cert_file: {json.dumps(str(own.cert_file))}
      key_file: {json.dumps(str(own.key_file))}
      ca_file: {json.dumps(str(authority.ca_file))}
      verify: true
    }}
    """
    with NatsServer(config=config) as server:
        yield server


def test_a_client_certificate_opens_a_tls_server_also_after_its_restart(
    authority: Authority, tls_server: NatsServer, bridges: RunningBridges
) -> None:
    own = authority.issue("client")
    tls = Tls(ca_file=authority.ca_file, cert_file=own.cert_file, key_file=own.key_file)
    bridge = bridges.start(tls_server.url, tls=tls)
    publish(bridge, payload=b"x" * 500_000)
    for _ in range(3):
        tls_server.kill()
        tls_server.start()
        wait_published(bridge, RECOVERY_SECONDS)
    assert bridge.health().connects == 4


def test_without_a_client_certificate_a_tls_server_is_never_connected_and_the_reason_is_said(
    authority: Authority, tls_server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(tls_server.url, ready=False, tls=Tls(ca_file=authority.ca_file))
    wait_until(lambda: bridge.health().last_error, message="no reason is given")
    wait_until(
        lambda: tls_server.log_path.read_text().count("TLS handshake error") >= 2,
        GENEROUS_SECONDS,
        "it does not try again",
    )
    assert bridge.health().connects == 0
    assert not bridge.health().ready


def test_a_server_certificate_of_an_unknown_authority_is_not_trusted(
    authority: Authority, tls_server: NatsServer, bridges: RunningBridges, tmp_path: Path
) -> None:
    own, stranger = authority.issue("client"), Authority(tmp_path, "stranger")
    tls = Tls(ca_file=stranger.ca_file, cert_file=own.cert_file, key_file=own.key_file)
    bridge = bridges.start(tls_server.url, ready=False, tls=tls)
    error = wait_until(lambda: bridge.health().last_error, message="no reason is given")
    assert error is not None and "CERTIFICATE_VERIFY_FAILED" in error
    assert bridge.health().connects == 0


def test_certificates_that_cannot_be_read_stop_the_start(
    authority: Authority, absent_server: NatsServer, bridges: RunningBridges, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere.pem"
    with pytest.raises(OSError, match="No such file"):
        bridges.start(absent_server.url, ready=False, tls=Tls(ca_file=nowhere))
    own = authority.issue("client")
    with pytest.raises(ssl.SSLError):
        bridges.start(
            absent_server.url,
            ready=False,
            tls=Tls(cert_file=own.cert_file, key_file=authority.issue("another").key_file),
        )
