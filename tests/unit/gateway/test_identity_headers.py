"""Identity headers: believed from the authenticating proxy only, and never half understood."""

from __future__ import annotations

import ipaddress
import time

import pytest
from werkzeug.datastructures import Headers

from gateway.identity import HeaderAuthenticator, Principal, Unauthenticated

PROXIES = ("10.0.0.0/8", "192.168.7.7", "fd00::/8", "::1")


def authenticate(peer: str, **headers: str) -> Principal:
    networks = [ipaddress.ip_network(proxy) for proxy in PROXIES]
    named = Headers([(name.replace("_", "-"), value) for name, value in headers.items()])
    return HeaderAuthenticator(networks).authenticate(named, peer, time.monotonic() + 1)


def test_the_principal_is_what_the_proxy_says() -> None:
    principal = authenticate("10.1.2.3", X_Tenant_ID="acme", X_Role="admin")
    assert principal == Principal(tenant_id="acme", roles=("admin",), method="headers")


def test_names_of_headers_have_no_case() -> None:
    principal = authenticate("10.1.2.3", x_tenant_id="acme", X_ROLE="admin")
    assert principal.tenant_id == "acme"


def test_several_roles_come_in_one_header() -> None:
    assert authenticate("::1", X_Tenant_ID="acme", X_Role="reader, writer,x").roles == (
        "reader",
        "writer",
        "x",
    )


@pytest.mark.parametrize(
    "peer",
    ["10.0.0.0", "10.255.255.255", "192.168.7.7", "fd00::1", "::1", "::ffff:10.1.2.3"],
)
def test_a_peer_in_a_trusted_network_is_believed(peer: str) -> None:
    assert authenticate(peer, X_Tenant_ID="acme", X_Role="admin").tenant_id == "acme"


@pytest.mark.parametrize(
    "peer",
    [
        "11.0.0.1",
        "192.168.7.8",
        "fe80::1",
        "::2",
        "::ffff:11.0.0.1",
        "::10.1.2.3",  # an IPv4-compatible address is no mapped one
        "",
        "unix:",
        "localhost",
        "10.1.2.3, 10.1.2.3",
        "10.1.2.3:5000",
    ],
)
def test_anybody_else_is_nobody_whatever_the_headers_say(peer: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(peer, X_Tenant_ID="acme", X_Role="admin")
    assert caught.value.challenge
    assert "acme" not in str(caught.value)


@pytest.mark.parametrize(
    "tenant",
    [
        "",
        " ",
        "a b",
        " acme",
        "acme ",
        "acme,acme",
        "acme, umbrella",
        "a*",
        "a>",
        "a\n",
        "é",
        "a" * 65,
    ],
)
def test_a_malformed_tenant_is_no_credential_and_is_not_repeated(tenant: str) -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8")]
    with pytest.raises(Unauthenticated) as caught:
        HeaderAuthenticator(networks).authenticate(
            {"X-Tenant-ID": tenant, "X-Role": "admin"}, "10.1.2.3", time.monotonic() + 1
        )
    assert "X-Tenant-ID" in str(caught.value)
    assert not tenant.strip() or tenant not in str(caught.value)


@pytest.mark.parametrize(
    "roles",
    ["", ",", "admin,", ",admin", "a,,b", "a b", "r" * 65, ",".join("r" * 17), "a;b", "a\nb"],
)
def test_malformed_roles_are_no_credential(roles: str) -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8")]
    with pytest.raises(Unauthenticated, match="X-Role"):
        HeaderAuthenticator(networks).authenticate(
            {"X-Tenant-ID": "acme", "X-Role": roles}, "10.1.2.3", time.monotonic() + 1
        )


@pytest.mark.parametrize("missing", ["X-Tenant-ID", "X-Role"])
def test_a_missing_header_is_named(missing: str) -> None:
    headers = {"X-Tenant-ID": "acme", "X-Role": "admin"}
    del headers[missing]
    with pytest.raises(Unauthenticated, match=missing):
        HeaderAuthenticator([ipaddress.ip_network("10.0.0.0/8")]).authenticate(
            headers, "10.1.2.3", time.monotonic() + 1
        )


@pytest.mark.parametrize("tenant", ["a", "A-z_0.9:x", "t" * 64])
def test_a_tenant_of_the_contracts_alphabet_is_taken_as_it_is(tenant: str) -> None:
    assert authenticate("10.1.2.3", X_Tenant_ID=tenant, X_Role="admin").tenant_id == tenant
