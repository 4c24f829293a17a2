"""The files of deploy/ agree with the gateway, and with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bridge import Bridge, required_permissions
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.settings import variables
from gateway.telemetry.metrics.declarations import families
from tests.support.deploy_files import (
    DEPLOY,
    DOCKERFILE,
    PASSWORDS,
    compose,
    compose_variables,
    container,
    environments,
    image_environment,
    nginx,
    objects,
    seconds,
    service_environment,
    settings_of,
)
from tests.support.gateway_process import REPOSITORY

GATEWAYS = ("gateway-a", "gateway-b")
#: Beside draining and finishing: closing NATS, flushing spans, gunicorn's own end.
SECONDS_TO_END = 4


# -- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", environments())
def test_every_environment_starts_a_gateway(where: str, tmp_path: Path) -> None:
    settings_of(where, tmp_path)


@pytest.mark.parametrize("where", environments())
def test_an_environment_sets_only_what_there_is_to_set(where: str) -> None:
    known = {variable.name for variable in variables()}
    assert set(environments()[where]) <= known


def test_both_gateways_of_the_compose_file_are_equal() -> None:
    first, second = (compose()["services"][name] for name in GATEWAYS)
    assert first == second


@pytest.mark.parametrize("where", ["compose", "kubernetes", "systemd"])
def test_a_gateway_is_given_time_to_drain_and_to_finish(where: str, tmp_path: Path) -> None:
    settings = settings_of(where, tmp_path)
    unit = (DEPLOY / "systemd" / "beamline-gateway.service").read_text()
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    given = {
        "compose": seconds(compose()["services"]["gateway-a"]["stop_grace_period"]),
        "kubernetes": pod["terminationGracePeriodSeconds"],
        "systemd": int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]),
    }[where]
    needed = (settings.drain_ms + settings.graceful_timeout_ms) / 1000
    assert given >= needed + SECONDS_TO_END


def test_the_accounts_rights_are_what_the_compose_files_gateway_needs(tmp_path: Path) -> None:
    """Equal, not merely enough: what is allowed beyond the need is a risk without a use."""
    needed = required_permissions(bridge_config(settings_of("compose", tmp_path)))
    path = DEPLOY / "nats" / "gateway-permissions.conf"
    heading = path.read_text().splitlines()[0]
    lines = [heading]
    for verb in ("publish", "subscribe"):
        lines += [f"{verb}: {{ allow: [", *(f'  "{subject}"' for subject in needed[verb]), "] }"]
    wanted = "\n".join(lines) + "\n"
    assert path.read_text() == wanted, f"write into {path}:\n{wanted}"


# -- compose ----------------------------------------------------------------------------------------


def test_whatever_is_mounted_is_there() -> None:
    for name, service in compose()["services"].items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).exists(), f"{name}: {source}"
            else:
                assert source in compose()["volumes"], f"{name}: {source}"


def test_no_image_changes_behind_our_back() -> None:
    for name, service in compose()["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert tag != "latest" and (re.search(r"\d+\.\d+", tag) or tag == "local"), name


def test_every_password_is_asked_for_and_has_no_default() -> None:
    example = (DEPLOY / "compose" / ".env.example").read_text()
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(
        compose_variables(), ""
    )


def test_the_nodes_have_the_variables_that_their_configuration_reads() -> None:
    read = set(re.findall(r"\$([A-Z_]+)", (DEPLOY / "nats" / "nats.conf").read_text()))
    for name in ("nats-1", "nats-2", "nats-3"):
        given = service_environment(name, PASSWORDS)
        assert set(given) == read
        assert given["NATS_NAME"] == name


def test_names_in_the_configurations_are_services() -> None:
    services = compose()["services"]
    upstreams = re.findall(r"^\s*server ([\w-]+):(\d+) ", nginx(), re.MULTILINE)
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    targets = [target.split(":") for target in job["static_configs"][0]["targets"]]
    assert sorted(map(list, upstreams)) == sorted(targets) == [[name, "8080"] for name in GATEWAYS]
    assert image_environment()["GATEWAY_BIND"].endswith(":8080")
    routes = re.findall(r"nats://([\w-]+):6222", (DEPLOY / "nats" / "nats.conf").read_text())
    urls = service_environment("gateway-a", PASSWORDS)["NATS_URL"]
    assert routes == re.findall(r"nats://([\w-]+):4222", urls) == ["nats-1", "nats-2", "nats-3"]
    assert {*routes, *GATEWAYS, "collector", "traces", "prometheus"} <= set(services)


def test_traces_find_their_way() -> None:
    collector = yaml.safe_load((DEPLOY / "compose" / "collector.yaml").read_text())
    endpoint = service_environment("gateway-a", PASSWORDS)["OTEL_EXPORTER_OTLP_ENDPOINT"]
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert endpoint == f"http://collector:{port}"
    for pipeline in collector["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(collector[part])
    (exporter,) = collector["exporters"].values()
    assert exporter["endpoint"].partition(":")[0] in compose()["services"]


# -- kubernetes -------------------------------------------------------------------------------------


def test_probes_ask_what_there_is_to_ask(tmp_path: Path) -> None:
    settings = settings_of("kubernetes", tmp_path)
    app = create_app(settings, Bridge(bridge_config(settings)))
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container()[probe]["httpGet"]
        assert asked["path"] in rules
        assert asked["port"] in ports
    assert settings.bind.endswith(f":{ports['http']}")
    assert settings.metrics_bind is not None
    assert settings.metrics_bind.endswith(f":{ports['metrics']}")


def test_a_restart_is_no_answer_to_an_outage_of_nats() -> None:
    assert container()["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container()["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container()["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_prometheus_is_sent_to_the_port_of_the_metrics() -> None:
    annotations = objects()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    (port,) = (p["containerPort"] for p in container()["ports"] if p["name"] == "metrics")
    assert annotations["prometheus.io/port"] == str(port)


def test_a_draining_pod_is_seen_before_it_stops(tmp_path: Path) -> None:
    probe = container()["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert settings_of("kubernetes", tmp_path).drain_ms / 1000 > noticed


def test_there_is_a_core_for_every_worker(tmp_path: Path) -> None:
    cores = container()["resources"]["requests"]["cpu"]
    assert settings_of("kubernetes", tmp_path).workers == int(cores)


def test_the_autoscaler_asks_for_a_metric_that_exists_and_acts_before_pods_are_full(
    tmp_path: Path,
) -> None:
    (asked,) = (
        m["pods"]
        for m in objects()["HorizontalPodAutoscaler"]["spec"]["metrics"]
        if m["type"] == "Pods"
    )
    name = asked["metric"]["name"]
    (family,) = (family for family in families() if family.name == name)
    assert family.kind == "gauge" and not family.labels
    adapter = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())
    assert [rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]["custom"]] == [name]
    settings = settings_of("kubernetes", tmp_path)
    assert int(asked["target"]["averageValue"]) == settings.in_flight_cap * settings.workers / 2


def test_everything_is_applied_and_means_the_same_pods() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert {f"{kind.lower()}.yaml" for kind in objects()} == set(kustomization["resources"])
    by_kind = objects()
    wanted = {"app.kubernetes.io/name": "beamline-gateway"}
    spec = by_kind["Deployment"]["spec"]
    assert wanted.items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["selector"]["matchLabels"] == wanted
    assert by_kind["Service"]["spec"]["selector"] == wanted
    assert by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == wanted
    assert by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == wanted
    scaled = by_kind["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == by_kind["Deployment"]["metadata"]["name"]
    assert (
        by_kind["ConfigMap"]["metadata"]["name"]
        == (container()["envFrom"][0]["configMapRef"]["name"])
    )
    assert {kustomization["namespace"]} == {
        document["metadata"].get("namespace", document["metadata"]["name"])
        for document in by_kind.values()
    }


def test_the_pod_may_do_nothing_that_it_need_not() -> None:
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == image_user()
    context = container()["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert "/tmp" in mounts
    for name, value in objects()["ConfigMap"]["data"].items():
        if name.endswith("_FILE"):
            assert str(Path(value).parent) in mounts


# -- the image --------------------------------------------------------------------------------------


def image_user() -> int:
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE.read_text(), re.MULTILINE)
    return int(user)


def test_the_image_runs_as_nobody() -> None:
    assert image_user() >= 1000


def test_what_the_image_is_made_of_is_there_and_not_ignored() -> None:
    ignore = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == kept
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_the_image_runs_on_a_python_that_is_tested() -> None:
    (version,) = re.findall(r"^ARG PYTHON_VERSION=3\.(\d+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert (
        f"Programming Language :: Python :: 3.{version}" in (REPOSITORY / "setup.cfg").read_text()
    )
