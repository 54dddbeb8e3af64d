"""REQUIRETLS and TLS-Required (RFC 8689) on the way in: read strictly, refused in the clear."""

import itertools

import pytest

from kit.manifests import compiled, domain
from posthof_crds.engine import Listener, ListenerRole
from posthof_pod.admit.headers import scan
from posthof_pod.admit.judge import Admission
from posthof_pod.model import Envelope, Recipient, TLSWish
from posthof_pod.smtp.grammar import Malformed, parse_mail
from posthof_pod.smtp.terms import Terms


def test_requiretls_is_a_parameter_without_a_value():
    assert parse_mail(b"MAIL FROM:<a@b.test> REQUIRETLS")[1].requiretls
    assert not parse_mail(b"MAIL FROM:<a@b.test> SIZE=10")[1].requiretls
    with pytest.raises(Malformed):
        parse_mail(b"MAIL FROM:<a@b.test> REQUIRETLS=yes")


def test_it_is_offered_under_tls_alone():
    terms = Terms(Listener(name="mx", role=ListenerRole.MX, host="", port=25), "mx.test", has_certificate=True)
    assert b"REQUIRETLS" in terms.ehlo(is_secure=True, has_xclient=False)
    assert b"REQUIRETLS" not in terms.ehlo(is_secure=False, has_xclient=False)


@pytest.mark.parametrize(
    ("head", "is_optional"),
    [
        (b"TLS-Required: No\r\n", True),
        (b"Subject: x\r\ntls-required:no\r\nTo: y\r\n", True),
        (b"TLS-Required:  NO \r\n", True),
        (b"TLS-Required: None\r\n", False),
        (b"TLS-Required: Yes\r\n", False),
        (b"X-TLS-Required: No\r\n", False),
        (b"Subject: TLS-Required: No\r\n", False),
        (b"Subject: x\r\n", False),
    ],
)
def test_the_header_counts_only_with_no(head, is_optional):
    assert scan(head).has_tls_optional is is_optional


@pytest.mark.parametrize("order", list(itertools.permutations((0, int(TLSWish.REQUIRED), int(TLSWish.OPTIONAL)))))
def test_what_one_message_wishes_is_no_other_message_s(order: tuple[int, ...]) -> None:
    """All of one account, from one client, to one domain: the way of the first must not be that of the next."""
    admission = Admission(compiled(domain("ours", "mode: Maildir\nrecipients: {list: [bob]}")))
    found = {}
    for wish in order:
        to = (Recipient("x@far.test", ""),)
        envelope = Envelope("a-1", "a@b.test", to, 0.0, 1, client="192.0.2.1", credential="shop", tls_wish=wish)
        destination = admission.destination(envelope, to[0])
        found[wish] = (destination.tls.value, destination.requires_tls)
    assert found == {0: ("Best", False), int(TLSWish.REQUIRED): ("Best", True), int(TLSWish.OPTIONAL): ("May", False)}
