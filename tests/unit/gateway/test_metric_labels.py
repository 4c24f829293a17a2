"""Labels stay bounded, whatever comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.metrics.labels import OTHER, SubjectLabel, TenantLabel, method_label

CONFIGURED = ("caf.exec.assign.v1", "caf.exec.result.*.dlq", "beamline.usage.>")


@pytest.mark.parametrize(
    ("subject", "label"),
    [
        ("caf.exec.assign.v1", "caf.exec.assign.v1"),
        ("caf.exec.result.v7.dlq", "caf.exec.result.*.dlq"),
        ("beamline.usage.v1.metered", "beamline.usage.>"),
        ("caf.exec.assign.v1.ack", OTHER),
        ("caf.exec.result.v7.x.dlq", OTHER),
        ("", OTHER),
    ],
)
def test_a_subject_is_told_as_it_was_configured(subject: str, label: str) -> None:
    assert SubjectLabel(CONFIGURED)(subject) == label


@given(st.text())
def test_no_subject_makes_a_label_of_its_own(subject: str) -> None:
    assert SubjectLabel(CONFIGURED)(subject) in {*CONFIGURED, OTHER}


@given(st.text() | st.none())
def test_no_tenant_makes_a_label_of_its_own(tenant: str | None) -> None:
    assert TenantLabel(["acme", "umbrella"])(tenant) in {"acme", "umbrella", OTHER}
    assert TenantLabel([])(tenant) == OTHER


@given(st.text())
def test_no_method_makes_a_label_of_its_own(method: str) -> None:
    assert method_label(method) in {
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER,
    }  # fmt: skip


def test_a_tenant_that_is_named_is_told_apart() -> None:
    label = TenantLabel(["acme"])
    assert (label("acme"), label("acme2"), label("Acme")) == ("acme", OTHER, OTHER)
