"""From in a submission: whatever stands in it, reading it costs no more than its length."""

from __future__ import annotations

import time

import pytest

from posthof_pod import fields
from posthof_pod.accounts.authors import of


@pytest.mark.parametrize(
    "text",
    [
        b"a" * 60,
        b"a" * 9000,
        b" a" * 4900,
        b" " * 9900 + b"x",
        b'"a" ' * 2000,
        b"a." * 4900,
        b"a@" * 4900,
        b'"' + b"\\a" * 4000,
        b"a@b" + b" " * 9900 + b"x",
    ],
)
def test_what_is_no_address_is_said_to_be_none_at_once(text: bytes) -> None:
    begun = time.process_time()
    assert of(b"From: " + text + b"\r\n", b"from") is None
    assert time.process_time() - begun < 1.0  # it was ages: 2 to the power of its letters


def test_lines_that_only_begin_like_a_field_cost_one_look_each() -> None:
    head = b"from\r\n" * 40_000 + b":\r\n"
    begun = time.process_time()
    assert fields.values(head, b"from") == []
    assert time.process_time() - begun < 0.7
    assert fields.values(b"From \t: a@b.test\r\nfrom\r\n: c\r\n", b"from") == [b"a@b.test"]
