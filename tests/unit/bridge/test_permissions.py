"""What the account needs, and whether what it may do covers it."""

from __future__ import annotations

import pytest

from bridge import BridgeConfig, BucketSpec, ConsumerSpec, StreamSpec, required_permissions
from bridge.permissions import covers


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "a.b.>", True),
        # What is needed may be a pattern itself: it is covered only if all that it stands for is.
        ("a.>", "a.>", True),
        ("a.>", "a.*", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.b", "a.*", False),
        ("a.b.>", "a.>", False),
        ("$JS.API.>", "$JS.API.STREAM.INFO.X", True),
    ],
)
def test_a_pattern_covers_a_subject_if_it_matches_all_that_it_stands_for(
    pattern: str, subject: str, covered: bool
) -> None:
    assert covers(pattern, subject) is covered


def test_a_bridge_without_needs_asks_for_little() -> None:
    assert required_permissions(BridgeConfig(inbox_prefix="_INBOX_mine")) == {
        "publish": ("$JS.API.STREAM.NAMES", "$SYS.REQ.USER.INFO"),
        "subscribe": ("_INBOX_mine.>",),
    }


def test_everything_configured_is_on_the_list_and_nothing_of_others_is() -> None:
    stream = StreamSpec(
        name="S", subjects=("s.one", "s.two"), duplicate_window_ms=1, max_age_ms=1, max_bytes=1
    )
    config = BridgeConfig(
        streams=(stream,),
        buckets=(BucketSpec(name="B"),),
        requests=("r",),
        reads=("S",),
        listens=("l",),
        consumers=(ConsumerSpec(subject="s.two", durable="d"),),
    )
    required = required_permissions(config)
    assert required["subscribe"] == ("_INBOX.>", "l")
    assert set(required["publish"]) == {
        "$SYS.REQ.USER.INFO",
        "$JS.API.STREAM.NAMES",
        "r",
        "s.one",
        "s.two",
        *(f"$JS.API.STREAM.{verb}.S" for verb in ("CREATE", "INFO", "UPDATE", "MSG.GET")),
        *(f"$JS.API.STREAM.{verb}.KV_B" for verb in ("CREATE", "INFO", "UPDATE", "MSG.GET")),
        "$KV.B.>",
        *(f"$JS.API.CONSUMER.{verb}.S.d" for verb in ("DURABLE.CREATE", "INFO", "MSG.NEXT")),
        "$JS.ACK.S.d.>",
    }


def test_a_bucket_that_is_only_read_is_neither_written_nor_made_nor_changed() -> None:
    config = BridgeConfig(buckets=(BucketSpec(name="B", read_only=True),))
    assert set(required_permissions(config)["publish"]) == {
        "$JS.API.STREAM.INFO.KV_B",
        "$JS.API.STREAM.MSG.GET.KV_B",
        "$JS.API.STREAM.NAMES",
        "$SYS.REQ.USER.INFO",
    }
