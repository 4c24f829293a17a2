"""Several instances of the gateway on one NATS, started at once and ended at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from tests.support.gateway_process import GatewayProcess
from tests.support.waiting import wait_until


@contextlib.contextmanager
def instances(
    count: int, nats_url: str, environment: Mapping[str, str | None]
) -> Iterator[list[GatewayProcess]]:
    """``count`` of them, ready to be asked. One that a test has ended is left as it is."""
    gateways = [GatewayProcess(nats_url, environment=environment) for _ in range(count)]
    try:
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            _until_ready(gateway)
        yield gateways
    finally:
        for gateway in gateways:
            if gateway.running:
                gateway.terminate()
        for gateway in gateways:
            gateway.close()


def _until_ready(gateway: GatewayProcess) -> None:
    def ready() -> bool:
        assert gateway.running, f"it does not start:\n{gateway.output_tail()}"
        answer = gateway.get("/readyz")
        return answer is not None and answer.status == 200

    wait_until(ready, message=lambda: f"not ready:\n{gateway.output_tail()}")
