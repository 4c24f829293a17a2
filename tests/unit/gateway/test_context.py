"""RequestContext: ids in the form of the wire, phases out of a closed list."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.context import (
    cp_phase_of,
    new_request_id,
    new_trace_id,
    normal_trace_id,
)
from gateway.devstack.contract.correlation import plain_trace_id
from tests.unit.gateway.given import TRACE, context

HEX = "4bf92f3577b34da6a3ce929d0e0e4736"
AS_UUID = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


@pytest.mark.parametrize("text", [HEX, HEX.upper(), AS_UUID, AS_UUID.upper()])
def test_hex_and_uuid_of_either_case_are_one_trace_id(text: str) -> None:
    assert normal_trace_id(text) == HEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX[:-1],
        HEX + "0",
        HEX + "\n",
        " " + HEX,
        "g" * 32,
        "0" * 32,
        f"00-{HEX}-00f067aa0ba902b7-01",
        str(uuid.UUID(AS_UUID)).replace("-", "", 1),
        "{" + AS_UUID + "}",
        "urn:uuid:" + AS_UUID,
        AS_UUID.replace("-4", "-1"),
        AS_UUID.replace("-a3", "-c3"),
        "٤" * 32,
    ],
)
def test_anything_else_is_no_trace_id(text: str) -> None:
    assert normal_trace_id(text) is None


@hypothesis_settings(deadline=None)
@given(
    st.text(max_size=40)
    | st.from_regex(r"\A[0-9a-fA-F-]{30,38}\Z")
    | st.uuids(allow_nil=True).map(str)
)
def test_gateway_and_router_read_a_trace_id_alike(text: str) -> None:
    assert normal_trace_id(text) == plain_trace_id(text)


def test_made_up_ids_are_valid_and_new_each_time() -> None:
    assert re.fullmatch("[0-9a-f]{32}", new_trace_id())
    assert uuid.UUID(new_request_id()).version == 4
    assert new_trace_id() != new_trace_id() and new_request_id() != new_request_id()


@pytest.mark.parametrize("number", range(9))
def test_a_known_phase_is_taken_in_any_case(number: int) -> None:
    assert cp_phase_of(f" CP{number} ", "cp2") == f"cp{number}"


def test_no_phase_is_the_default_one() -> None:
    assert cp_phase_of(None, "cp2") == "cp2"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "cp9",
        "cp10",
        "cp-1",
        "cp2,cp3",
        "cp 2",
        "cp²",
        "ｃｐ２",
        "cp٢",
        "cp2\x00",
        "a" * 10_000,
        '"}\n# HELP x',
        "unknown",
    ],
)
def test_a_phase_that_somebody_made_up_is_unknown(header: str) -> None:
    assert cp_phase_of(header, "cp2") == "unknown"


@hypothesis_settings(deadline=None)
@given(st.text())
def test_no_phase_leaves_the_closed_list(header: str) -> None:
    assert cp_phase_of(header, "cp2") in {*(f"cp{n}" for n in range(9)), "unknown"}


# -- whose ids count ---------------------------------------------------------------------------------

OTHER = "a" * 32


def test_the_bodys_request_id_wins() -> None:
    assert context().with_body_ids(request_id="r-2", trace_id=None).request_id == "r-2"


def test_the_bodys_trace_id_wins_unless_a_header_named_one() -> None:
    assert context().with_body_ids(request_id=None, trace_id=OTHER).trace_id == OTHER
    named = context(trace_id_given=True)
    assert named.with_body_ids(request_id=None, trace_id=OTHER).trace_id == TRACE


def test_ids_that_the_body_has_not_stay_as_they_were() -> None:
    same = context().with_body_ids(request_id=None, trace_id=None)
    assert (same.request_id, same.trace_id) == ("request-1", TRACE)


def test_the_tenant_of_nobody_is_never_guessed() -> None:
    nobody = context(principal=None)
    assert nobody.tenant_id is None
    with pytest.raises(RuntimeError):
        _ = nobody.tenant


def test_a_body_that_came_slowly_leaves_the_whole_time_for_the_work() -> None:
    late = context(deadline=0.0)
    assert late.with_deadline_from_now().deadline > late.deadline + late.timeout_seconds
