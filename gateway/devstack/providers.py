"""The providers that the reference Router chooses from, and how it chooses: the same question, the same
provider, in every process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.devstack.digest import stable_digest

PROVIDERS_VARIABLE: Final = "REFERENCE_ROUTER_PROVIDERS"


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider with the figures that a decision about it carries."""

    id: str
    priority: int = 50
    expected_latency_ms: int = 500
    expected_cost: float = 0.01


_KNOWN: Final = {
    provider.id: provider
    for provider in (
        Provider("openai:gpt-4o", 50, 850, 0.012),
        Provider("anthropic:claude-sonnet", 50, 900, 0.009),
        Provider("mistral:large", 40, 600, 0.006),
        Provider("local:llama", 20, 1500, 0.0),
    )
}


class Catalogue:
    """The providers that are there. One that is not listed is gone."""

    def __init__(self, provider_ids: Collection[str]) -> None:
        self._providers = {name: provider(name) for name in provider_ids}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Catalogue:
        """``REFERENCE_ROUTER_PROVIDERS`` is a comma list of ids; unset or empty, the built-in four."""
        listed = environ.get(PROVIDERS_VARIABLE, "").split(",")
        return cls([name.strip() for name in listed if name.strip()] or list(_KNOWN))

    def __contains__(self, provider_id: str) -> bool:
        return provider_id in self._providers

    def choose(self, question: bytes, without: Collection[str] = ()) -> Provider | None:
        """The provider for ``question``, or None when none is left.

        Rendezvous hashing: one that goes away moves only the questions that were its own.
        """
        left = [known for name, known in self._providers.items() if name not in without]
        return max(left, key=lambda known: stable_digest(question, known.id), default=None)


def provider(provider_id: str) -> Provider:
    """The figures of a provider; ordinary ones for an id that nobody listed."""
    return _KNOWN.get(provider_id) or Provider(provider_id)
