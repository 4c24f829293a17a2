"""Who the bridge says it is: passwords, tokens, certificates; wrong ones, and ones that become right."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import NotSent, Tls
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_accounts import PASSWORD, account, accounts, reload, user
from tests.support.bridge_running import (
    RunningBridges,
    publish,
    wait_for_count,
    wait_published,
)
from tests.support.certificates import Certificates, make_certificates
from tests.support.waiting import GENEROUS_SECONDS, RECOVERY_SECONDS, wait_until

WRONG = "a-wrong-password"


def config_for(password: str) -> str:
    return accounts(account("A", user("gateway", password=password)))


def test_a_wrong_password_never_connects_and_says_so_until_the_server_accepts_it(
    bridges: RunningBridges, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer(config=config_for(PASSWORD)) as server:
        bridge = bridges.start(server.url, ready=False, user="gateway", password=WRONG)
        wait_until(lambda: "Authorization Violation" in str(bridge.health().last_error))
        attempts = server.varz()["total_connections"]
        wait_until(
            lambda: server.varz()["total_connections"] >= attempts + 3,
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
def certificates(tmp_path: Path) -> Certificates:
    """The server's, a client's, and who signed them."""
    return make_certificates(tmp_path)


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[NatsServer]:
    """A server that speaks TLS only and wants a certificate of its clients."""
    with NatsServer(config=certificates.nats_config()) as server:
        yield server


def client_tls(certificates: Certificates) -> Tls:
    return Tls(
        ca_file=certificates.authority,
        cert_file=certificates.client,
        key_file=certificates.client_key,
    )


def test_a_client_certificate_opens_a_tls_server_also_after_its_restart(
    certificates: Certificates, tls_server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(tls_server.url, tls=client_tls(certificates))
    publish(bridge, payload=b"x" * 500_000)
    for restarts in range(1, 4):
        tls_server.kill()
        tls_server.start()
        wait_for_count(lambda: bridge.health().connects, 1 + restarts, RECOVERY_SECONDS)
    wait_published(bridge, RECOVERY_SECONDS)


def test_without_a_client_certificate_a_tls_server_is_never_connected_and_the_reason_is_said(
    certificates: Certificates, tls_server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(tls_server.url, ready=False, tls=Tls(ca_file=certificates.authority))
    wait_until(lambda: bridge.health().last_error, message="no reason is given")
    wait_until(
        lambda: tls_server.log_path.read_text().count("TLS handshake error") >= 2,
        GENEROUS_SECONDS,
        "it does not try again",
    )
    assert bridge.health().connects == 0
    assert not bridge.health().ready


def test_a_server_certificate_of_an_unknown_authority_is_not_trusted(
    certificates: Certificates, tls_server: NatsServer, bridges: RunningBridges, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    stranger = make_certificates(tmp_path / "strangers")
    tls = dataclasses.replace(client_tls(certificates), ca_file=stranger.authority)
    bridge = bridges.start(tls_server.url, ready=False, tls=tls)
    error = wait_until(lambda: bridge.health().last_error, message="no reason is given")
    assert error is not None and "CERTIFICATE_VERIFY_FAILED" in error
    assert bridge.health().connects == 0


def test_certificates_that_cannot_be_used_stop_the_start(
    certificates: Certificates, absent_server: NatsServer, bridges: RunningBridges, tmp_path: Path
) -> None:
    def start(tls: Tls) -> None:
        bridges.start(absent_server.url, ready=False, tls=tls)

    with pytest.raises(OSError, match="No such file"):
        start(Tls(ca_file=tmp_path / "nowhere.pem"))
    with pytest.raises(ssl.SSLError):
        start(Tls(cert_file=certificates.client, key_file=certificates.server_key))
