"""Bounces of the world and our own MIME collection, byte for byte through the house: to a Maildir, and to Postfix."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from kit import samples
from kit.mails import stored
from kit.postfix import postfix
from kit.posthof import Posthof, mail_domain, posthof, to_host

pytestmark = pytest.mark.interop

# What Postfix would otherwise do to content: drop some fields, add others, break long lines.
LEAVE_ALONE = {
    "message_drop_headers": "",
    "always_add_missing_headers": "no",
    "local_header_rewrite_clients": "",
    "line_length_limit": "65536",
    "strict_mime_encoding_domain": "no",
}


def send_all(mta: Posthof, recipient: str, contents: Iterable[bytes]) -> None:
    """Each by BDAT, so that nothing between client and house touches it."""
    with mta.connect() as session:
        for content in contents:
            assert session.mail("a@client.test", ["BODY=8BITMIME"])[0] == 250
            assert session.rcpt(recipient)[0] == 250
            session.send(b"BDAT %d LAST\r\n" % len(content) + content)
            code, words = session.getreply()
            assert code == 250, words


def test_there_are_samples_of_both_kinds() -> None:
    assert len(samples.bounces()) >= 40
    assert len(samples.mime()) >= 10


def test_every_sample_lies_unchanged_in_the_maildir() -> None:
    everything = samples.everything()
    with posthof(mail_domain("ours.test", "Maildir", recipients={"any": True})) as mta:
        send_all(mta, "b@ours.test", everything.values())
        arrived = mta.inbox("ours.test", "b").wait_for(len(everything))
    for name, content in everything.items():
        assert any(one.endswith(content) for one in arrived), name


def test_every_sample_reaches_postfix_unchanged() -> None:
    # Without a line end at the end nothing can leave by DATA. The one left out has blanks before the colons of its
    # header fields, which Postfix takes away.
    contents = {n: c for n, c in samples.everything().items() if c.endswith(b"\r\n") and is_plain(c)}
    del contents["mime/header-blanks.eml"]
    with (
        postfix(domain="peer.test", extra=LEAVE_ALONE) as peer,
        posthof(to_host("out", "127.0.0.1", peer.port)) as mta,
    ):
        send_all(mta, "b@peer.test", contents.values())
        arrived = peer.inbox.wait_for(len(contents))
    for name, content in contents.items():
        assert any(one.endswith(stored(content)) for one in arrived), name


def is_plain(content: bytes) -> bool:
    """Lines end with CRLF and hold no NUL: what can pass by DATA, and what Postfix does not mend."""
    return b"\0" not in content and content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
