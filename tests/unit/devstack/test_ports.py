"""Ports that stay ours."""

from __future__ import annotations

import socket

import pytest

from gateway.devstack.ports import PortReservation


def test_reservations_never_share_a_port() -> None:
    reservations = [PortReservation() for _ in range(50)]
    try:
        assert len({reservation.port for reservation in reservations}) == 50
    finally:
        for reservation in reservations:
            reservation.close()


def test_a_reserved_port_refuses_connections_until_somebody_listens_on_it() -> None:
    with PortReservation() as reserved, socket.socket() as server:
        address = (reserved.host, reserved.port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen()
        socket.create_connection(address, timeout=5).close()


def test_a_taken_port_cannot_be_reserved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(OSError, match="in use"):
        PortReservation(server.getsockname()[1])


def test_a_port_that_was_given_back_can_be_reserved_again() -> None:
    with PortReservation() as first:
        port = first.port
    with PortReservation(port) as second:
        assert second.port == port
        assert second.address == f"127.0.0.1:{port}"
