"""DKIM signatures: what passes, what does not and with which word, and that ours pass."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kit.dkim import MESSAGE, NOW, Table, judged, pem, signed, signing_key, table
from posthof_pod.mailauth import canon
from posthof_pod.mailauth.dkim import keys, sign, verify

RSA = signing_key("rsa2048")
ED = signing_key("ed25519")

RFC8463 = (  # RFC 8463 appendix A.3, as it stands there
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    b" subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
    b"\r\n"
    b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
)
RFC8463_KEY = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def one(message: bytes, lookup: Table, *, now: float = NOW) -> verify.Signature:
    (found,) = judged(message, lookup, now=now)
    return found


def own(message: bytes, tags: bytes, *, c: tuple[bool, bool] = (True, True), selector: bytes = b"rsa2048") -> bytes:
    """A signature by hand: `tags` in the place of ours, over the fields that h= names."""
    head, body = canon.parted(message)
    limit = re.search(rb"\bl=(\d+)", tags)
    wish = canon.BodyWish(c[1], int(limit[1]) if limit else -1)
    body_hash = base64.b64encode(canon.body_hash(body, wish).digest)
    field = b"DKIM-Signature: v=1; d=a.example; s=%b; bh=%b; %b; b=" % (selector, body_hash, tags)
    named = re.search(rb"h=([^;]*)", tags)
    names = (named[1] if named else b"").lower().split(b":")
    covered = canon.canonical(canon.select(canon.fields(head), names), is_relaxed=c[0])
    last = canon.relaxed_field(b"dkim-signature", field)[:-2] if c[0] else field
    made = signing_key("rsa2048").key.sign(hashlib.sha256(covered + last).digest())
    return field + base64.b64encode(made) + b"\r\n" + message


def test_ours_pass_and_say_who_signed() -> None:
    found = judged(signed(MESSAGE, RSA, ED), table(RSA, ED))
    assert [(s.algorithm, s.result, s.domain, s.identity) for s in found] == [
        ("rsa-sha256", "pass", "a.example", "@a.example"),
        ("ed25519-sha256", "pass", "a.example", "@a.example"),
    ]
    assert [s.bits for s in found] == [2048, 256]


def test_the_example_of_rfc_8463_passes() -> None:
    assert one(RFC8463, Table({"brisbane._domainkey.football.example.com": RFC8463_KEY})).result == "pass"


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
def test_every_canonicalisation_passes(header: bytes, body: bytes) -> None:
    tags = b"a=rsa-sha256; c=%b/%b; h=From:Subject:To" % (header, body)
    message = own(MESSAGE, tags, c=(header == b"relaxed", body == b"relaxed"))
    assert one(message, table(RSA)).result == "pass"
    changed = message.replace(b"Dear  Bob", b"Dear Bob")
    assert one(changed, table(RSA)).result == ("pass" if body == b"relaxed" else "fail")
    refolded = message.replace(b"Subject: a  line\r\n\tfolded ", b"subject:a line folded")
    assert one(refolded, table(RSA)).result == ("pass" if header == b"relaxed" else "fail")


def test_without_c_both_are_simple() -> None:
    assert one(own(MESSAGE, b"a=rsa-sha256; h=from", c=(False, False)), table(RSA)).result == "pass"
    assert one(own(MESSAGE, b"a=rsa-sha256; c=relaxed; h=from", c=(True, False)), table(RSA)).result == "pass"


def test_a_changed_body_or_header_fails() -> None:
    message = signed(MESSAGE, RSA)
    assert one(message.replace(b"this is it", b"this is not it"), table(RSA)).reason == "body hash did not verify"
    assert one(message.replace(b"bob@b", b"eve@b"), table(RSA)).reason == "signature did not verify"


@pytest.mark.parametrize("name", ["From", "Subject", "To", "Cc", "Reply-To", "Sender", "Date", "Content-Type"])
def test_a_field_added_on_the_way_breaks_an_oversigned_signature(name: str) -> None:
    added = signed(MESSAGE, RSA).replace(b"\r\nFrom:", b"\r\n" + name.encode() + b": mallory@m.example\r\nFrom:", 1)
    assert one(added, table(RSA)).result == "fail"


def test_what_stands_behind_l_is_told() -> None:
    message = own(MESSAGE, b"a=rsa-sha256; c=relaxed/relaxed; l=9; h=from") + b"<a href=evil>\r\n"
    found = one(message, table(RSA))
    assert (found.result, found.body_length) == ("pass", 9)
    assert found.uncovered == len(canon.relaxed_body(canon.parted(message)[1])) - 9
    assert one(own(MESSAGE, b"a=rsa-sha256; c=relaxed/relaxed; l=99999; h=from"), table(RSA)).result == "permerror"


def test_a_broken_body_asks_nobody() -> None:
    lookup = table(RSA)
    one(signed(MESSAGE, RSA).replace(b"this is it", b"no"), lookup)
    assert lookup.asked == []


def test_a_key_may_be_missing_revoked_of_another_kind_or_not_to_be_had() -> None:
    message = signed(MESSAGE, RSA)
    name = "rsa2048._domainkey.a.example"
    assert (one(message, Table({})).result, one(message, Table({})).reason) == ("permerror", "no key for signature")
    assert one(message, Table({name: None})).result == "temperror"
    assert one(message, Table({name: "v=DKIM1; p="})).reason == "the key was revoked"
    assert one(message, Table({name: keys.record(ED.key)})).reason == "the key is for ed25519"
    assert one(message, Table({name: "v=DKIM1; p=AAAA"})).result == "permerror"
    good = keys.record(RSA.key)
    for bad in ("v=DKIM2;", "v=DKIM1; h=sha1;", "v=DKIM1; s=tlsrpt;", "v=DKIM1; k=dsa;", "k=rsa; v=DKIM1;"):
        assert one(message, Table({name: good.replace("v=DKIM1;", bad)})).result == "permerror", bad
    for right in ("", "v=DKIM1; h=sha1:sha256;", "v=DKIM1; s=email;", "v=DKIM1; n=a note;", "v=DKIM1; t=s;"):
        assert one(message, Table({name: good.replace("v=DKIM1;", right)})).result == "pass", right


def test_a_testing_domain_is_told() -> None:
    record = keys.record(RSA.key).replace("v=DKIM1;", "v=DKIM1; t=y;")
    assert one(signed(MESSAGE, RSA), Table({"rsa2048._domainkey.a.example": record})).is_test


def test_a_key_may_be_not_for_subdomains() -> None:
    message = own(MESSAGE, b"a=rsa-sha256; c=relaxed/relaxed; h=from; i=x@sub.a.example")
    strict = keys.record(RSA.key).replace("v=DKIM1;", "v=DKIM1; t=s;")
    assert one(message, table(RSA)).identity == "x@sub.a.example"
    assert one(message, Table({"rsa2048._domainkey.a.example": strict})).reason == "the key is not for subdomains"


def test_what_rfc_8301_forbids_does_not_pass() -> None:
    assert one(own(MESSAGE, b"a=rsa-sha1; h=from"), table(RSA)).result == "policy"
    short = keys.public_key(
        b"v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL7HmZE7Nu3vLvVLSjVlrs2V4dgGcYJQ8hjEmvUM1EGgLjlQpsFWnVGTy2C4vHo"
        b"C6JvF5h2CjPfvIQjSKhsqG4kCAwEAAQ=="
    )
    assert isinstance(short, keys.PublicKey)
    assert (short.bits, short.weakness) == (512, "the RSA key has only 512 bits")


def test_an_old_signature_has_expired() -> None:
    message = own(MESSAGE, b"a=rsa-sha256; c=relaxed/relaxed; h=from; t=1000; x=2000")
    assert one(message, table(RSA), now=1999.0).result == "pass"
    assert one(message, table(RSA), now=2001.0).reason == "the signature has expired"


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (b"a=rsa-sha256; h=to", "h= leaves From unsigned"),
        (b"a=rsa-sha256; h=from:", "h= is no list of fields"),
        (b"a=rsa-sha256", "no h="),
        (b"a=rsa-md5; h=from", "a=rsa-md5 is not known"),
        (b"a=rsa-sha256; h=from; c=strict", "c=strict is not known"),
        (b"a=rsa-sha256; h=from; i=x@b.example", "i= is not of the domain of d="),
        (b"a=rsa-sha256; h=from; i=x@xa.example", "i= is not of the domain of d="),
        (b"a=rsa-sha256; h=from; q=http", "q= names no way to the key"),
        (b"a=rsa-sha256; h=from; t=20; x=10", "x= lies before t="),
        (b"a=rsa-sha256; h=from; l=-1", "l= is no number"),
        (b"a=rsa-sha256; h=from; h=to", "the tag h stands there twice"),
        (b"a=rsa-sha256; h=from; nonsense", "a part is no tag: nonsense"),
    ],
)
def test_a_field_that_cannot_be_read_says_why(tags: bytes, reason: str) -> None:
    found = one(own(MESSAGE, tags), table(RSA))
    assert (found.result, found.reason) == ("permerror", reason)


def test_only_so_many_signatures_cost_something() -> None:
    message = signed(MESSAGE, *[RSA] * (verify.SIGNATURES + 3))
    lookup = table(RSA)
    found = judged(message, lookup)
    assert [s.result for s in found].count("pass") == verify.SIGNATURES == len(lookup.asked)
    assert found[-1].result == "policy"


def test_a_message_without_from_is_not_signed() -> None:
    assert sign.sign(canon.fields(b"To: b@b.example\r\n"), b"", [RSA], NOW) == b""


def test_a_key_whose_exponent_is_as_long_as_its_modulus_is_none() -> None:
    """Each look would cost fifty times as much, and a message may hold a hundred signatures."""
    numbers = rsa.RSAPublicNumbers((1 << 3070) + 1, (1 << 3072) - 1)
    octets = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = keys.public_key(b"v=DKIM1; p=" + base64.b64encode(octets))
    assert found == "the RSA key's exponent is too large"


def test_a_private_key_shows_nothing_of_itself() -> None:
    assert repr(RSA.key) == "PrivateKey(rsa-sha256, 2048 bits)"
    with pytest.raises(keys.BadKey, match="no private key"):
        keys.private_key(b"-----BEGIN NONSENSE-----")


def test_a_key_record_says_the_kind() -> None:
    assert keys.record(ED.key).startswith("v=DKIM1; k=ed25519; p=")
    assert pem("ed25519").startswith(b"-----BEGIN PRIVATE KEY-----")


# ---- bodies


BODIES = [
    b"",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b" \t\r\n \r\n",
    b"a",
    b"a ",
    b"a\r\n",
    b"a \t b\r\n\r\n",
    b"a\r\n\r\n\r\nb",
    b"a\r\r\n\n \r\n",
    b"\r\n" * 2000 + b"x\r\n",
    b"x" * 70000 + b" " * 70000 + b"\r\n" + b"\t" * 200000,
    b"x\r\n" + b" \r" * 70000,
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("wish", [canon.SIMPLE, canon.RELAXED, canon.BodyWish(True, 3), canon.BodyWish(False, 0)])
def test_pieces_hash_as_the_whole(body: bytes, wish: canon.BodyWish) -> None:
    whole = canon.body_hash(body, wish)
    for size in (1, 3, 1000, 65536) if len(body) < 5000 else (997, 65536, 1 << 20):
        hashes = canon.BodyHashes([wish], skip=4)
        content = b"h:\r\n" + body
        for at in range(0, len(content), size):
            hashes.update(content[at : at + size])
        assert hashes.get(wish) == whole, size


def test_the_empty_body_is_as_rfc_6376_says() -> None:
    assert canon.simple_body(b"") == b"\r\n"
    assert canon.relaxed_body(b"") == b""
    assert canon.relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n") == b" C\r\nD E\r\n"
    assert canon.relaxed_field(b"b", b"B : Y\t\r\n\tZ  \r\n") == b"b:Y Z\r\n"


def test_a_streamed_message_needs_no_body() -> None:
    head, body = canon.parted(signed(MESSAGE, RSA, ED))
    headers = canon.fields(head)
    hashes = canon.BodyHashes(verify.wishes(headers))
    hashes.update(body)
    found = asyncio.run(verify.verify(headers, hashes, table(RSA, ED), NOW))
    assert [s.result for s in found] == ["pass", "pass"]
