"""Each thing that can be wrong with a gateway is found, and told by an exit code of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.devstack.ports import PortReservation
from tests.integration.smoke.conftest import Smoke
from tests.support.smoke_scripted_gateway import Reply, Script, ScriptedGateway

USAGE = "/api/v1/usage"
DECIDE = "/api/v1/routes/decide"
ASSIGNMENTS = "/api/v1/assignments"
RESULTS = "/api/v1/results/"
Change = Callable[[Reply, str, bool], Reply]


def answering(path: str, change: Change) -> Script:
    return Script(replies={path: change})


def always(status: int, document: object) -> Change:
    return lambda _reply, _tenant, _repeat: Reply(status, document)


def on_repeat(change: Callable[[Reply], Reply]) -> Change:
    return lambda reply, _tenant, repeat: change(reply) if repeat else reply


def on_accepted(change: Callable[[Reply], Reply]) -> Change:
    return lambda reply, _tenant, _repeat: change(reply) if reply.status == 202 else reply


def on_the_other_tenant(change: Callable[[Reply], Reply]) -> Change:
    def changed(reply: Reply, tenant: str, _repeat: bool) -> Reply:
        return change(reply) if tenant == "another" and reply.status == 202 else reply

    return changed


def with_seq(seq: int) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, document={**reply.document, "seq": seq})


def without(text: str, pattern: str) -> str:
    """``text`` without the lines in which ``pattern`` is found."""
    return "".join(line for line in text.splitlines(keepends=True) if not re.search(pattern, line))


def lost(name: str) -> Callable[[str], str]:
    return lambda text: without(text, rf"\b{name}")


def renamed(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


ERROR = {"ok": False, "error": {"code": "x", "message": "as scripted"}, "context": {}}

#: what is wrong → the script, its exit code, its name, the check that finds it
WRONG: dict[str, tuple[Script, int, str, str]] = {
    "another service": (
        answering("/livez", always(200, b"<html>It works!</html>")),
        12, "not_a_gateway", "livez",
    ),
    "a redirect to a login page": (
        answering("/livez", always(302, b"")), 12, "not_a_gateway", "livez"
    ),
    "silence": (Script(silent=frozenset({"/livez"})), 11, "gateway_silent", "livez"),
    "a dead loop": (
        answering("/livez", always(503, {"status": "failed"})), 13, "not_live", "livez"
    ),
    "not ready": (
        answering("/readyz", always(503, {"status": "not_ready", "missing": ["NATS: no"], "findings": []})),
        14, "not_ready", "readyz",
    ),
    "readiness that is none": (
        answering("/readyz", always(200, {"status": "?"})), 12, "not_a_gateway", "readyz"
    ),
    "refused credentials": (answering(USAGE, always(401, ERROR)), 15, "unauthorized", "identity"),
    "a role that may not": (answering(USAGE, always(403, ERROR)), 16, "forbidden", "identity"),
    "a rate limit": (answering(USAGE, always(429, ERROR)), 18, "request_failed", "identity"),
    "an error inside": (answering(USAGE, always(500, ERROR)), 18, "request_failed", "identity"),
    "no error body": (answering(USAGE, always(400, {"detail": "no"})), 12, "not_a_gateway", "identity"),
    "no metrics": (Script(metrics_status=404), 20, "metrics_unanswered", "metrics"),
    "metrics that break": (Script(metrics_status=500), 20, "metrics_unanswered", "metrics"),
    "a page for metrics": (
        Script(exposition=lambda _: "<html>\n"), 21, "metrics_unreadable", "metrics"
    ),
    "metrics of another content type": (
        Script(metrics_type="text/html"), 21, "metrics_unreadable", "metrics"
    ),
    "a sample that is no number": (
        Script(exposition=lambda text: text + "beamline_x 1,5\n"), 21, "metrics_unreadable", "metrics"
    ),
    "a sample twice": (
        Script(exposition=lambda text: text + 'y{a="1"} 1\ny{a="1"} 1\n'),
        21, "metrics_unreadable", "metrics",
    ),
    "no OpenMetrics": (
        Script(metrics_type="text/plain; version=0.0.4"), 22, "openmetrics_unreadable", "metrics"
    ),
    "OpenMetrics cut off": (
        Script(openmetrics=renamed("# EOF", "")), 22, "openmetrics_unreadable", "metrics"
    ),
    "a family missing": (
        Script(exposition=lost("beamline_gateway_cp_requests")), 23, "metrics_family_missing", "families"
    ),
    "a histogram missing": (
        Script(exposition=lost("beamline_gateway_cp_latency_seconds")),
        23, "metrics_family_missing", "families",
    ),
    "a family renamed": (
        Script(exposition=renamed("idempotency_hit_total", "idempotency_hits_total")),
        23, "metrics_family_missing", "families",
    ),
    "a label missing": (
        Script(exposition=lambda text: re.sub(r'cp_phase="[^"]*",', "", text)),
        24, "metrics_labels_wrong", "families",
    ),
    "a label renamed": (
        Script(exposition=renamed("key_type=", "kind=")), 24, "metrics_labels_wrong", "families"
    ),
    "a label too many": (
        Script(exposition=renamed("usage_emitted_total{", 'usage_emitted_total{session="s-1",')),
        24, "metrics_labels_wrong", "families",
    ),
    "a counter that is called a gauge": (
        Script(exposition=renamed("publishes_total counter", "publishes_total gauge")),
        25, "metrics_type_wrong", "families",
    ),
    "requests that are not counted": (
        Script(uncounted=frozenset({"beamline_gateway_cp_latency_seconds"})),
        23, "metrics_family_missing", "families",
    ),
    "an event not accepted": (
        answering(USAGE, on_accepted(lambda _: Reply(503, ERROR))), 30, "not_accepted", "once"
    ),
    "an event that does not count": (
        answering(USAGE, on_accepted(lambda reply: replace(reply, document={**reply.document, "emitted": False}))),
        30, "not_accepted", "once",
    ),
    "a receipt without a place": (
        answering(USAGE, on_accepted(lambda reply: replace(reply, document={"ok": True, "emitted": True}))),
        30, "not_accepted", "once",
    ),
    "no replay header": (
        answering(USAGE, on_repeat(lambda reply: replace(reply, headers={}))), 31, "not_replayed", "once"
    ),
    "a repeat refused": (
        answering(USAGE, on_repeat(lambda _: Reply(409, ERROR))), 32, "replay_differs", "once"
    ),
    "a repeat answered otherwise": (
        answering(USAGE, on_repeat(lambda reply: replace(reply, document={**reply.document, "emitted": False}))),
        32, "replay_differs", "once",
    ),
    "an event stored twice": (
        answering(USAGE, on_repeat(with_seq(99))), 33, "stored_twice", "once"
    ),
    "tenants that replay each other": (
        answering(
            USAGE,
            on_the_other_tenant(lambda reply: replace(reply, headers={"Idempotency-Replayed": "true"})),
        ),
        35, "tenants_mixed", "once",
    ),
    "tenants that share a message": (
        answering(USAGE, on_the_other_tenant(with_seq(1))), 35, "tenants_mixed", "once"
    ),
    "a decide refused": (answering(DECIDE, always(503, ERROR)), 60, "decide_failed", "round-trip"),
    "a session lost": (
        answering(DECIDE, on_repeat(lambda reply: replace(reply, headers={"X-Sticky": "miss"}))),
        61, "session_lost", "round-trip",
    ),
    "a session sent elsewhere": (
        answering(
            DECIDE,
            on_repeat(lambda reply: replace(reply, document={"ok": True, "decision": {"provider_id": "b"}})),
        ),
        61, "session_lost", "round-trip",
    ),
    "an assignment refused": (
        answering(ASSIGNMENTS, always(504, ERROR)), 62, "assignment_failed", "round-trip"
    ),
    "no result": (answering(RESULTS, always(404, ERROR)), 63, "result_missing", "round-trip"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_one_thing_wrong_is_found_by_its_check_and_told_by_its_exit_code(
    wrong: str, smoke: Smoke
) -> None:
    script, code, failure, check = WRONG[wrong]
    timeout = ("--timeout", "0.3") if script.silent else ()
    with ScriptedGateway(script) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces", "--round-trip", *timeout)
    assert (ended.code, ended.failures[:1]) == (code, [failure]), ended.document
    assert ended.outcome(check) == "failed"
    assert ended.document["exit_code"] == code and ended.document["ok"] is False
    assert "\n" not in ended.message(check) and ended.message(check).isprintable()


@pytest.mark.parametrize(
    ("counter", "labels", "code", "failure"),
    [
        ("idempotency_hit_total", ("other", "usage_id"), 36, "hits_still"),
        ("idempotency_miss_total", ("other", "usage_id"), 37, "misses_still"),
        ("beamline_gateway_nats_publishes_total", ("a.subject", "ok"), 26, "metrics_still"),
    ],
)
def test_what_was_counted_before_is_not_taken_for_the_checks_own_requests(
    counter: str, labels: tuple[str, ...], code: int, failure: str, smoke: Smoke
) -> None:
    with ScriptedGateway(Script(uncounted=frozenset({counter}))) as gateway:
        gateway.counters[counter].labels(*labels).inc(7)
        ended = smoke("--url", gateway.url, "--without-traces")
    assert (ended.code, ended.failures) == (code, [failure])


def test_a_tenant_with_a_label_of_its_own_is_judged_by_that_alone(smoke: Smoke) -> None:
    """Others move the common label meanwhile; that says nothing about this tenant."""
    with ScriptedGateway(Script()) as gateway:
        gateway.counters["idempotency_miss_total"].labels("one", "usage_id").inc(0)
        ended = smoke("--url", gateway.url, "--without-traces")
    assert (ended.code, ended.failures) == (37, ["misses_still"])
    assert 'tenant="one"' in ended.message("counters")


def test_a_gateway_with_nothing_wrong_passes_every_check_that_can_be_made(smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces", "--round-trip")
    assert (ended.code, ended.failures) == (0, [])
    outcomes = {check["check"]: check["outcome"] for check in ended.document["checks"]}
    assert outcomes.pop("stream") == "not_checked"
    assert set(outcomes.values()) == {"passed"}


def test_what_cannot_be_checked_fails_with_strict_and_is_named(smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces", "--round-trip", "--strict")
    assert (ended.code, ended.failures) == (9, [])
    assert "NATS_URL" in ended.message("stream")


def test_without_a_second_tenant_the_repeat_alone_is_judged(smoke: Smoke) -> None:
    mixed = on_the_other_tenant(with_seq(1))
    with ScriptedGateway(answering(USAGE, mixed)) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces", BEAMLINE_TENANT_KEY=None)
    assert ended.code == 0, ended.document
    assert ended.message("identity") == "tenant one"


def test_two_keys_of_one_tenant_are_told(smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke(
            "--url", gateway.url, "--without-traces", BEAMLINE_TENANT_KEY="key-of-one-tenant"
        )
    assert (ended.code, ended.failures) == (17, ["same_tenant"])


def test_several_things_wrong_are_all_told_and_the_first_gives_the_code(smoke: Smoke) -> None:
    script = replace(
        answering(DECIDE, always(503, ERROR)), uncounted=frozenset({"idempotency_hit_total"})
    )
    with ScriptedGateway(script) as gateway:
        gateway.counters["idempotency_hit_total"].labels("other", "usage_id").inc(1)
        ended = smoke("--url", gateway.url, "--without-traces", "--round-trip")
    assert ended.failures == ["decide_failed", "hits_still"]
    assert ended.code == 60


def test_what_rests_on_a_failed_check_is_not_made_and_says_on_which(smoke: Smoke) -> None:
    with ScriptedGateway(answering("/readyz", always(503, {"status": "not_ready"}))) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces")
    assert (ended.code, ended.failures) == (14, ["not_ready"])
    assert ended.outcome("metrics") == "passed"
    assert ended.outcome("once") == "not_checked" and "identity" in ended.message("once")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no-such-host.invalid:8080"])
def test_where_nobody_listens_that_is_told(url: str, smoke: Smoke) -> None:
    with PortReservation() as free:
        ended = smoke("--url", url.format(port=free.port), "--without-traces")
    assert (ended.code, ended.failures) == (10, ["gateway_unreachable"])


def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_not_there(smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke("--url", gateway.url.replace("http", "https"), "--without-traces")
    assert (ended.code, ended.failures) == (10, ["gateway_unreachable"])
    assert "TLS" in ended.message("livez")


def test_a_credential_is_never_printed(smoke: Smoke) -> None:
    with ScriptedGateway(answering(USAGE, always(401, ERROR))) as gateway:
        ended = smoke("--url", gateway.url, "--without-traces", BEAMLINE_KEY="blk_secret_canary")
    assert ended.code == 15
    assert "canary" not in str(ended.document)
