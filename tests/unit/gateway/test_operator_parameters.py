"""What operators type: what can be meant is taken, and anything else is refused with a sentence, before anything."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.operator import bus, parameters

KEY = ("apikeys", "create", "--tenant", "acme", "--role", "service")


@pytest.mark.parametrize(
    "arguments",
    [
        ("apikeys", "create", "--tenant", "a b", "--role", "service"),
        ("apikeys", "create", "--tenant", "a" * 65, "--role", "service"),
        ("apikeys", "create", "--tenant", "тенант", "--role", "service"),
        ("apikeys", "create", "--tenant", "acme\n", "--role", "service"),
        ("apikeys", "create", "--role", "service"),
        ("apikeys", "create", "--tenant", "acme"),
        ("apikeys", "create", "--tenant", "acme", "--role", "admin,viewer"),
        ("apikeys", "create", "--tenant", "acme", "--role", ""),
        (*KEY, *(word for number in range(32) for word in ("--role", f"r{number}"))),
        (*KEY, "--name", "\x1b[2J"),
        (*KEY, "--name", "x" * 129),
        (*KEY, "--name", "\udcff"),
        (*KEY, "--expires", "90"),
        (*KEY, "--expires", "0d"),
        (*KEY, "--expires", "-1d"),
        (*KEY, "--expires", "100000d"),
        (*KEY, "--expires", "tomorrow"),
        (*KEY, "--expires", "2099-01-01"),
        (*KEY, "--expires", "2099-01-01T00:00:00"),
        (*KEY, "--expires", "2020-01-01T00:00:00Z"),
        (*KEY, "--expires", "9999-12-31T23:59:59-12:00"),
        ("apikeys", "list", "--tenant", "*"),
        ("apikeys", "revoke", "blk_1234"),
        ("apikeys", "revoke", "BLK_12345678"),
        ("apikeys", "revoke"),
        ("audit", "--tenant", "a b"),
        ("roles", "check", "/there/is/no/such/file"),
        ("roles", "check", "/"),
        ("roles", "apply"),
        ("sticky", "drop", "--tenant", "a b", "session"),
        ("dlq", "replay"),
    ],
    ids=repr,
)
def test_what_cannot_be_meant_is_refused_with_a_sentence(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert (ended.exit_code, ended.stdout) == (bus.CONFIGURATION_ERROR, "")
    assert ended.stderr.splitlines()[-1].startswith("Error: ")
    assert "\x1b" not in ended.stderr


def test_what_is_no_prefix_is_not_repeated_since_it_may_be_a_key() -> None:
    key = "blk_12345678_" + "s" * 43
    assert key not in CliRunner().invoke(main, ["apikeys", "revoke", key]).stderr


@pytest.mark.parametrize(
    ("typed", "period"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12))]
)
def test_a_period_ends_that_long_from_now(typed: str, period: timedelta) -> None:
    before = datetime.now(UTC)
    expires = parameters.expiry(typed)
    assert timedelta(seconds=-1) < expires - before - period < timedelta(seconds=10)
    assert expires.tzinfo is UTC


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2099-12-31T22:00:00-03:00", datetime(2100, 1, 1, 1, tzinfo=UTC)),
        ("2099-01-01T00:00:00Z", datetime(2099, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_kept_as_utc(typed: str, meant: datetime) -> None:
    assert parameters.expiry(typed) == meant


def test_a_refused_time_is_repeated_for_the_one_who_mistyped_it() -> None:
    with pytest.raises(click.BadParameter, match=r"got '90x'"):
        parameters.expiry("90x")


def test_every_exit_code_is_in_the_table() -> None:
    assert bus.__doc__ is not None
    documented = {int(code) for code in re.findall(r"^(\d) {4,}", bus.__doc__, re.MULTILINE)}
    declared = {
        value for name, value in vars(bus).items() if name.isupper() and isinstance(value, int)
    }
    assert documented == {0, *declared}
