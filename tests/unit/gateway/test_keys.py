"""Keys: two requests share one exactly when tenant, type and id are the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.idempotency import KeyType, mark_http_id, usage_pair

# Characters out of which signatures are made, so that hypothesis finds every confusable pair.
texts = st.text(st.sampled_from("ab-:,.0123456789é"), max_size=12) | st.text(max_size=12)
ids = st.tuples(texts, st.sampled_from(list(KeyType)), texts)
PLAIN = re.compile(r"[-/_=.a-zA-Z0-9]+")
"""What a bucket's key and a subject's token may hold."""


@hypothesis_settings(deadline=None, max_examples=500)
@given(ids, ids)
def test_different_tenant_type_or_id_never_share_a_signature_or_a_record(
    one: tuple[str, KeyType, str], other: tuple[str, KeyType, str]
) -> None:
    first, second = mark_http_id(*one), mark_http_id(*other)
    assert (first.signature == second.signature) == (one == other)
    assert (first.record_key("acks") == second.record_key("acks")) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a-b", "c"), ("a", "b-c")),
        (("a", "1:b,"), ("a1:", "b,")),
        (("a", ""), ("", "a")),
        (("a,13:ack_id", "b"), ("a", "13:ack_id,b")),
    ],
)
def test_no_separator_inside_a_part_confuses_two_keys(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    first, second = (mark_http_id(tenant, KeyType.ACK_ID, id) for tenant, id in (one, other))
    assert first.signature != second.signature


@hypothesis_settings(deadline=None)
@given(ids, texts, texts)
def test_each_operation_has_a_record_of_its_own(
    given_id: tuple[str, KeyType, str], one: str, other: str
) -> None:
    assume(one != other)
    key = mark_http_id(*given_id)
    assert key.record_key(one) != key.record_key(other)


@hypothesis_settings(deadline=None)
@given(ids)
def test_what_leaves_for_nats_is_a_hash_in_its_alphabet(
    given_id: tuple[str, KeyType, str],
) -> None:
    assert PLAIN.fullmatch(mark_http_id(*given_id).record_key("decide"))
    assert PLAIN.fullmatch(usage_pair(given_id[0], assignment_id=given_id[2], request_id=None))


def test_a_key_is_the_same_in_every_process() -> None:
    """It outlives a deployment: two versions of the gateway must agree."""
    key = mark_http_id("acme", KeyType.ASSIGNMENT_ID, "a-1")
    assert key.signature == "4:acme,13:assignment_id,3:a-1,"
    assert key.record_key("assignments") == "4e4c3e15991e5afe73986e62f0aeecd388c85fc9"


@hypothesis_settings(deadline=None, max_examples=300)
@given(texts, texts, texts, texts)
def test_usage_pairs_differ_by_kind_tenant_and_id(
    tenant: str, id: str, other_tenant: str, other_id: str
) -> None:
    by_assignment = usage_pair(tenant, assignment_id=id, request_id=None)
    assert by_assignment != usage_pair(tenant, assignment_id=None, request_id=id)
    other = usage_pair(other_tenant, assignment_id=other_id, request_id=None)
    assert (by_assignment == other) == ((tenant, id) == (other_tenant, other_id))


def test_usage_that_names_both_ids_goes_by_the_assignment() -> None:
    both = usage_pair("acme", assignment_id="a-1", request_id="r-1")
    assert both == usage_pair("acme", assignment_id="a-1", request_id=None)


def test_usage_of_nothing_has_no_pair() -> None:
    with pytest.raises(ValueError, match="assignment_id or a request_id"):
        usage_pair("acme", assignment_id=None, request_id=None)
