"""Where the collector is and how it wants to be spoken to, by the OpenTelemetry variables that the gateway goes by."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from opentelemetry.util.re import parse_env_headers

from gateway.environment import declared, parse
from gateway.smoke.failures import Failed, Failure
from gateway.telemetry.tracing.settings import Protocol, TracingSettings

_VARIABLES: Final = tuple(declared(TracingSettings))
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorAddress:
    """A collector; what its text shows holds no credential."""

    protocol: Protocol
    url: SplitResult = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    ca_file: Path | None
    client_certificate: Path | None
    client_key: Path | None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """As a gateway with this environment sends its traces. Raises Failed if it would send none."""
        values, problems = parse(_VARIABLES, environ)
        if problems:
            raise Failed(Failure.COLLECTOR_SETTINGS, "; ".join(problems.values()))
        settings = TracingSettings(**values)
        if (url := settings.traces_url) is None:
            off = settings.sdk_disabled or settings.traces_exporter == "none"
            why = "traces are switched off" if off else "OTEL_EXPORTER_OTLP_ENDPOINT is not set"
            raise Failed(Failure.COLLECTOR_MISSING, f"{why} in this environment: they go nowhere")
        headers = settings.otlp_traces_headers or settings.otlp_headers or ""
        return cls(
            protocol=settings.traces_protocol,
            url=urlsplit(url),
            headers=parse_env_headers(headers, liberal=True),
            ca_file=settings.otlp_traces_certificate or settings.otlp_certificate,
            client_certificate=settings.otlp_traces_client_certificate
            or settings.otlp_client_certificate,
            client_key=settings.otlp_traces_client_key or settings.otlp_client_key,
        )

    @property
    def host(self) -> str:
        """Its name or IP address."""
        return self.url.hostname or ""

    @property
    def port(self) -> int:
        """As named, or the scheme's."""
        return self.url.port or _PORTS[self.url.scheme]

    @property
    def tls(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.url.scheme == "https"

    def trust(self) -> ssl.SSLContext:
        """Whom TLS over HTTP believes, and what it presents."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.client_certificate is not None:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context

    def __str__(self) -> str:
        at = f"{self.url.scheme}://{self.url.netloc.rpartition('@')[2]}"
        return f"{at} ({self.protocol})" if self.protocol == "grpc" else f"{at}{self.url.path}"
