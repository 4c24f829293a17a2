"""The times and sizes of the delivered nginx configuration against those of the gateway behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.schemas.query import MAX_WAIT_MS, StreamQuery
from tests.support.deploy_files import DEPLOY, nginx, seconds, settings_of


def directives(name: str) -> list[str]:
    """The values that nginx is given for a directive, in their order."""
    return re.findall(rf"\b{name} ([^;]+);", nginx())


def location(path: str) -> Mapping[str, str]:
    """The directives of one location."""
    (block,) = re.findall(rf"location (?:= )?{re.escape(path)} \{{([^}}]*)\}}", nginx())
    return dict(re.findall(r"(\w+) ([^;]+);", block))


def test_nginx_waits_longer_than_any_answer_takes(tmp_path: Path) -> None:
    settings = settings_of("compose", tmp_path)
    ordinary = [seconds(value) for value in directives("proxy_read_timeout")]
    answered_by = settings.router_timeout_ms / 1000
    assert max(ordinary) > answered_by
    (general,) = re.findall(
        r"proxy_read_timeout (\w+);", (DEPLOY / "nginx/beamline/proxy.inc").read_text()
    )
    assert seconds(general) > answered_by + 5
    poll = seconds(location("/api/v1/results")["proxy_read_timeout"])
    assert poll > MAX_WAIT_MS / 1000 + 5
    (longest,) = (v.max for v in StreamQuery().fields["heartbeat_ms"].validators)  # type: ignore[attr-defined]
    stream = location("/api/v1/results/stream")
    assert seconds(stream["proxy_read_timeout"]) > longest / 1000 + 5
    assert stream["proxy_buffering"] == "off"


@pytest.mark.parametrize("where", ["compose", "systemd"])
def test_nginx_closes_an_idle_connection_before_the_gateway_does(
    where: str, tmp_path: Path
) -> None:
    (upstream,) = re.findall(r"upstream beamline_gateway \{(.*?)\n\}", nginx(), re.DOTALL)
    (kept,) = re.findall(r"keepalive_timeout (\w+);", upstream)
    assert seconds(kept) + 5 <= settings_of(where, tmp_path).keepalive_ms / 1000


def test_nginx_lets_the_gateway_refuse_what_is_too_large(tmp_path: Path) -> None:
    (limit,) = directives("client_max_body_size")
    assert int(limit.removesuffix("m")) * 2**20 > settings_of("compose", tmp_path).body_max_bytes
    (payload,) = re.findall(r"max_payload: (\d+)MB", (DEPLOY / "nats" / "nats.conf").read_text())
    assert int(payload) * 2**20 > settings_of("compose", tmp_path).body_max_bytes
