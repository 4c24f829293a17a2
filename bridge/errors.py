"""What can go wrong at the wire, and the one seam from nats-py to it.

::

    BridgeError
    ├── NotSent    nothing was stored or executed: not connected, no responders, no stream
    │              answered, the cap was reached, the deadline passed first. Retrying is safe.
    ├── Unknown    it was sent and no answer came within the deadline. It may have happened,
    │              or may still happen.
    ├── Refused    the server answered no. ``reason`` says what kind of no.
    └── Closed     the bridge is shutting down or was never started; nothing was sent.

Every error says whether the thing happened, so that a caller can decide on the status and on the
record without knowing nats-py. `translate` is the only place that knows both sides; a test
enumerates nats-py's exceptions and fails when one of them is not mapped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import nats.errors as nats_errors
import nats.js.errors as js_errors


class BridgeError(Exception):
    """Base of all errors that leave the bridge. ``str()`` is safe to log: no payload, no credential."""


class NotSent(BridgeError):
    """Nothing was stored or executed; the same call may be repeated at once or later.

    ``overloaded`` tells the bridge's own cap (too many operations in flight) from the wire's troubles.
    """

    def __init__(self, message: str, *, overloaded: bool = False) -> None:
        super().__init__(message)
        self.overloaded = overloaded


class Unknown(BridgeError):
    """Sent, but not answered in time: it may have happened."""


class Closed(BridgeError):
    """The bridge does not run (not started, shutting down, or inherited by a fork); nothing was sent."""


class Refusal(StrEnum):
    """What kind of no the server gave."""

    REVISION = "revision"
    """The key or subject was not at the revision that the write expected."""
    NOT_FOUND = "not_found"
    """No such key, message, stream or consumer."""
    TOO_LARGE = "too_large"
    """The message is larger than the server (or the stream) takes."""
    PERMISSION = "permission"
    """The account of this connection may not do that."""
    INVALID = "invalid"
    """The server found the request malformed or impossible."""


class Refused(BridgeError):
    """The server answered no; nothing was stored.

    ``err_code`` is JetStream's error code where there is one.
    """

    def __init__(self, message: str, *, reason: Refusal, err_code: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.err_code = err_code


WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
"""JetStream's codes of a failed compare-and-set."""
DUPLICATE_IN_PROCESS: Final = 10158
"""An equal ``Nats-Msg-Id`` is being replicated at this moment; its own outcome is not known yet."""
_TOO_LARGE_CODES: Final = frozenset({10054})

_NOT_SENT: Final[tuple[type[Exception], ...]] = (
    nats_errors.NoRespondersError,
    nats_errors.OutboundBufferLimitError,
    nats_errors.ConnectionClosedError,
    nats_errors.ConnectionDrainingError,
    nats_errors.ConnectionReconnectingError,
    nats_errors.StaleConnectionError,
    nats_errors.NoServersError,
    nats_errors.ServerNotInPoolError,
    nats_errors.SecureConnRequiredError,
    nats_errors.SecureConnWantedError,
    nats_errors.SecureConnFailedError,
    nats_errors.JsonParseError,
    nats_errors.SlowConsumerError,
    js_errors.NoStreamResponseError,
    js_errors.TooManyStalledMsgsError,
    js_errors.ServiceUnavailableError,
    js_errors.ServerError,
)
_UNKNOWN: Final[tuple[type[Exception], ...]] = (
    TimeoutError,  # builtin; nats-py's own timeouts are subclasses of it
    nats_errors.ProtocolError,
    js_errors.ConsumerSequenceMismatchError,
    js_errors.DigestMismatchError,
    js_errors.BadObjectMetaError,
)
_PERMISSION: Final[tuple[type[Exception], ...]] = (
    nats_errors.AuthorizationError,
    nats_errors.InvalidUserCredentialsError,
)
_NOT_FOUND: Final[tuple[type[Exception], ...]] = (
    js_errors.NotFoundError,
    js_errors.NoKeysError,
)
_INVALID: Final[tuple[type[Exception], ...]] = (
    nats_errors.BadSubscriptionError,
    nats_errors.BadSubjectError,
    nats_errors.BadHeaderError,
    nats_errors.BadTimeoutError,
    nats_errors.InvalidCallbackTypeError,
    nats_errors.NotJSMessageError,
    nats_errors.MsgAlreadyAckdError,
    js_errors.BadBucketError,
    js_errors.BadRequestError,
    js_errors.KeyHistoryTooLargeError,
    js_errors.InvalidKeyError,
    js_errors.InvalidBucketNameError,
    js_errors.InvalidObjectNameError,
    js_errors.LinkIsABucketError,
    js_errors.ObjectAlreadyExists,
    js_errors.KeyValueLimitMarkerTTLNotSupportedError,
)


def translate(error: Exception) -> BridgeError:
    """The `BridgeError` that says about the wire what ``error`` says.

    The order matters: nats-py's timeout is a subclass of the builtin one and so of ``OSError``, and its
    "key not found" is both a key-value error and a not-found error. Anything unmapped is `Unknown`: the
    one verdict that never claims too much.
    """
    if isinstance(error, BridgeError):
        return error
    text = str(error) or type(error).__name__
    if isinstance(error, _UNKNOWN):
        return Unknown(text)
    if isinstance(error, nats_errors.MaxPayloadError):
        return Refused(text, reason=Refusal.TOO_LARGE)
    if isinstance(error, _PERMISSION):
        return Refused(text, reason=Refusal.PERMISSION)
    if isinstance(error, js_errors.KeyWrongLastSequenceError):
        return Refused(text, reason=Refusal.REVISION)
    if isinstance(error, _NOT_SENT):
        return NotSent(text)
    if isinstance(error, js_errors.APIError):
        return _translate_api_error(error, text)
    if isinstance(error, _INVALID):
        return Refused(text, reason=Refusal.INVALID)
    return Unknown(text)


def _translate_api_error(error: js_errors.APIError, text: str) -> BridgeError:
    # nats-py's key-value errors are API errors without an API error's fields.
    code: int | None = getattr(error, "code", None)
    err_code: int | None = getattr(error, "err_code", None)
    if err_code in WRONG_LAST_SEQUENCE:
        return Refused(text, reason=Refusal.REVISION, err_code=err_code)
    if err_code == DUPLICATE_IN_PROCESS:
        return Unknown(text)
    if err_code in _TOO_LARGE_CODES:
        return Refused(text, reason=Refusal.TOO_LARGE, err_code=err_code)
    if isinstance(error, _NOT_FOUND) or code == 404:
        return Refused(text, reason=Refusal.NOT_FOUND, err_code=err_code)
    if code is not None and code >= 500:
        # The server answered, so nothing was stored: a full stream, no resources, no leader.
        return NotSent(text)
    return Refused(text, reason=Refusal.INVALID, err_code=err_code)
