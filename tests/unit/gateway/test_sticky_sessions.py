"""Which session a decide belongs to, and what its request asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import json
from gateway.operations.decide import Question, question
from gateway.sticky import Binding, session_key
from tests.unit.gateway.given import context

TENANTS = st.text("abc-_.:0123456789,", min_size=1, max_size=12)
FIELDS = st.sampled_from(["session_id", "session", "id", "user_id", "a", "b"])
VALUES = st.text("abc-_.:0123456789,", min_size=1, max_size=12)
REQUEST = {"task": {"type": "chat", "payload": {"text": "hello there"}}}


def key(value: Any, *, tenant: str = "acme", field: str = "session_id") -> str | None:
    return session_key(tenant, field, {field: value})


def ask(request: dict[str, Any]) -> Question:
    return question({**REQUEST, **request}, context(), subject="decide", session_field="session_id")


@given(st.tuples(TENANTS, FIELDS, VALUES), st.tuples(TENANTS, FIELDS, VALUES))
def test_keys_are_equal_only_for_equal_tenant_field_and_value(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    keys = [session_key(tenant, field, {field: value}) for tenant, field, value in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_parts_cannot_run_into_each_other() -> None:
    assert key("c", tenant="a-b") != key("b-c", tenant="a")
    assert session_key("a", "b", {"b": "c"}) != session_key("a", "bc", {"bc": ""})
    assert session_key("a", "b", {"b": "1:c"}) != session_key("a", "b1", {"b1": ":c"})


def test_whole_number_is_the_session_that_its_digits_name() -> None:
    assert key(7) == key("7")
    assert key(-7) == key("-7") != key(7)
    assert key(2**63) == key(str(2**63))


@pytest.mark.parametrize(
    "value", ["", None, True, False, 1.0, 1.5, [], ["s"], {}, {"id": "s"}, "s" * 513]
)
def test_everything_else_names_no_session(value: Any) -> None:
    assert key(value) is None


@pytest.mark.parametrize(
    "value", ["s", "s" * 512, " ", "Sitzung: ümläut ✓", "a\x00b", "*", ">", "a.b"]
)
def test_any_text_of_up_to_512_characters_names_one(value: str) -> None:
    found = key(value)
    assert found is not None and found.isalnum()


def test_only_the_configured_field_counts() -> None:
    assert session_key("acme", "session_id", {"session": "s", "Session_id": "s"}) is None
    assert session_key("acme", "conversation", {"session_id": "s"}) is None
    assert session_key("acme", "session_id", {}) is None


# -- the question ----------------------------------------------------------------------------------------


def test_request_with_a_session_has_its_key_and_asks_freely_at_first() -> None:
    asked = ask({"context": {"session_id": "s"}})
    assert asked.session == key("s")
    assert "metadata" not in json.loads(asked.outgoing.payload)


def test_preference_is_added_to_what_the_client_gave_and_changes_nothing_else() -> None:
    request = {"context": {"session_id": "s"}, "metadata": {"channel": "web"}}
    asked = ask(request)
    free, preferring = asked.outgoing, asked.preferring("p-1")
    document = json.loads(preferring.payload)
    assert document["metadata"] == {"channel": "web", "preferred_provider_id": "p-1"}
    assert {**document, "metadata": {"channel": "web"}} == json.loads(free.payload)
    assert (preferring.subject, preferring.headers) == (free.subject, free.headers)
    assert request["metadata"] == {"channel": "web"}


@pytest.mark.parametrize("own", ["p-9", "", None])
def test_clients_own_preference_takes_the_request_out_of_its_session(own: Any) -> None:
    asked = ask({"context": {"session_id": "s"}, "metadata": {"preferred_provider_id": own}})
    assert asked.session is None
    assert json.loads(asked.outgoing.payload)["metadata"] == {"preferred_provider_id": own}


# -- what is stored --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [None, "openai:gpt-4o"])
def test_binding_is_read_as_it_was_written(provider: str | None) -> None:
    binding = Binding(provider, 3, "best_score", "c1")
    assert Binding.decode(binding.encode()) == binding


@given(st.binary() | st.text().map(str.encode))
def test_bytes_that_are_no_binding_are_none_and_raise_nothing(value: bytes) -> None:
    Binding.decode(value)


@given(
    st.dictionaries(
        st.sampled_from(["provider", "generation", "reason", "claim"]),
        st.none() | st.booleans() | st.integers(-5, 5) | st.text() | st.lists(st.none()),
    )
)
def test_whatever_is_decoded_names_a_provider_or_none_and_can_be_counted_up(
    stored: dict[str, Any],
) -> None:
    binding = Binding.decode(json.dumps(stored))
    if binding is not None:
        assert binding.provider is None or f"{binding.provider:s}" != ""
        assert binding.generation + 1 > binding.generation
