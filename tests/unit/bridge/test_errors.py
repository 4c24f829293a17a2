"""Every error of nats-py has a verdict; none reaches a caller as it is."""

from __future__ import annotations

import inspect

import nats.errors
import nats.js.errors
import pytest

from bridge.errors import (
    _INVALID,
    _NOT_FOUND,
    _NOT_SENT,
    _PERMISSION,
    _UNKNOWN,
    BridgeError,
    NotSent,
    Refusal,
    Refused,
    Unknown,
    translate,
)

_BASES = {
    nats.errors.Error,
    nats.js.errors.Error,
    nats.js.errors.APIError,
    nats.js.errors.KeyValueError,
}


def _all_errors() -> list[type[Exception]]:
    found = {
        cls
        for module in (nats.errors, nats.js.errors)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, nats.errors.Error)
    }
    return sorted(found - _BASES, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("error", _all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_of_nats_py_is_mapped_on_purpose(error: type[Exception]) -> None:
    mapped = (
        *_NOT_SENT,
        *_UNKNOWN,
        *_PERMISSION,
        *_NOT_FOUND,
        *_INVALID,
        nats.errors.MaxPayloadError,
        nats.js.errors.KeyWrongLastSequenceError,
    )
    assert issubclass(error, mapped), f"{error.__name__} is in no group of bridge/errors.py"


def test_a_timeout_is_unknown_although_it_is_an_oserror_too() -> None:
    assert isinstance(translate(nats.errors.TimeoutError()), Unknown)
    assert isinstance(translate(TimeoutError()), Unknown)


def test_nobody_listening_is_not_sent() -> None:
    assert isinstance(translate(nats.errors.NoRespondersError()), NotSent)


def test_a_full_stream_is_not_sent() -> None:
    full = nats.js.errors.ServiceUnavailableError(
        code=503, err_code=10077, description="maximum bytes exceeded"
    )
    assert isinstance(translate(full), NotSent)


@pytest.mark.parametrize("err_code", [10071, 10164])
def test_a_lost_compare_and_set_is_refused_as_a_revision(err_code: int) -> None:
    error = translate(
        nats.js.errors.BadRequestError(
            code=400, err_code=err_code, description="wrong last sequence"
        )
    )
    assert isinstance(error, Refused)
    assert error.reason is Refusal.REVISION


def test_a_missing_key_is_refused_as_not_found_although_it_is_a_key_value_error() -> None:
    error = translate(nats.js.errors.KeyNotFoundError())
    assert isinstance(error, Refused)
    assert error.reason is Refusal.NOT_FOUND


def test_an_error_of_nobody_is_unknown_and_a_bridge_error_stays() -> None:
    assert isinstance(translate(RuntimeError("?")), Unknown)
    closed: BridgeError = NotSent("x")
    assert translate(closed) is closed
