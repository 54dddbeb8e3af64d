"""Invariant: whatever bytes a message and DNS hold, a DKIM or ARC verdict comes back and nothing is raised; hashes of
any pieces are those of the whole; only an unchanged message passes; what an address is rewritten to leads back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.dkim import MESSAGE, NOW, Table, at_once, judged, signed, signing_key, table
from posthof_pod.mailauth import batv, canon, srs, tags
from posthof_pod.mailauth.arc import chain
from posthof_pod.mailauth.arc.verify import verify_chain
from posthof_pod.mailauth.dkim import keys, signature

pytestmark = pytest.mark.fuzz

pieces = st.lists(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b" ", b"\t", b";", b"=", b":", b"a", b"\x00", b"\xff", b"h", b"\x0b", b"\x0c"]
    )
    | st.binary(max_size=4),
    max_size=60,
).map(b"".join)
names = st.sampled_from(
    [b"v", b"a", b"b", b"bh", b"c", b"d", b"h", b"i", b"l", b"q", b"s", b"t", b"x", b"z", b"cv", b"p", b"k", b"n"]
)
values = st.sampled_from(
    [
        *(
            b"1",
            b"rsa-sha256",
            b"ed25519-sha256",
            b"relaxed/simple",
            b"a.example",
            b"@a.example",
            b"from:to",
            b"",
            b"b",
        ),
        *(b"-1", b"9" * 26, b"none", b"pass", b"fail", b"=20@x", b"dns/txt", b"\xc3\xa9.example", b"AAAA"),
    ]
)
tag_lists = st.lists(st.tuples(names, values | pieces), max_size=12).map(
    lambda all_: b"; ".join(b"=".join(one) for one in all_)
)
fields = st.lists(
    st.tuples(
        st.sampled_from(
            [b"DKIM-Signature", b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results", b"From", b"to "]
        ),
        tag_lists | pieces,
    ),
    max_size=6,
).map(lambda all_: b"".join(b"%b:%b\r\n" % one for one in all_))

RSA, ED = signing_key("rsa1024"), signing_key("ed25519")
SIGNED = signed(MESSAGE, RSA, ED)
RECORDS = table(RSA, ED)


@settings(max_examples=300, deadline=None)
@given(head=fields, body=pieces, record=tag_lists | pieces)
def test_any_message_gets_a_verdict(head: bytes, body: bytes, record: bytes) -> None:
    class Any_(Table):
        async def txt(self, name: str) -> tuple[bytes, ...]:
            assert len(name) <= 520
            return (record,)

    lookup = Any_({})
    headers = canon.fields(canon.parted(head + b"\r\n" + body)[0])
    at_once(verify_chain(headers, body, lookup, NOW))
    for one in judged(head + b"\r\n" + body, lookup):
        assert one.result != "pass"
        assert one.reason.isprintable()


@settings(max_examples=300, deadline=None)
@given(tag_lists | pieces)
def test_any_tags_are_read_or_refused(text: bytes) -> None:
    for read in (tags.parse, signature.read, signature.read_ams, chain.read_seal):
        with contextlib.suppress(tags.BadTags):
            read(text)
    keys.public_key(text)


@settings(max_examples=300, deadline=None)
@given(
    content=pieces, cuts=st.lists(st.integers(0, 120), max_size=6), limit=st.integers(-1, 20), relaxed=st.booleans()
)
@example(content=b"a \r", cuts=[2], limit=-1, relaxed=True)
def test_pieces_hash_as_the_whole(content: bytes, cuts: list[int], limit: int, relaxed: bool) -> None:
    wish = canon.BodyWish(relaxed, limit)
    hashes = canon.BodyHashes([wish])
    at = 0
    for cut in [*sorted(cuts), len(content)]:
        hashes.update(content[at:cut])
        at = max(at, cut)
    assert hashes.get(wish) == canon.body_hash(content, wish)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(MESSAGE) - 1), byte=st.integers(0, 255))
def test_one_other_octet_passes_only_where_canonicalisation_says_so(at: int, byte: int) -> None:
    changed = MESSAGE[:at] + bytes([byte]) + MESSAGE[at + 1 :]
    found = judged(SIGNED[: -len(MESSAGE)] + changed, RECORDS)

    def canonical(message: bytes) -> object:
        head, body = canon.parted(message)
        known = [f for f in canon.fields(head) if f[0] in (b"from", b"to", b"subject", b"date", b"message-id")]
        known += [f for f in canon.fields(head) if f[0] in (b"mime-version", b"content-type")]
        return sorted(canon.relaxed_field(*f) for f in known), canon.relaxed_body(body)

    is_same = canonical(changed) == canonical(MESSAGE)
    assert {one.result == "pass" for one in found} <= {is_same, False}
    if is_same:
        assert all(one.result == "pass" for one in found)


@settings(max_examples=200, deadline=None)
@given(local=st.text(max_size=50), domain=st.sampled_from(["b.example", "x.y.example"]), noise=st.text(max_size=40))
def test_rewritten_senders_lead_back_and_nothing_else_does(local: str, domain: str, noise: str) -> None:
    sender = f"{local}@{domain}"
    made = srs.forward(sender, "a.example", b"secret", NOW)
    if made and local and not srs.is_ours(local):
        assert srs.reverse(made.rpartition("@")[0], [b"other", b"secret"], NOW) == sender
    for text in (noise, "SRS0=" + noise, "SRS1=" + noise, "prvs=" + noise):
        if srs.is_ours(text):
            with pytest.raises(srs.BadSRS):
                srs.reverse(text, [b"secret"], NOW)
        assert not batv.is_valid(f"{text}@a.example", [b"secret"], NOW)
    marked = batv.mark(sender, b"secret", NOW)
    if marked != sender:
        assert batv.is_valid(marked, [b"secret"], NOW)
        assert batv.plain(marked.rpartition("@")[0]) == local
