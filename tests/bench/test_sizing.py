"""The sizing model: the document says what it gives, and what it multiplies is what happens."""

from __future__ import annotations

import pytest

from tests.bench.sizing import DOCUMENT, Load, block, needs, simulate


def test_the_document_has_the_table_that_the_model_gives() -> None:
    assert block() in DOCUMENT.read_text(), "python -m tests.bench.sizing --write"


@pytest.mark.parametrize("per_second", [100, 100_000])
def test_the_model_is_what_a_played_load_comes_to(per_second: float) -> None:
    """Windows of minutes stand for those of days: what is alive is a rate times a time, whatever the time."""
    load = Load(per_second, ttl=300, usage_window=1_200)
    alive, metered = simulate(load, 3_000)
    model = needs(load)
    usage_ids = load.per_second * load.usage * load.usage_window
    assert alive == pytest.approx(model.live_claims, rel=0.03)
    assert metered == pytest.approx(usage_ids, rel=0.03)


def test_a_billion_claims_a_day_are_within_the_table() -> None:
    assert Load(100_000).claims_per_second * 86_400 > 1e9


def test_more_of_anything_never_needs_less() -> None:
    small, large = needs(Load(1_000)), needs(Load(10_000))
    assert (
        large.cores > small.cores and large.memory > small.memory and large.shards >= small.shards
    )
