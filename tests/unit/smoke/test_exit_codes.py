"""Exit codes are contract: one for each failure, documented, and never another number."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.smoke.failures import BROKEN, NOT_CHECKED, PASSED, Failure

DOCUMENT = (Path(__file__).parents[3] / "docs" / "SMOKE.md").read_text(encoding="utf-8")
_CLICKS = 2

#: As released. A line is added for a new failure; none is changed.
RELEASED = {
    10: "gateway_unreachable",
    11: "gateway_silent",
    12: "not_a_gateway",
    13: "not_live",
    14: "not_ready",
    15: "unauthorized",
    16: "forbidden",
    17: "same_tenant",
    18: "request_failed",
    20: "metrics_unanswered",
    21: "metrics_unreadable",
    22: "openmetrics_unreadable",
    23: "metrics_family_missing",
    24: "metrics_labels_wrong",
    25: "metrics_type_wrong",
    26: "metrics_still",
    30: "not_accepted",
    31: "not_replayed",
    32: "replay_differs",
    33: "stored_twice",
    34: "not_stored",
    35: "tenants_mixed",
    36: "hits_still",
    37: "misses_still",
    38: "nats_unavailable",
    40: "otlp_address",
    41: "traces_none",
    42: "traces_wrong_protocol",
    43: "trace_missing",
    44: "span_missing",
    45: "span_attributes",
    46: "span_parent",
    47: "span_leaks",
    50: "collector_missing",
    51: "collector_refused",
    52: "collector_wrong_protocol",
    53: "collector_silent",
    54: "collector_error",
    55: "collector_settings",
    60: "decide_failed",
    61: "session_lost",
    62: "assignment_failed",
    63: "result_missing",
    70: "devstack",
}


def test_a_number_keeps_its_meaning() -> None:
    assert {failure.exit_code: failure.slug for failure in Failure} == RELEASED


def test_each_failure_has_a_number_of_its_own() -> None:
    codes = [PASSED, BROKEN, _CLICKS, NOT_CHECKED, *(failure.exit_code for failure in Failure)]
    assert len(set(codes)) == len(codes)
    # Shells use the numbers above for signals and for commands that cannot be run.
    assert all(0 <= code < 126 for code in codes)


def test_the_document_has_a_row_for_each_failure_in_the_words_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (.+) \|$", DOCUMENT, re.MULTILINE)
    declared = [(str(f.exit_code), f.slug, f.meaning, f.remedy) for f in Failure]
    assert rows == declared


def test_the_document_names_the_other_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| [^`|]", DOCUMENT, re.MULTILINE)
    assert [int(code) for code in rows] == [PASSED, BROKEN, _CLICKS, NOT_CHECKED]
