"""Large content on its way to the disk: cut anywhere, it comes out whole, hashed, and without our name on foreign
results."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.dkim import at_once, signed, signing_key, table
from posthof_pod.admit.strain import Strainer
from posthof_pod.mailauth.canon import fields, parted
from posthof_pod.mailauth.dkim.verify import verify
from posthof_pod.smtp.data import Content

OURS = "mx.house.test"
FORGED = b"Authentication-Results: mx.house.test;\r\n dmarc=pass\r\nauthentication-results : mx.house.test; none\r\n"
KEY = signing_key("rsa1024")
MESSAGE = signed(b"From: ada@a.example\r\nSubject: hi\r\n\r\n" + b"A line.  \r\n" * 40 + b"\r\n\r\n", KEY)


def strained(content: bytes, cuts: list[int]) -> tuple[bytes, Strainer]:
    strainer = Strainer(OURS)
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    out = b"".join(strainer.take(content[a:b]) for a, b in pairwise(places))
    return out + strainer.end(), strainer


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=12))
def test_a_signature_is_good_however_the_content_was_cut(cuts: list[int]) -> None:
    out, strainer = strained(MESSAGE, cuts)
    assert out == MESSAGE
    assert strainer.hashes is not None
    head, _ = parted(MESSAGE)
    (found,) = at_once(verify(fields(head), strainer.hashes, table(KEY), 1_790_000_000.0))
    assert found.result == "pass", found.reason


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=12))
def test_foreign_results_in_our_name_are_renamed_and_the_size_stays(cuts: list[int]) -> None:
    content = FORGED + MESSAGE
    out, _ = strained(content, cuts)
    assert len(out) == len(content)
    assert out.endswith(MESSAGE)
    assert out.startswith(b"X-Foreign-Auth-Results: mx.house.test;\r\n dmarc=pass\r\nX-Foreign-Auth-Results : mx")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_nothing_is_lost_whatever_comes(content: bytes, cuts: list[int]) -> None:
    out, _ = strained(content, cuts)
    assert len(out) == len(content)


LONG = b"X: " + b"y" * 997 + b"\r\n"


@pytest.mark.parametrize("step", [4096, 1_000_000])
@pytest.mark.parametrize("end", [b"", b"\r\n" + b"z" * 998 + b"\r\n"])
def test_a_header_that_nobody_reads_to_its_end_is_refused(step: int, end: bytes) -> None:
    """Behind its 64 KiB could stand another From, or results in our name."""

    class Sink:
        pending = 0

        def __init__(self) -> None:
            self.strainer = Strainer(OURS)

        def write(self, data: bytes) -> None:
            self.strainer.take(data)

        async def drain(self) -> None: ...
        def abort(self) -> None: ...

    content = b"From: a@a.example\r\n" + LONG * 70 + b"From: b@b.example\r\n" + FORGED + end
    taken = Content(0, 1000, Sink)
    for at in range(0, len(content), step):
        taken.add(content[at : at + step])
    assert taken.refusal is not None
    assert taken.refusal.code == 552


def test_content_without_a_header_is_passed_at_once() -> None:
    strainer = Strainer(OURS)
    assert strainer.take(b"\r\nAuthentication-Results: mx.house.test; none\r\n").startswith(b"\r\nAuth")
