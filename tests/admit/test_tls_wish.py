"""REQUIRETLS and TLS-Required (RFC 8689) on the way in: read strictly, refused in the clear."""

import pytest

from posthof_crds.engine import Listener, ListenerRole
from posthof_pod.admit.headers import scan
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
