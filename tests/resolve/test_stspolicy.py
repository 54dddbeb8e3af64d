"""MTA-STS records and policies (RFC 8461), and which TLSA records count (RFC 7671): read strictly or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthof_pod.deliver.dane import Mismatch, public_key, verify
from posthof_pod.resolve import stspolicy
from posthof_pod.resolve.sts import Shelf
from posthof_pod.resolve.stspolicy import BadPolicy, Mode, read_policy, read_record
from posthof_pod.resolve.tlsa import TLSA, usable

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "announced"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1; ext=x; id=1; id=2;"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1;"], "1"),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=2;"], ""),
        ([b"v=STSv1; id=a-b;"], ""),
        ([b"v=STSv1; id=" + b"a" * 33], ""),
        ([b"v=STSv1; id="], ""),
        ([b"v=STSv1;"], ""),
        ([b" v=STSv1; id=1;"], ""),
        ([b"v=STSv2; id=1;"], ""),
        ([b"v=STSv1; id=1; nonsense"], ""),
        ([b"v=STSv1; id=\xff"], ""),
        ([], ""),
    ],
)
def test_exactly_one_record_announces(texts, announced):
    assert read_record(texts) == announced


def test_a_policy_is_read():
    policy = read_policy("example.com", "1", GOOD, 1000.0)
    assert (policy.mode, policy.max_age, policy.until) == (Mode.ENFORCE, 604800, 605800.0)
    assert [
        policy.has(host) for host in ("MAIL.example.com.", "a.example.net", "a.b.example.net", "example.net")
    ] == [
        True,
        True,
        False,
        False,
    ]
    assert read_policy("example.com", "1", GOOD.replace(b"\r\n", b"\n"), 1000.0) == policy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD.replace(b"STSv1", b"STSv2"),
        GOOD.replace(b"version: STSv1\r\n", b""),
        GOOD.replace(b"enforce", b"Enforce"),
        GOOD.replace(b"604800", b"-1"),
        GOOD.replace(b"604800", b"1e9"),
        GOOD.replace(b"604800", b"99999999999"),
        GOOD.replace(b"mx: mail.example.com", b"mx: *"),
        GOOD.replace(b"mx: mail.example.com", b"mx: *.*.example.com"),
        GOOD.replace(b"mx: mail.example.com", b"mx: a_b.exa mple"),
        GOOD.replace(b"mx: mail.example.com", b"mx mail.example.com"),
        b"version: STSv1\nmode: enforce\nmax_age: 100\n",
        GOOD + b"x" * stspolicy.LARGEST,
        b"<html>moved</html>",
    ],
)
def test_a_policy_that_breaks_the_grammar_is_none(content):
    with pytest.raises(BadPolicy):
        read_policy("example.com", "1", content, 0.0)


def test_a_policy_without_hosts_may_only_say_none():
    assert read_policy("a.test", "1", b"version: STSv1\nmode: none\nmax_age: 1\n", 0.0).mode is Mode.NONE


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=80), max_size=3))
def test_whatever_stands_there_is_read_or_refused(content, texts):
    read_record([b"v=STSv1;" + text for text in texts])
    try:
        read_policy("a.test", "1", GOOD[:20] + content, 0.0)
    except BadPolicy:
        return


def test_the_shelf_keeps_policies_and_believes_no_other_file(tmp_path):
    shelf = Shelf(tmp_path / "mta-sts")
    policy = read_policy("example.com", "1", GOOD, 1000.0)
    shelf.write(policy)
    assert (shelf.names(), shelf.read("example.com")) == ({"example.com"}, policy)
    (tmp_path / "mta-sts" / "other.test").write_bytes((tmp_path / "mta-sts" / "example.com").read_bytes())
    (tmp_path / "mta-sts" / "broken.test").write_bytes(b"{")
    assert shelf.read("other.test") is None
    assert shelf.read("broken.test") is None
    assert shelf.read("../example.com") is None
    shelf.tidy("example.com", policy.until + 1)
    assert shelf.read("example.com") is None


def test_of_tlsa_records_those_that_smtp_can_use_count_and_the_strongest_digest_of_a_kind():
    weak, strong = TLSA(3, 1, 1, b"a" * 32), TLSA(3, 1, 2, b"b" * 64)
    whole, ta = TLSA(3, 0, 0, b"cert"), TLSA(2, 0, 1, b"c" * 32)
    useless = [
        TLSA(0, 0, 1, b"d" * 32),
        TLSA(1, 1, 1, b"d" * 32),
        TLSA(3, 2, 1, b"d" * 32),
        TLSA(3, 1, 1, b"short"),
        TLSA(3, 1, 3, b"d" * 32),
        TLSA(3, 1, 0, b""),
    ]
    assert set(usable([weak, strong, whole, ta, *useless, strong])) == {strong, whole, ta}
    assert usable(useless) == ()
    assert usable([weak]) == (weak,)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_a_certificate_that_is_none_is_a_mismatch_and_never_an_error(data):
    for bytes_ in (data, b"\x30\x82\x01\x00\x30" + data):
        try:
            public_key(bytes_)
        except ValueError:
            continue
    for record in ((3, 1, 1, b"x" * 32), (2, 0, 1, b"x" * 32), (2, 1, 0, data or b"x")):
        with pytest.raises(Mismatch):
            verify([data], [record], ["a.test"], 0.0)
