"""Records and fingerprints: what is stored comes back equal, and tells a repeat from another request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge import Unknown
from gateway.errors import GatewayError
from gateway.idempotency import Outcome, Record, State, fingerprint

# What orjson reads and writes as the same value.
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(texts, values, max_size=4)
records = st.builds(
    Record,
    claim_id=texts,
    fingerprint=texts,
    state=st.sampled_from(State),
    request_id=texts,
    trace_id=texts,
    cp_phase=texts,
    first_seen=st.none() | st.floats(0, 2**33),
    outcome=st.none() | st.builds(Outcome, status=st.integers(200, 599), body=bodies),
)


@hypothesis_settings(deadline=None)
@given(records)
def test_record_comes_back_as_it_was_written(record: Record) -> None:
    assert Record.decode(record.encode()) == record


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"null", b"[]", b'"text"', b"{}", b'{"claim": 1, "state": "claimed"}', b"\xff"],
)
def test_what_is_no_record_is_an_unknown_outcome(value: bytes) -> None:
    with pytest.raises(Unknown):
        Record.decode(value)


@pytest.mark.parametrize("state", State)
def test_only_an_id_that_was_given_back_is_free_for_another_request(state: State) -> None:
    def made(fingerprint: str, state: State = State.CLAIMED) -> Record:
        return Record(
            claim_id="c",
            fingerprint=fingerprint,
            state=state,
            request_id="r",
            trace_id="t",
            cp_phase="cp2",
        )

    held = made("one", state)
    assert held.holds_id_against(made("other")) == (state is not State.RELEASED)
    assert not held.holds_id_against(made("one"))


# -- fingerprints --------------------------------------------------------------------------------------


def reordered(value: Any) -> Any:
    """The same value, the fields of every object the other way round."""
    if isinstance(value, dict):
        return {name: reordered(inner) for name, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@hypothesis_settings(deadline=None)
@given(bodies)
def test_order_of_fields_does_not_matter(body: dict[str, Any]) -> None:
    assert fingerprint(reordered(body)) == fingerprint(body)


@hypothesis_settings(deadline=None)
@given(bodies, texts, values)
def test_every_other_content_has_another_fingerprint(
    body: dict[str, Any], name: str, value: Any
) -> None:
    more = {**body, name: [value]}
    if more != body:
        assert fingerprint(more) != fingerprint(body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
        ({"a": ["b", "c"]}, {"a": ["c", "b"]}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
    ],
)
def test_values_that_are_nearly_the_same_are_not(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_request_that_is_nested_too_deeply_is_the_clients_mistake() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    with pytest.raises(GatewayError) as refused:
        fingerprint(deep)
    assert refused.value.status == 400
