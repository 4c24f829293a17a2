"""HTTP Basic, where a page allows it: the password is the credential, whatever the user name says."""

from __future__ import annotations

import base64

import pytest
from werkzeug.datastructures import Headers

from gateway.identity import Unauthenticated
from gateway.identity.basic import PasswordAsBearer
from gateway.identity.bearer import bearer_token

KEY = "blk_abcdefgh_" + "A" * 43


def read(authorization: str) -> str:
    return PasswordAsBearer(Headers([("Authorization", authorization)])).get("Authorization", "")


def basic(text: str | bytes, scheme: str = "Basic") -> str:
    raw = text.encode() if isinstance(text, str) else text
    return f"{scheme} {base64.b64encode(raw).decode()}"


@pytest.mark.parametrize("user", ["", "somebody", "key", KEY, "a b"])
def test_the_password_is_read_as_a_bearer_credential(user: str) -> None:
    assert read(basic(f"{user}:{KEY}")) == f"Bearer {KEY}"


@pytest.mark.parametrize("scheme", ["basic", "BASIC"])
def test_the_scheme_has_no_case(scheme: str) -> None:
    assert read(basic(f":{KEY}", scheme)) == f"Bearer {KEY}"


def test_colons_after_the_first_belong_to_the_password() -> None:
    assert read(basic("somebody:a:b:c")) == "Bearer a:b:c"


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic ",
        "Basic \xe9",
        "Basic !!!!",
        "Basic QQ",
        f"Basic {KEY}",
        basic(KEY),
        basic("somebody:"),
        basic(f"somebody:{KEY},{KEY}"),
        basic(b"somebody:\xff\xfe"),
        basic("somebody:pässword"),
        f"Basic  {base64.b64encode(f':{KEY}'.encode()).decode()} x",
    ],
)
def test_what_is_no_password_is_no_credential(authorization: str) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(PasswordAsBearer(Headers([("Authorization", authorization)])))


@pytest.mark.parametrize("authorization", ["", f"Bearer {KEY}", "Digest x"])
def test_other_schemes_stay_what_they_were(authorization: str) -> None:
    assert read(authorization) == authorization


def test_other_headers_stay_what_they_were() -> None:
    headers = PasswordAsBearer(Headers([("X-API-Key", basic(f":{KEY}"))]))
    assert headers.get("X-API-Key", "") == basic(f":{KEY}")
    assert headers.get("X-Tenant-ID", "none") == "none"
