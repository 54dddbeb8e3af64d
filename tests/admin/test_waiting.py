"""Filters over the queue: what people type, and what it means."""

from __future__ import annotations

import msgspec
import pytest

from posthof_pod.admin.waiting import QueueFilter, QueueItem, QueueRecipient, address_test, filter_of, item_test

ITEM = QueueItem(
    "lane-1",
    "News@Example.org",
    0.0,
    1,
    [
        QueueRecipient("b@far.test", "deferred", destination="to-o365:smtp.o365:25"),
        QueueRecipient("c@near.test", "held", destination="direct:near.test"),
    ],
)


@pytest.mark.parametrize(
    ("pattern", "address", "is_met"),
    [
        ("a@x.test", "A@X.test", True),
        ("a@x.test", "ba@x.test", False),
        ("@x.test", "a@x.test", True),
        ("x.test", "a@x.test", True),
        ("x.test", "a@sub.x.test", False),
        ("*.x.test", "a@sub.x.test", True),
        ("news-*@x.test", "news-7@x.test", True),
        ("?@x.test", "ab@x.test", False),
        ("<>", "", True),
        ("<>", "a@x.test", False),
        ("*@[127.0.0.1]", "a@[127.0.0.1]", True),
        ("*@[127.0.0.1]", "a@1", False),
    ],
)
def test_an_address_pattern(pattern: str, address: str, is_met: bool) -> None:
    assert address_test(pattern)(address) is is_met


@pytest.mark.parametrize(
    ("wanted", "is_met"),
    [
        ({}, True),
        ({"ids": ["lane-1"]}, True),
        ({"ids": ["lane-10"]}, False),
        ({"sender": "news@example.org"}, True),
        ({"state": "held", "recipient": "c@near.test"}, True),
        ({"state": "held", "recipient": "b@far.test"}, False),
        ({"destination": "near.test"}, True),
        ({"destination": "direct:*"}, True),
        ({"destination": "to-o365"}, True),
        ({"destination": "o365"}, False),
    ],
)
def test_a_filter_is_met_where_one_recipient_meets_all_of_it(wanted: dict[str, object], is_met: bool) -> None:
    assert item_test(filter_of(wanted))(ITEM) is is_met


def test_a_misspelt_part_of_a_filter_is_refused_and_not_taken_for_everything() -> None:
    with pytest.raises(msgspec.ValidationError):
        filter_of({"recipent": "b@far.test"})


def test_only_a_filter_without_any_part_is_empty() -> None:
    assert QueueFilter().is_empty
    assert QueueFilter(all=True).is_empty
    assert not QueueFilter(state="held").is_empty
