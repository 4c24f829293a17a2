"""Chains of a batch: what shares a key or a pair goes one after the other, all else side by side."""

from __future__ import annotations

import time
from itertools import combinations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.operations.meter import chains

names = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("ABCDEFGH")), max_size=24)


def joined_by_hand(names: list[tuple[str, str]]) -> set[frozenset[int]]:
    """The same, the slow and obvious way: join any two that share a name until nothing changes."""
    found = [{index} for index in range(len(names))]
    while True:
        for one, other in combinations(found, 2):
            if any(set(names[i]) & set(names[j]) for i in one for j in other):
                found.remove(other)
                one |= other
                break
        else:
            return {frozenset(chain) for chain in found}


@hypothesis_settings(deadline=None)
@given(names)
def test_chains_are_what_is_joined_by_equal_names_however_far_around(
    names: list[tuple[str, str]],
) -> None:
    found = chains(names)
    assert {frozenset(chain) for chain in found} == joined_by_hand(names)
    assert sorted(index for chain in found for index in chain) == list(range(len(names)))
    assert all(chain == sorted(chain) for chain in found)


def test_a_batch_that_is_all_one_chain_takes_no_longer_than_one_of_strangers() -> None:
    """It runs on the loop that everybody shares: a batch made up to be slow must not be."""
    strangers = [(f"k{n}", f"P{n}") for n in range(1_000)]
    same_pair = [(f"k{n}", "P") for n in range(1_000)]
    # Pairs that meet late: each item joins two chains of equal length.
    meeting = [(f"k{n}", f"P{n}") for n in range(512)]
    step = 1
    while step < 512:
        meeting += [(f"k{n}", f"P{n + step}") for n in range(0, 512, 2 * step)]
        step *= 2
    took = {}
    for label, batch in {"strangers": strangers, "same": same_pair, "meeting": meeting}.items():
        best = min(timed(batch) for _ in range(5))
        took[label] = best
    assert len(chains(same_pair)) == len(chains(meeting)) == 1
    assert max(took.values()) < 20 * took["strangers"], took


def timed(batch: list[tuple[str, str]]) -> float:
    began = time.perf_counter()
    chains(batch)
    return time.perf_counter() - began
