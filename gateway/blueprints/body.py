"""Bodies: read once, parsed once, validated once; every mistake a sentence that names the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from flask import Request, g, request
from gunicorn.http.errors import ParseException
from marshmallow import Schema, ValidationError
from marshmallow.exceptions import SCHEMA
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from gateway import context as ctx
from gateway import json, server
from gateway.arrival import TooSlow
from gateway.errors import ErrorCode, GatewayError, denied, invalid_request
from gateway.runtime import context, runtime
from gateway.schemas.base import UNKNOWN_FIELD

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_MOST_FIELDS_NAMED: Final = 20


class _Parser(FlaskParser):
    """webargs, with the contract's statuses: 415 for another type, 400 for everything else."""

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The parsed body."""
        return _read_json(req)

    def handle_error(self, error: ValidationError, *args: Any, **kwargs: Any) -> NoReturn:
        """One sentence, and all wrong fields in the details."""
        sentence, fields = sentence_of(error)
        raise invalid_request(sentence, fields=fields)


_PARSER: Final = _Parser()


def load(
    schema: Schema, *, id_field: str | None = None, id_required: bool = True
) -> dict[str, Any]:
    """The validated body of the request at work, without the version and tenant that it repeats.

    ``id_field`` makes the request idempotent; the header ``Idempotency-Key`` is another spelling of it. The deadline
    of the context starts when the body has arrived: a slowly sent one does not eat the time of the work.
    """
    data: dict[str, Any] = _PARSER.parse(schema, request, location="json")
    drop_repeated(data)
    if id_field is not None:
        _take_id(data, id_field)
        if id_required and id_field not in data:
            problem = "is required, in the body or as the header Idempotency-Key"
            raise invalid_request(f"{id_field} {problem}.", fields={str(id_field): problem})
    return data


def drop_repeated(data: dict[str, Any]) -> None:
    """Take out what a request may repeat or leave out and mean the same: the wire's version, the caller's tenant.

    Raises GatewayError 403 when the tenant is not the caller's own.
    """
    data.pop("version", None)
    if data.pop("tenant_id", context().tenant) != context().tenant:
        raise denied("The body names a tenant that is not the caller's.")


def sentence_of(error: ValidationError) -> tuple[str, dict[str, str]]:
    """The first problem as a sentence, and all wrong fields (dotted paths) with theirs."""
    messages = error.messages
    if isinstance(messages, dict) and isinstance(messages.get("json"), dict):
        messages = messages["json"]  # webargs' own level, no part of a field's name
    wrong = dict(list(_sentences(messages))[:_MOST_FIELDS_NAMED])
    field, problem = next(iter(wrong.items()))
    return (f"{field} {problem}." if field else f"The body {problem}."), wrong


def take_ids(data: dict[str, Any], *, request_id: bool) -> None:
    """Move the body's own ids into the context: its trace id and, if ``request_id``, its request id."""
    trace_id = data.pop("trace_id", None) or data.pop("correlation", {}).get("trace_id")
    g.context = context().with_body_ids(
        request_id=data.pop("request_id", None) if request_id else None,
        trace_id=ctx.normal_trace_id(trace_id) if trace_id else None,
    )


def _take_id(data: dict[str, Any], id_field: str) -> None:
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return
    if not ctx.ID_PATTERN.fullmatch(header):
        raise invalid_request(
            "Idempotency-Key must be 1 to 128 printable ASCII characters without blanks."
        )
    # The plain name: orjson takes no subclass of str, such as KeyType, as a key.
    if data.setdefault(str(id_field), header) != header:
        raise invalid_request(f"Idempotency-Key and {id_field} differ; give one, or the same.")


def _read_json(req: Request) -> Any:
    params = req.mimetype_params
    if (
        req.mimetype != "application/json"
        or params.get("charset", "utf-8").lower() not in _CHARSETS
    ):
        raise GatewayError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "The body must be JSON: Content-Type: application/json.",
        )
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise GatewayError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.")
    most = runtime().settings.body_max_bytes
    # Werkzeug cuts a chunked body off at its limit without a word: the limit is a byte more than is allowed, so
    # that a cut one shows.
    req.max_content_length = most + 1
    try:
        if (req.content_length or 0) > most:
            raise RequestEntityTooLarge
        data = req.get_data(cache=False)
        if len(data) > most:
            raise RequestEntityTooLarge
    except RequestEntityTooLarge:
        raise GatewayError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"The body is larger than {most} bytes."
        ) from None
    except TooSlow as error:
        server.close_after_answer()
        raise GatewayError(ErrorCode.INVALID_REQUEST, f"{error}.", status=408) from None
    except (ClientDisconnected, ParseException, OSError):
        raise invalid_request("The body ended early or is not properly chunked.") from None
    g.body_is_read = True
    g.context = context().with_deadline_from_now()
    if not data:
        raise invalid_request("The body is empty; a JSON object is expected.")
    try:
        return json.loads(data)
    except json.Unreadable as error:
        raise invalid_request(f"The body is not valid JSON: {error}.") from None


def _sentences(messages: Any, *path: str) -> Iterator[tuple[str, str]]:
    """Marshmallow's nested messages as (dotted field, problem); "" is the body as a whole."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            # The key of what concerns the object as a whole; unless a client made up a field of that name.
            whole = name == SCHEMA and inner != [UNKNOWN_FIELD]
            yield from _sentences(inner, *path, *(() if whole else (str(name),)))
    else:
        yield ".".join(path), str(messages[0] if isinstance(messages, list) else messages)
