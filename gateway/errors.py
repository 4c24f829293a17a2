"""Domain errors and the one table error → status, code, cause.

::

    GatewayError                  everything that ends a request with the contract's error body
    ├── made by the gateway       code from `ErrorCode`, status from `STATUS`
    └── passed on from the Router code and status from `ROUTER_CODES`

The body is the same whatever went wrong (`GatewayError.body`); the cause (``error_type``) goes to the access
log only. Precedence when several things are wrong follows from the order of the steps in `gateway.door`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from bridge import BridgeError, NotSent, Refusal, Refused, Unknown


class ErrorCode(StrEnum):
    """The gateway's own codes (wire contract, "Errors of the Router → HTTP", last paragraph)."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    DENIED = "denied"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    IN_PROGRESS = "in_progress"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INTERNAL = "internal"
    BAD_REPLY = "bad_reply"
    UNAVAILABLE = "unavailable"
    OVERLOADED = "overloaded"
    ACCESS_UNAVAILABLE = "access_unavailable"
    TIMEOUT = "timeout"
    OUTCOME_UNKNOWN = "outcome_unknown"


class ErrorType(StrEnum):
    """Whose error it was, for the access log (wire contract; the order is the precedence)."""

    RATE_LIMIT = "rate_limit"
    AUTH_GATEWAY = "auth_gateway"
    REQUEST_GATEWAY = "request_gateway"
    ROUTER_INTAKE = "router_intake"
    ROUTER_RUNTIME = "router_runtime"
    INTERNAL_GATEWAY = "internal_gateway"


STATUS: Final[Mapping[ErrorCode, tuple[int, ErrorType]]] = {
    ErrorCode.INVALID_REQUEST: (400, ErrorType.REQUEST_GATEWAY),
    ErrorCode.UNAUTHORIZED: (401, ErrorType.AUTH_GATEWAY),
    ErrorCode.DENIED: (403, ErrorType.AUTH_GATEWAY),
    ErrorCode.NOT_FOUND: (404, ErrorType.REQUEST_GATEWAY),
    ErrorCode.METHOD_NOT_ALLOWED: (405, ErrorType.REQUEST_GATEWAY),
    ErrorCode.IDEMPOTENCY_CONFLICT: (409, ErrorType.REQUEST_GATEWAY),
    ErrorCode.IN_PROGRESS: (409, ErrorType.REQUEST_GATEWAY),
    ErrorCode.PAYLOAD_TOO_LARGE: (413, ErrorType.REQUEST_GATEWAY),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, ErrorType.REQUEST_GATEWAY),
    ErrorCode.RATE_LIMIT_EXCEEDED: (429, ErrorType.RATE_LIMIT),
    ErrorCode.INTERNAL: (500, ErrorType.INTERNAL_GATEWAY),
    ErrorCode.BAD_REPLY: (502, ErrorType.ROUTER_RUNTIME),
    ErrorCode.UNAVAILABLE: (503, ErrorType.INTERNAL_GATEWAY),
    ErrorCode.OVERLOADED: (503, ErrorType.RATE_LIMIT),
    ErrorCode.ACCESS_UNAVAILABLE: (503, ErrorType.AUTH_GATEWAY),
    ErrorCode.TIMEOUT: (504, ErrorType.ROUTER_RUNTIME),
    ErrorCode.OUTCOME_UNKNOWN: (504, ErrorType.INTERNAL_GATEWAY),
}

ROUTER_CODES: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_request": (400, "invalid_request"),
    "unauthorized": (401, "unauthorized"),
    "denied": (403, "denied"),
    "validator_blocked": (403, "denied"),
    "policy_not_found": (404, "policy_not_found"),
    "extension_not_found": (404, "extension_not_found"),
    "decision_failed": (500, "decision_failed"),
    "post_processor_failed": (500, "post_processor_failed"),
    "extension_error": (500, "extension_error"),
    "internal": (500, "internal"),
    "extension_unavailable": (503, "unavailable"),
    "extension_timeout": (504, "timeout"),
}
"""The Router's codes → our status and code (wire contract). Anything else is 502 ``bad_reply``."""

RETRY_AFTER_SECONDS: Final = 1
_RETRIABLE: Final = frozenset({503, 504})
_CHALLENGE: Final = 'Beamline realm="beamline-router"'
_INTAKE_CODES: Final = frozenset({"invalid_request", "unauthorized"})


class GatewayError(Exception):
    """Ends the request with the contract's error body. ``message`` is a sentence for the client."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        error_type: ErrorType | None = None,
        intake_error_code: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        if status is None or error_type is None:
            default_status, default_type = STATUS[ErrorCode(code)]
            status = status if status is not None else default_status
            error_type = error_type or default_type
        self.code = str(code)
        self.message = message
        self.status = status
        self.error_type = error_type
        self.intake_error_code = intake_error_code
        self.details = dict(details or {})
        self.headers = dict(headers or {})
        if status == 401:  # RFC 9110 wants a challenge, also for a refusal that the Router made
            self.headers.setdefault("WWW-Authenticate", _CHALLENGE)
        if status in _RETRIABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))

    def body(self, context: Mapping[str, str | None]) -> dict[str, Any]:
        """The error body of the contract, with the request's ``context``."""
        return {
            "ok": False,
            "error": {
                "code": self.code,
                "message": self.message,
                "intake_error_code": self.intake_error_code,
                "details": self.details,
            },
            "context": dict(context),
        }


def invalid_request(message: str, **details: Any) -> GatewayError:
    """400: the client's mistake, with a sentence that helps to mend it."""
    return GatewayError(ErrorCode.INVALID_REQUEST, message, details=details)


def denied(message: str) -> GatewayError:
    """403."""
    return GatewayError(ErrorCode.DENIED, message)


def access_unavailable() -> GatewayError:
    """503: it cannot be told who is calling or what they may do, so nobody is let in."""
    return GatewayError(
        ErrorCode.ACCESS_UNAVAILABLE,
        "Keys or roles cannot be looked up now; nothing was done. Trying again is safe.",
    )


def conflict() -> GatewayError:
    """409: the id belongs to another request."""
    return GatewayError(
        ErrorCode.IDEMPOTENCY_CONFLICT,
        "The id was used for another request; nothing was executed. Use a new id, or send the same request.",
    )


def in_progress() -> GatewayError:
    """409: an equal request is still at work."""
    return GatewayError(
        ErrorCode.IN_PROGRESS,
        "An equal request is still at work; send it again to get its outcome.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def from_router(
    code: str, message: str, intake_error_code: str | None, details: Mapping[str, Any]
) -> GatewayError:
    """An error that the Router answered, by the table; an unknown code is a bad reply."""
    if code not in ROUTER_CODES:
        return GatewayError(
            ErrorCode.BAD_REPLY, f"The Router answered with an unknown error code ({code[:64]!r})."
        )
    status, own_code = ROUTER_CODES[code]
    intake = intake_error_code is not None or code in _INTAKE_CODES
    return GatewayError(
        own_code,
        message,
        status=status,
        error_type=ErrorType.ROUTER_INTAKE if intake else ErrorType.ROUTER_RUNTIME,
        intake_error_code=intake_error_code,
        details=details,
    )


def as_answered(status: int, body: Mapping[str, Any]) -> GatewayError:
    """The error behind an error body that was answered before, a kept or shared one of the Router's."""
    error = body["error"]
    code, intake = error["code"], error["intake_error_code"]
    of_intake = intake is not None or code in _INTAKE_CODES
    return GatewayError(
        code,
        error["message"],
        status=status,
        error_type=ErrorType.ROUTER_INTAKE if of_intake else ErrorType.ROUTER_RUNTIME,
        intake_error_code=intake,
        details=error["details"],
    )


def from_bridge(error: BridgeError, *, publishing: bool) -> GatewayError:
    """What the wire's error means to the client; ``publishing``: the effect was a publish, not a call."""
    match error:
        case NotSent(overloaded=True):
            return GatewayError(ErrorCode.OVERLOADED, "The gateway is at its limit; try again.")
        case Unknown() if publishing:
            return GatewayError(
                ErrorCode.OUTCOME_UNKNOWN,
                "The message was sent but not acknowledged in time; it may have been stored."
                " Send the same request again to settle it.",
            )
        case Unknown():
            return GatewayError(ErrorCode.TIMEOUT, "No answer within the request's deadline.")
        case Refused(reason=Refusal.TOO_LARGE):
            return GatewayError(
                ErrorCode.PAYLOAD_TOO_LARGE, "The message is larger than NATS accepts."
            )
        case Refused():
            return GatewayError(
                ErrorCode.BAD_REPLY,
                f"NATS refused the message ({error.reason}); nothing was stored.",
                error_type=ErrorType.INTERNAL_GATEWAY,
            )
        case _:  # NotSent, Closed
            return GatewayError(
                ErrorCode.UNAVAILABLE,
                f"Nothing was sent: {error}. Trying again is safe.",
            )
