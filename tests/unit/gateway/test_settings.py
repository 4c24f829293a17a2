"""Settings: what is declared is what the contract names, and a wrong environment is told in one go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.cli import main
from gateway.environment import Variable
from gateway.operator.bus import CONFIGURATION_ERROR
from gateway.settings import Settings, SettingsError, variables
from tests.unit.gateway.given import settings

NAMED_DEFAULTS = {
    "GATEWAY_BIND": "127.0.0.1:8080",
    "WEB_CONCURRENCY": "2",
    "GATEWAY_DEFAULT_CP_PHASE": "cp2",
    "GATEWAY_BODY_MAX_BYTES": str(1024 * 1024),
    "GATEWAY_GRACEFUL_TIMEOUT_MS": "15000",
    "GATEWAY_TENANT_ALLOWLIST": "",
    "GATEWAY_POLICY_ALLOWLIST": "",
    "METRICS_TENANT_LABEL_ALLOWLIST": "",
    "NATS_URL": "nats://127.0.0.1:4222",
    "NATS_REPLICAS": "1",
    "NATS_MAX_DELIVER": "5",
    "NATS_ACK_WAIT_MS": "30000",
    "NATS_BACKOFF_MS": "1000,2000,4000",
    "ROUTER_DECIDE_SUBJECT": "beamline.router.v1.decide",
    "CAF_ASSIGNMENT_SUBJECT": "caf.exec.assign.v1",
    "CAF_RESULT_SUBJECT": "caf.exec.result.v1",
    "USAGE_SUBJECT": "beamline.usage.v1.metered",
    "ROUTER_REQUEST_TIMEOUT_MS": "5000",
    "IDEMPOTENCY_TTL_MS": "300000",
    "USAGE_DEDUPE_WINDOW_MS": str(24 * 3600 * 1000),
    "USAGE_ACCEPT_LATE": "false",
    "OTEL_EXPORTER_OTLP_ENDPOINT": None,
}
"""The names and defaults that the design and the wire contract give."""

SECRET = "sw0rdf1sh"


def problems(**environ: str) -> list[str]:
    """The lines that the environment is refused with."""
    with pytest.raises(SettingsError) as caught:
        settings(**environ)
    return caught.value.problems


@pytest.mark.parametrize("name", NAMED_DEFAULTS)
def test_a_variable_has_the_default_that_the_contract_names(name: str) -> None:
    declared = {variable.name: variable.default for variable in variables()}
    assert declared[name] == NAMED_DEFAULTS[name]


@pytest.mark.parametrize("variable", variables(), ids=lambda v: v.name)
def test_a_default_means_the_same_as_setting_it(variable: Variable) -> None:
    name, default = variable.name, variable.default
    if default is not None and name not in ("AUTH_MODE", "TRUSTED_PROXIES"):
        assert settings(**{name: default}) == settings()


def test_names_and_aliases_are_declared_once() -> None:
    names = [v.name for v in variables()] + [v.alias for v in variables() if v.alias]
    assert len(names) == len(set(names))


def test_what_is_set_is_parsed_into_its_type() -> None:
    made = settings(
        NATS_URL="nats://a:4222, tls://b:4222",
        NATS_BACKOFF_MS="5, 10",
        USAGE_ACCEPT_LATE="true",
        GATEWAY_TENANT_ALLOWLIST="acme,,umbrella ",
        ROUTER_REQUEST_TIMEOUT_MS="250",
    )
    assert made.nats_url == ("nats://a:4222", "tls://b:4222")
    assert made.nats_backoff_ms == (5, 10)
    assert made.usage_accept_late is True
    assert made.tenant_allowlist == ("acme", "umbrella")
    assert made.router_timeout_ms == 250


def test_five_wrong_variables_are_five_lines_that_name_them() -> None:
    wrong = {
        "WEB_CONCURRENCY": "many",
        "NATS_REPLICAS": "0",
        "GATEWAY_BIND": "nowhere",
        "CAF_ASSIGNMENT_SUBJECT": "caf.*",
        "NATS_BACKOFF_MS": "1000,soon",
    }
    lines = problems(**wrong)
    assert sorted(line.partition(":")[0] for line in lines) == sorted(wrong)
    for line in lines:
        name = line.partition(":")[0]
        assert "expected" in line and wrong[name] in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_THREADS", "3"),
        ("GATEWAY_THREADS", "32.0"),
        ("WEB_CONCURRENCY", "9" * 5000),
        ("IDEMPOTENCY_TTL_MS", "999"),
        ("LOG_LEVEL", "loud"),
        ("USAGE_ACCEPT_LATE", "perhaps"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("GATEWAY_TENANT_ALLOWLIST", "acme,a b"),
        ("NATS_URL", "http://127.0.0.1:4222"),
        ("NATS_URL", ","),
        ("CAF_RESULT_SUBJECT", "caf.>.result"),
        ("CAF_RESULT_SUBJECT", "caf..result"),
        ("USAGE_SUBJECT", "usage "),
        ("USAGE_SUBJECT", "usage\n"),
        ("GATEWAY_DEFAULT_CP_PHASE", "cp9"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("NATS_TLS_CA_FILE", "/nonexistent/ca.pem"),
        ("NATS_CREDENTIALS_FILE", "/"),
        ("GATEWAY_BIND", "127.0.0.1:65536"),
        ("GATEWAY_BIND", "127.0.0.1"),
        ("METRICS_BIND", "127.0.0.1:65536"),
        ("METRICS_BIND", "127.0.0.1"),
        ("METRICS_BIND", "127.0.0.1:8080"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_variable(name: str, value: str) -> None:
    [line] = problems(**{name: value})
    assert line.startswith(f"{name}: expected")


@pytest.mark.parametrize(
    "environ",
    [
        {"NATS_URL": f"http://gateway:{SECRET}@nats:4222"},
        {"NATS_URL": f"nats://gateway:{SECRET},{SECRET}@nats:4222"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"grpc://key:{SECRET}@collector"},
        {"NATS_CREDENTIALS_FILE": f"-----BEGIN USER NKEY SEED-----\n{SECRET}\n------END"},
        {"NATS_TLS_KEY_FILE": SECRET * 50},
    ],
    ids=["NATS_URL", "NATS_URL with a comma", "OTLP", "content instead of a path", "flat content"],
)
def test_no_error_shows_a_secret(environ: dict[str, str]) -> None:
    lines = problems(**environ)
    assert len(lines) == 1
    assert SECRET not in lines[0]


def test_settings_that_are_printed_by_accident_show_no_secret() -> None:
    made = settings(
        NATS_URL=f"nats://gateway:{SECRET}@nats:4222",
        NATS_USER="gateway",
        NATS_PASSWORD=SECRET,
        NATS_TOKEN=SECRET,
        OTLP_ENDPOINT=f"https://key:{SECRET}@collector:4318",
    )
    assert SECRET not in repr(made)


@pytest.mark.parametrize(
    ("environ", "involved"),
    [
        ({"TRUSTED_PROXIES": ""}, ["TRUSTED_PROXIES", "AUTH_MODE"]),
        (
            {"GATEWAY_MAX_IN_FLIGHT": "31", "GATEWAY_THREADS": "32"},
            ["GATEWAY_MAX_IN_FLIGHT", "GATEWAY_THREADS"],
        ),
        (
            {"GATEWAY_GRACEFUL_TIMEOUT_MS": "5000"},
            ["GATEWAY_GRACEFUL_TIMEOUT_MS", "ROUTER_REQUEST_TIMEOUT_MS"],
        ),
        ({"IDEMPOTENCY_LEASE_MS": "5000"}, ["IDEMPOTENCY_LEASE_MS", "ROUTER_REQUEST_TIMEOUT_MS"]),
        ({"CAF_RESULT_SUBJECT": "caf.exec.*.v1"}, ["CAF_RESULT_SUBJECT", "CAF_ASSIGNMENT_SUBJECT"]),
        ({"CAF_RESULT_SUBJECT": "caf.exec.result.>"}, ["CAF_RESULT_SUBJECT"]),
        ({"NATS_USER": "gateway"}, ["NATS_USER", "NATS_PASSWORD"]),
        ({"NATS_PASSWORD": SECRET}, ["NATS_USER", "NATS_PASSWORD"]),
        ({"NATS_TLS_CERT_FILE": __file__}, ["NATS_TLS_CERT_FILE", "NATS_TLS_KEY_FILE"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_values_that_contradict_each_other_are_one_line_that_names_both(
    environ: dict[str, str], involved: list[str]
) -> None:
    [line] = problems(**environ)
    assert all(name in line for name in involved)
    assert SECRET not in line


def test_contradictions_are_told_together_with_wrong_values() -> None:
    lines = problems(WEB_CONCURRENCY="many", NATS_USER="gateway")
    assert [line.partition(":")[0] for line in lines] == ["WEB_CONCURRENCY", "NATS_USER"]


def test_a_wrong_value_is_not_blamed_for_a_contradiction_as_well() -> None:
    [line] = problems(GATEWAY_THREADS="none", GATEWAY_MAX_IN_FLIGHT="400")
    assert line.startswith("GATEWAY_THREADS: ")


@pytest.mark.parametrize("variable", variables(), ids=lambda v: v.name)
def test_empty_is_the_same_as_not_set(variable: Variable) -> None:
    if variable.name not in ("AUTH_MODE", "TRUSTED_PROXIES"):  # required here
        assert settings(**{variable.name: ""}) == settings()


def test_the_alias_of_a_variable_is_read() -> None:
    made = settings(OTLP_ENDPOINT="http://collector:4318")
    assert made.otlp_endpoint == "http://collector:4318"


def test_the_name_itself_beats_its_alias_unless_it_is_empty() -> None:
    own, alias = "http://own:4318", "http://alias:4318"
    both = settings(OTEL_EXPORTER_OTLP_ENDPOINT=own, OTLP_ENDPOINT=alias)
    assert both.otlp_endpoint == own
    empty = settings(OTEL_EXPORTER_OTLP_ENDPOINT="", OTLP_ENDPOINT=alias)
    assert empty.otlp_endpoint == alias


def test_two_threads_stay_free_for_probes() -> None:
    assert settings(GATEWAY_THREADS="8").in_flight_cap == 6
    assert settings(GATEWAY_THREADS="8", GATEWAY_MAX_IN_FLIGHT="3").in_flight_cap == 3


@hypothesis_settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([variable.name for variable in variables()]),
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])),
        max_size=8,
    )
)
def test_whatever_the_environment_holds_it_is_read_or_refused(environ: dict[str, str]) -> None:
    lines = ["read"]
    try:
        Settings.from_environ(environ)
    except SettingsError as error:
        lines = error.problems
    assert lines
    assert all("\n" not in line for line in lines)


# -- the command --------------------------------------------------------------------------------------


def run_settings(*arguments: str, **environ: str) -> tuple[int, str, str]:
    every_name = {variable.name: None for variable in variables()}
    result = CliRunner().invoke(
        main,
        ["settings", *arguments],
        env={**every_name, "AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1", **environ},
    )
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_every_variable_and_marks_what_differs() -> None:
    code, shown, _ = run_settings(NATS_REPLICAS="3", GATEWAY_BIND="127.0.0.1:8080")
    assert code == 0
    marks = {line[2:].split()[0]: line[0] for line in shown.splitlines()[: len(variables())]}
    assert marks.keys() == {variable.name for variable in variables()}
    assert marks["NATS_REPLICAS"] == "*" and marks["GATEWAY_BIND"] == " "


def test_the_command_prints_one_json_object_for_machines() -> None:
    code, shown, _ = run_settings("--json", NATS_REPLICAS="3")
    assert code == 0
    table = json.loads(shown)
    assert table.keys() == {variable.name for variable in variables()}
    assert table["NATS_REPLICAS"] == "3"


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["table", "json"])
def test_the_command_shows_no_secret(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code, shown, _ = run_settings(
        *arguments,
        NATS_URL=f"nats://gateway:{SECRET}@nats:4222,nats://{SECRET}@other:4222",
        NATS_USER="gateway",
        NATS_PASSWORD=SECRET,
        NATS_TOKEN=SECRET,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"https://key:{SECRET}@collector:4318",
    )
    assert code == 0
    assert SECRET not in shown
    assert "nats://nats:4222" in shown and "https://collector:4318" in shown


def test_the_command_ends_with_a_line_a_problem() -> None:
    code, shown, complaints = run_settings(WEB_CONCURRENCY="many", NATS_REPLICAS="none")
    assert code == CONFIGURATION_ERROR
    assert shown == ""
    assert [line.partition(":")[0] for line in complaints.splitlines()] == [
        "WEB_CONCURRENCY",
        "NATS_REPLICAS",
    ]
