"""The trace fields: what is read of a header block, and what this house writes on top of it."""

from __future__ import annotations

import email
import email.policy
import email.utils
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_pod import fields
from posthof_pod.admit import headers

NOW = 1_790_000_000.0


def received(**changes: object) -> bytes:
    facts: dict[str, object] = {
        "helo": "client.example.org",
        "client": "192.0.2.7",
        "protocol": "ESMTP",
        "hostname": "mx.quickstart.test",
        "queue_id": "lane-1",
        "now": NOW,
    } | changes
    return headers.received(**facts)  # type: ignore[arg-type]  # the facts are given by name


def words(field: bytes) -> str:
    return re.sub(r"\s+", " ", field.decode()).strip()


# ---------------------------------------------------------------- where the header block ends


def test_the_block_ends_before_the_empty_line():
    assert headers.block(b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nC: 3\r\n") == b"A: 1\r\nB: 2\r\n"


def test_a_message_that_starts_with_the_empty_line_has_no_header():
    assert headers.block(b"\r\nReceived: not a field\r\n") == b""


def test_a_message_without_an_empty_line_is_header_alone():
    assert headers.block(b"Subject: x\r\n") == b"Subject: x\r\n"


def test_no_more_than_64_kib_are_looked_at():
    assert len(headers.block(b"X: y\r\n" * 100_000)) == fields.LIMIT


# ---------------------------------------------------------------- scan


def test_scan_counts_hops_whatever_their_case():
    head = b"Received: a\r\nreceived: b\r\nRECEIVED: c\r\n Received: folded\r\nX-Received: d\r\n"
    assert headers.scan(head).hops == 3


def test_scan_says_what_is_there():
    found = headers.scan(b"From: a@b.test\r\nDate: x\r\nMESSAGE-ID:  <1@b.test> \r\n")
    assert (found.has_date, found.has_message_id, found.message_id) == (True, True, "<1@b.test>")


def test_scan_of_nothing_finds_nothing():
    assert headers.scan(b"") == headers.Scan(0, "", False, False, True)


def test_scan_reads_a_message_id_folded_onto_the_next_line():
    found = headers.scan(b"Message-ID:\r\n <long@example.org>\r\nTo: x\r\n")
    assert found.message_id == "<long@example.org>"


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r", b"\n"])
def test_scan_reads_a_message_id_at_the_very_end(end: bytes):
    assert headers.scan(b"Message-ID: <1@b.test>" + end).message_id == "<1@b.test>"


def test_scan_sees_utf_8_in_a_header():
    assert not headers.scan("Subject: Grüße\r\n".encode()).is_ascii


def test_a_message_id_never_carries_a_control_character():
    found = headers.scan(b"Message-ID: <1\x00\x1b[2J@b.test>\r\n")
    assert found.message_id.isprintable()


@given(st.binary(max_size=300))
def test_scan_takes_any_bytes(noise: bytes):
    found = headers.scan(noise)
    assert found.message_id.isprintable()
    assert len(found.message_id) <= 250


# ---------------------------------------------------------------- Received


def test_received_names_who_how_and_when():
    assert words(received()) == (
        "Received: from client.example.org ([192.0.2.7]) by mx.quickstart.test with ESMTP id lane-1; "
        + email.utils.formatdate(NOW, usegmt=False).replace("-0000", "+0000")
    )


def test_received_is_one_well_formed_field_for_the_standard_library():
    field = received(recipient="bob@quickstart.test", tls="TLS_AES_256_GCM_SHA384", protocol="ESMTPS")
    message = email.message_from_bytes(field + b"\r\n", policy=email.policy.SMTP)
    assert len(message.keys()) == 1
    assert not message.defects
    date = email.utils.parsedate_to_datetime(str(message["Received"]).rpartition(";")[2])
    assert date.timestamp() == NOW


def test_received_names_the_only_recipient():
    assert "for <bob@quickstart.test>;" in words(received(recipient="bob@quickstart.test"))


def test_received_has_the_cipher_as_the_clause_of_rfc_8314_at_its_end():
    field = words(received(recipient="b@c.test", tls="TLS_AES_256_GCM_SHA384"))
    assert "for <b@c.test> tls TLS_AES_256_GCM_SHA384; " in field


def test_the_tls_version_stands_behind_the_cipher():
    assert "tls TLS_AES_256_GCM_SHA384 (TLSv1.3); " in words(received(tls="TLSv1.3 TLS_AES_256_GCM_SHA384"))


def test_an_ipv6_client_is_a_literal():
    assert "([IPv6:2001:db8::1])" in words(received(client="2001:db8::1"))


def test_a_known_name_of_the_client_stands_beside_its_address():
    assert "(host.example.net [192.0.2.7])" in words(received(client_name="host.example.net"))


@pytest.mark.parametrize("helo", ["[192.0.2.7]", "[IPv6:2001:db8::1]", "a_b.example"])
def test_a_literal_or_a_name_is_taken_as_it_was_said(helo: str):
    assert f"from {helo} (" in words(received(helo=helo))


@pytest.mark.parametrize("helo", ["a b", "evil (", "x;y", "ü.example", "a\r\nSubject: x", '"', "\\"])
def test_a_helo_name_that_is_no_name_is_told_where_it_does_no_harm(helo: str):
    field = received(helo=helo)
    assert field.startswith(b"Received: from [192.0.2.7] (HELO ")
    assert field.count(b"\r\n") == 4
    assert field.count(b";") == 1
    assert field.isascii()


def test_mail_that_came_over_no_network_names_no_address():
    assert words(received(client="", helo="")).startswith("Received: from unknown by mx.quickstart.test")


def test_a_utf_8_recipient_is_named_only_where_the_path_takes_utf_8():
    assert "for <" not in words(received(recipient="jürgen@quickstart.test"))
    assert "for <jürgen@quickstart.test>" in words(received(recipient="jürgen@quickstart.test", protocol="UTF8SMTP"))


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_nothing_a_client_says_makes_a_second_field(helo: str, name: str, recipient: str, cipher: str):
    field = received(helo=helo, client_name=name, recipient=recipient, tls=cipher, protocol="UTF8SMTP")
    assert field.endswith(b"\r\n")
    assert b"\r" not in field.replace(b"\r\n", b"")
    for line in field.split(b"\r\n")[1:-1]:
        assert line.startswith(b"\t")


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"is_extended": False, "is_tls": False}, "SMTP"),
        ({"is_extended": True, "is_tls": False}, "ESMTP"),
        ({"is_extended": True, "is_tls": True}, "ESMTPS"),
        ({"is_extended": True, "is_tls": True, "is_authenticated": True}, "ESMTPSA"),
        ({"is_extended": True, "is_tls": False, "is_authenticated": True}, "ESMTPA"),
        ({"is_extended": True, "is_tls": False, "is_utf8": True}, "UTF8SMTP"),
        ({"is_extended": True, "is_tls": True, "is_utf8": True}, "UTF8SMTPS"),
        ({"is_extended": True, "is_tls": True, "is_utf8": True, "is_authenticated": True}, "UTF8SMTPSA"),
    ],
)
def test_the_with_type_is_that_of_rfc_3848_and_6531(facts: dict[str, bool], word: str):
    assert headers.with_type(**facts) == word


# ---------------------------------------------------------------- Date and Message-ID


def test_a_submitter_gets_the_date_and_the_message_id_it_left_out():
    added, message_id = headers.missing(
        headers.scan(b"From: a@b.test\r\n"), queue_id="lane-9", hostname="mx.test", now=NOW
    )
    assert message_id == "<lane-9@mx.test>"
    assert added == b"Date: " + fields.date(NOW) + b"\r\nMessage-ID: <lane-9@mx.test>\r\n"


def test_what_a_submitter_gave_stays_alone():
    head = b"Date: whenever\r\nMessage-ID: <1@b.test>\r\n"
    assert headers.missing(headers.scan(head), queue_id="lane-9", hostname="mx.test", now=NOW) == (b"", "<1@b.test>")


def test_the_date_is_what_the_standard_library_reads():
    for now in (0.0, 951_782_400.0, NOW, 4_102_444_799.9):
        assert email.utils.parsedate_to_datetime(fields.date(now).decode()).timestamp() == int(now)


# ---------------------------------------------------------------- final delivery


def test_return_path_of_the_null_sender():
    assert headers.return_path("") == b"Return-Path: <>\r\n"


def test_return_path_of_a_sender():
    assert headers.return_path("a@b.test") == b"Return-Path: <a@b.test>\r\n"


def test_a_quoted_local_part_stays_as_it_is():
    assert headers.return_path('"a <b>"@c.test') == b'Return-Path: <"a <b>"@c.test>\r\n'


def test_an_address_with_a_line_end_stays_in_its_field():
    assert headers.return_path("a@b\r\nSubject: x").count(b"\r\n") == 1
    assert headers.delivered_to("a@b\nSubject: x").count(b"\n") == 1


def test_a_loop_is_seen_by_the_same_delivered_to():
    head = b"Delivered-To: other@quickstart.test\r\ndelivered-to:\r\n <Bob@Quickstart.test>\r\n"
    assert headers.is_delivered_to(head, "bob@quickstart.test")
    assert headers.is_delivered_to(head.replace(b"delivered-to", b"DELIVERED-TO"), "bob@quickstart.test")
    assert not headers.is_delivered_to(head, "alice@quickstart.test")
    assert not headers.is_delivered_to(b"Subject: Delivered-To: bob@quickstart.test\r\n", "bob@quickstart.test")


def test_values_are_unfolded_and_in_order():
    head = b"To: a\r\nreferences: <1>\r\n\t<2>\r\nReferences : <3>\r\nReferences-X: no\r\n"
    assert fields.values(head, b"references") == [b"<1>\t<2>", b"<3>"]
