"""Settings of identity and access: each contradiction a line that names both sides, and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from gateway.settings import Settings, SettingsError

SECRET: Final = "s3cret-" * 6
JWT: Final = {"AUTH_MODE": "jwt", "JWT_ISSUER": "https://login.example", "JWT_AUDIENCE": "beamline"}


def problems(environ: dict[str, str]) -> list[str]:
    """The lines that the environment is refused with; none if it is not."""
    try:
        Settings.from_environ(environ)
    except SettingsError as error:
        return error.problems
    return []


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "apikeys.json"
    path.write_text('{"keys": []}')
    return str(path)


def test_keys_are_the_default_and_nobody_serves_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    monkeypatch.chdir(tmp_path / "..")
    [line] = problems({})
    assert line.startswith("APIKEYS_FILE: expected a readable file, got 'apikeys.json'")
    assert "beamline-gateway apikeys create" in line
    assert problems({"APIKEYS_FILE": keys}) == []
    assert problems({"APIKEYS_SOURCE": "bucket"}) == []
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environ({}).auth_mode == "api_key"


def test_commands_that_let_nobody_in_need_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environ({}, serving=False).auth_mode == "api_key"
    assert Settings.from_environ({"AUTH_MODE": "jwt"}, serving=False).jwt_issuer is None


def test_headers_are_never_believed_by_default() -> None:
    [line] = problems({"AUTH_MODE": "headers"})
    assert line.startswith("TRUSTED_PROXIES: expected") and "AUTH_MODE=headers" in line


def test_tokens_need_an_issuer_an_audience_and_one_source_of_keys() -> None:
    lines = problems({"AUTH_MODE": "jwt"})
    assert [line.partition(":")[0] for line in lines] == [
        "JWT_ISSUER",
        "JWT_AUDIENCE",
        "JWT_JWKS_URL",
    ]


@pytest.mark.parametrize(
    ("sources", "right"),
    [
        ({}, False),
        ({"JWT_SECRET": SECRET}, True),
        ({"JWT_JWKS_URL": "https://login.example/jwks"}, True),
        ({"JWT_JWKS_FILE": __file__}, True),
        ({"JWT_SECRET": SECRET, "JWT_JWKS_FILE": __file__}, False),
        ({"JWT_JWKS_URL": "https://login.example/jwks", "JWT_JWKS_FILE": __file__}, False),
        ({"JWT_SECRET": SECRET, "JWT_JWKS_URL": "https://login.example/jwks"}, False),
    ],
)
def test_there_is_exactly_one_source_of_signing_keys(sources: dict[str, str], right: bool) -> None:
    lines = problems({**JWT, **sources})
    assert (lines == []) is right
    for line in lines:
        assert "exactly one of JWT_JWKS_URL, JWT_JWKS_FILE and JWT_SECRET" in line
        assert SECRET not in line


@pytest.mark.parametrize(
    ("source", "algorithms", "right"),
    [
        ({"JWT_SECRET": SECRET}, "", True),
        ({"JWT_SECRET": SECRET}, "HS256", True),
        ({"JWT_SECRET": SECRET}, "RS256", False),
        ({"JWT_SECRET": SECRET}, "HS256,RS256", False),
        ({"JWT_JWKS_FILE": __file__}, "", True),
        ({"JWT_JWKS_FILE": __file__}, "ES256", True),
        ({"JWT_JWKS_FILE": __file__}, "ES256,RS256", True),
        ({"JWT_JWKS_FILE": __file__}, "HS256", False),
        ({"JWT_JWKS_FILE": __file__}, "RS256,HS256", False),
    ],
)
def test_public_keys_and_shared_secrets_are_never_mixed(
    source: dict[str, str], algorithms: str, right: bool
) -> None:
    lines = problems({**JWT, **source, "JWT_ALGORITHMS": algorithms})
    assert (lines == []) is right
    for line in lines:
        assert line.startswith("JWT_ALGORITHMS: expected HS256 with JWT_SECRET, RS256 or ES256")


def test_the_algorithms_follow_from_the_source() -> None:
    made = Settings.from_environ({**JWT, "JWT_SECRET": SECRET})
    assert made.algorithms == ("HS256",)
    made = Settings.from_environ({**JWT, "JWT_JWKS_FILE": __file__})
    assert made.algorithms == ("RS256", "ES256")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_MODE", "none"),
        ("AUTH_MODE", "API_KEY"),
        ("JWT_ALGORITHMS", "none"),
        ("JWT_ALGORITHMS", "RS256,none"),
        ("JWT_ALGORITHMS", "HS512"),
        ("JWT_SECRET", "short"),
        ("JWT_SECRET", "s" * 31),
        ("JWT_JWKS_URL", "http://login.example/jwks"),
        ("JWT_JWKS_URL", "http://127.0.0.1.login.example/jwks"),
        ("JWT_JWKS_URL", "http://localhost@login.example/jwks"),
        ("JWT_JWKS_URL", "https://user:password@login.example/jwks"),
        ("JWT_JWKS_URL", "file:///etc/passwd"),
        ("JWT_JWKS_URL", "ftp://login.example/jwks"),
        ("JWT_JWKS_FILE", "/nonexistent/jwks.json"),
        ("JWT_LEEWAY_MS", "300001"),
        ("APIKEYS_SOURCE", "vault"),
        ("ROLES_SOURCE", "vault"),
        ("ROLES_FILE", "/nonexistent/roles.toml"),
        ("RBAC_CACHE_TTL_MS", "0"),
        ("RBAC_CACHE_TTL_MS", "3600001"),
        ("RBAC_DENY_TTL_MS", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable_and_no_secret(
    name: str, value: str, keys: str
) -> None:
    [line] = problems({"APIKEYS_FILE": keys, name: value})
    assert line.startswith(f"{name}: expected")
    if name == "JWT_SECRET" or "@" in value:
        assert value not in line


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example/jwks",
        "http://localhost:8080/jwks",
        "http://127.0.0.1:8080",
        "http://[::1]:8080/jwks",
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url: str) -> None:
    assert problems({**JWT, "JWT_JWKS_URL": url}) == []


def test_the_secret_is_never_shown() -> None:
    made = Settings.from_environ({**JWT, "JWT_SECRET": SECRET})
    assert SECRET not in repr(made)
    assert made.jwt_secret == SECRET
