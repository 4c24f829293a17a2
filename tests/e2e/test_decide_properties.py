"""Whatever a client may say, the strict Router accepts: hypothesis makes valid decides in both dialects."""

from __future__ import annotations

import json
import string
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.documents import DECIDE
from tests.support.http_client import Client, as_tenant
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import DECIDE_SUBJECT
from tests.support.stacks import Running
from tests.support.wire import check_correlation, check_decide, check_headers

EXAMPLES = 150

# The limits of the wire contract.
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
NAME = string.ascii_letters + string.digits + "_.:-"

# JSON as the gateway and the Router both hold it: doubles, integers that doubles hold exactly.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
free_objects = st.dictionaries(texts, values, max_size=5)

# Made different from all others by a suffix: the same id again would be the same operation again.
ids = st.text(PRINTABLE, max_size=90).map(lambda text: f"{text}{uuid.uuid4().hex}")
tenants = st.text(NAME, min_size=1, max_size=64)
# The reference Router answers some policies with errors on demand; none begins like this.
policies = st.text(NAME, max_size=120).map(lambda text: f"policy-{text}")
uuid4s = st.uuids(version=4).map(str)
trace_ids = uuid4s | st.uuids(version=4).map(lambda one: one.hex)
_FIRST, _REST = "01234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ulids = st.builds(
    lambda first, rest: first + rest,
    st.sampled_from(_FIRST),
    st.text(_REST, min_size=25, max_size=25),
)
run_ids = uuid4s | ulids


@st.composite
def tasks(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A type and a payload of at least ten encoded bytes, of the type's shape if it has one."""
    kind = draw(st.sampled_from(["chat", "completion", "embedding", "other"]))
    long_enough = texts.map(lambda text: text + "0123456789")
    if kind == "chat":
        payload: dict[str, Any] = {"text": draw(long_enough)}
        payload |= draw(
            optional({"role": st.sampled_from(["user", "system"]), "metadata": free_objects})
        )
    elif kind == "completion":
        payload = {"prompt": draw(long_enough)}
        payload |= draw(
            optional({"max_tokens": st.integers(1, 10**6), "temperature": st.floats(0, 2)})
        )
    elif kind == "embedding":
        payload = {"input": draw(long_enough | st.lists(long_enough, min_size=1, max_size=4))}
        payload |= draw(optional({"metadata": free_objects}))
    else:
        kind = draw(st.text(string.ascii_lowercase + "-_.", min_size=1, max_size=20)) + "-x"
        payload = draw(free_objects) | {"padding": "0123456789"}
    return kind, payload


def optional(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any subset of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def decides(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A tenant and a DecideRequest as its client may send it."""
    tenant = draw(tenants)
    kind, payload = draw(tasks())
    by_reference = draw(st.booleans()) and kind.endswith("-x")
    task = {"type": kind} | (
        {"payload_ref": "s3://bucket/key"} if by_reference else {"payload": payload}
    )
    body: dict[str, Any] = {"version": "1", "task": task}
    body |= draw(
        optional(
            {
                "tenant_id": st.just(tenant),
                "request_id": ids,
                "trace_id": trace_ids,
                "policy_id": policies,
                "constraints": free_objects,
                "metadata": free_objects,
                "push_assignment": st.just(False),
                "context": free_objects,
                "idempotency_key": ids,
            }
        )
    )
    if "idempotency_key" not in body:
        body |= draw(optional({"assignment_id": ids}))
    if draw(st.booleans()):
        body |= {name: draw(run_ids) for name in ("run_id", "flow_id", "step_id")}
    return tenant, body


@st.composite
def envelopes(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A tenant and a request in the older dialect."""
    tenant = draw(tenants)
    kind, payload = draw(tasks())
    message: dict[str, Any] = {
        "message_id": draw(ids),
        "tenant_id": tenant,
        "message_type": kind,
        "payload": json.dumps(payload, ensure_ascii=draw(st.booleans())),
    }
    message |= draw(optional({"trace_id": trace_ids, "metadata": free_objects}))
    return tenant, {"message": message} | draw(
        optional({"policy_id": policies, "context": free_objects})
    )


@pytest.fixture(scope="module")
def open_tap(stack: Running) -> Iterator[NatsTap]:
    with NatsTap(stack.nats.url, (DECIDE_SUBJECT,)) as tap:
        yield tap


@pytest.fixture(scope="module")
def open_client(stack: Running) -> Iterator[Client]:
    with stack.gateway.client() as client:
        yield client


unhurried = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)


def sent(client: Client, tap: NatsTap, tenant: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send it, check answer and wire by the contract, and give what stood on the wire."""
    tap.clear()
    answer = client.post(DECIDE, body, as_tenant(tenant))
    assert answer.status == 200, answer
    context = answer.json()["context"]
    check_correlation(answer, context)
    (message,) = tap.wait_for(1)
    document: dict[str, Any] = message.json()
    check_headers(message.headers, tenant=tenant)
    check_decide(document, message.headers)
    assert document["request_id"] == context["request_id"]
    assert document["tenant_id"] == tenant
    return document


@unhurried
@given(decides())
def test_strict_router_accepts_every_valid_decide(
    open_client: Client, open_tap: NatsTap, made: tuple[str, dict[str, Any]]
) -> None:
    tenant, body = made
    document = sent(open_client, open_tap, tenant, body)
    expected = dict(body)
    if "trace_id" in expected:
        expected["trace_id"] = expected["trace_id"].replace("-", "")
    assert without_made(document, expected) == expected


@unhurried
@given(envelopes())
def test_strict_router_accepts_every_valid_older_envelope(
    open_client: Client, open_tap: NatsTap, made: tuple[str, dict[str, Any]]
) -> None:
    tenant, body = made
    document = sent(open_client, open_tap, tenant, body)
    message = body["message"]
    expected: dict[str, Any] = {
        "request_id": message["message_id"],
        "task": {"type": message["message_type"], "payload": json.loads(message["payload"])},
        **{name: body[name] for name in ("policy_id", "context") if name in body},
    }
    if "metadata" in message:
        expected["metadata"] = message["metadata"]
    if "trace_id" in message:
        expected["trace_id"] = message["trace_id"].replace("-", "")
    assert without_made(document, expected) == expected


def without_made(document: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The wire's document without what the gateway adds to every request."""
    made = {"version", "tenant_id", "request_id", "trace_id"} - set(expected)
    return {name: value for name, value in document.items() if name not in made}
