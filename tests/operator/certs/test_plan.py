"""What is done for a TLSCert, and what is told of it."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_certs import issue, pair
from posthof_certs.issue import ECDSA, KeyKind, Order
from posthof_certs.pair import Pair
from posthof_crds.reasons import Reason
from posthof_operator.certs.plan import Do, Ordered, Snapshot, plan
from posthof_operator.certs.wish import IssuerRef, Source, Wish

NOW = 1_800_000_000.0
DAY = 86400.0
ORDER = Order(("mx.example.org",), ECDSA, 90 * DAY)
SELF = Wish("mail", "mx", Source.SELF_SIGNED, ORDER)
BY_CA = SELF._replace(source=Source.CA, secret="ca")
BY_SECRET = SELF._replace(source=Source.SECRET, secret="bought")
BY_CERT_MANAGER = SELF._replace(source=Source.CERT_MANAGER, issuer=IssuerRef("letsencrypt", "ClusterIssuer"))


@cache
def authority(days: float = 3650, name: str = "Example root") -> Pair:
    return issue.make_authority(name, days * DAY, NOW)


def made_by(snapshot: Snapshot, now: float) -> Pair:
    """What the reconcile would store."""
    if snapshot.wish.source is Source.SELF_SIGNED:
        return issue.self_signed(snapshot.wish.order, now)
    assert isinstance(snapshot.source, Pair)
    return issue.by_authority(snapshot.wish.order, issue.read_authority(snapshot.source, now), now)


@cache
def good(wish: Wish = SELF) -> Pair:
    return made_by(Snapshot(wish, source=authority()), NOW)


# -- made here


def test_nothing_there_is_issued() -> None:
    found = plan(Snapshot(SELF), NOW)
    assert (found.do, found.in_force) == (Do.ISSUE, None)
    assert found.why is not None
    assert found.why.message == "there is no certificate in Secret mx-tls yet"


def test_what_was_issued_is_left_alone_until_two_thirds_of_its_time() -> None:
    found = plan(Snapshot(SELF, good()), NOW)
    assert (found.do, found.trouble, found.warning) == (Do.NOTHING, None, "")
    assert found.renewal == pytest.approx(NOW - 3600 + (90 * DAY + 3600) * 2 / 3)
    assert found.again == found.renewal
    assert plan(Snapshot(SELF, good()), found.renewal - 1).do is Do.NOTHING
    due = plan(Snapshot(SELF, good()), found.renewal)
    assert due.do is Do.ISSUE
    assert due.in_force is not None  # until the new one is there


def test_renew_before_says_when() -> None:
    wish = SELF._replace(renew_before=10 * DAY)
    assert plan(Snapshot(wish, good()), NOW).renewal == NOW + 80 * DAY


def test_a_renew_before_longer_than_the_certificate_does_not_renew_for_ever() -> None:
    wish = SELF._replace(renew_before=100 * DAY)
    assert plan(Snapshot(wish, good()), NOW).do is Do.NOTHING


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (
            SELF._replace(order=ORDER._replace(names=("mx.example.org", "b.example.org"))),
            "dnsNames now has b.example",
        ),
        (SELF._replace(order=ORDER._replace(names=("b.example.org",))), "dnsNames now has b.example.org"),
        (SELF._replace(order=ORDER._replace(key=KeyKind("RSA", 2048))), "privateKey asks for RSA 2048"),
        (SELF._replace(order=ORDER._replace(key=KeyKind("ECDSA", 384))), "privateKey asks for ECDSA 384"),
        (SELF._replace(order=ORDER._replace(duration=30 * DAY)), "duration has changed"),
        (BY_CA, "issuer asks for the authority in ca now"),
    ],
)
def test_a_changed_wish_is_obeyed_at_once(wish: Wish, words: str) -> None:
    found = plan(Snapshot(wish, good(), source=authority()), NOW)
    assert found.do is Do.ISSUE
    assert found.why is not None
    assert words in found.why.message


def test_fewer_names_are_obeyed_too() -> None:
    two = SELF._replace(order=ORDER._replace(names=("mx.example.org", "old.example.org")))
    found = plan(Snapshot(SELF, good(two)), NOW)
    assert found.do is Do.ISSUE
    assert found.why is not None
    assert "old.example.org no more" in found.why.message


def test_a_damaged_secret_is_made_anew() -> None:
    found = plan(Snapshot(SELF, Pair(good().chain, b"gone")), NOW)
    assert (found.do, found.in_force) == (Do.ISSUE, None)


def test_another_authority_means_another_certificate() -> None:
    found = plan(Snapshot(BY_CA, good(BY_CA), source=authority(name="Another")), NOW)
    assert found.do is Do.ISSUE
    assert found.why is not None
    assert "another authority" in found.why.message


def test_without_its_authority_nothing_can_be_issued_and_the_message_says_what_is_missing() -> None:
    found = plan(Snapshot(BY_CA), NOW)
    assert found.do is Do.NOTHING
    assert found.trouble is not None
    assert (found.trouble.reason, found.trouble.message) == (
        Reason.ISSUER_MISSING,
        "Secret ca of the certificate authority is not there",
    )


def test_a_valid_certificate_outlives_the_loss_of_its_authority_with_a_warning() -> None:
    found = plan(Snapshot(BY_CA, good(BY_CA)), NOW)
    assert (found.do, found.trouble) == (Do.NOTHING, None)
    assert found.warning.startswith("it cannot be renewed at 2027-")


def test_a_due_renewal_without_an_authority_keeps_the_valid_one_and_says_so() -> None:
    found = plan(Snapshot(BY_CA, good(BY_CA)), NOW + 80 * DAY)
    assert (found.do, found.trouble) == (Do.NOTHING, None)
    assert found.why is not None
    assert "but Secret ca of the certificate authority is not there" in found.warning
    ended = plan(Snapshot(BY_CA, good(BY_CA)), NOW + 90 * DAY)
    assert ended.in_force is None
    assert ended.trouble is not None


def test_a_server_certificate_as_authority_is_refused_with_the_reason() -> None:
    found = plan(Snapshot(BY_CA, source=good()), NOW)
    assert found.trouble is not None
    assert found.trouble.reason is Reason.ISSUER_FAILED
    assert "Secret ca cannot be used: its certificate may not sign others" in found.trouble.message


def test_a_certificate_that_ends_with_its_authority_is_not_renewed_over_and_over() -> None:
    short = authority(days=100)
    wish = BY_CA._replace(order=ORDER._replace(duration=365 * DAY))
    made = made_by(Snapshot(wish, source=short), NOW)
    assert plan(Snapshot(wish, made, source=short), NOW + 99 * DAY).do is Do.NOTHING


def test_a_secret_of_somebody_else_is_not_touched() -> None:
    found = plan(Snapshot(SELF, is_foreign=True), NOW)
    assert found.do is Do.NOTHING
    assert found.trouble is not None
    assert found.trouble.reason is Reason.SECRET_TAKEN


@given(
    source=st.sampled_from([Source.SELF_SIGNED, Source.CA]),
    hours=st.integers(1, 24 * 3650),
    renew=st.none() | st.integers(1, 24 * 4000),
    names=st.lists(st.sampled_from(["a.example", "b.example", "c.example"]), min_size=1, unique=True),
    age=st.integers(0, 3000),
)
def test_what_a_plan_asked_for_satisfies_it(
    source: Source, hours: int, renew: int | None, names: list[str], age: int
) -> None:
    wish = Wish("mail", "mx", source, Order(tuple(names), ECDSA, hours * 3600.0), renew and renew * 3600.0, "ca")
    now = NOW + age * DAY
    snapshot = Snapshot(wish, source=authority())
    found = plan(snapshot, now)
    assert found.do is Do.ISSUE
    after = plan(snapshot._replace(current=made_by(snapshot, now)), now)
    assert (after.do, after.trouble) == (Do.NOTHING, None)
    assert after.again is not None
    assert after.again > now


# -- from a Secret


def test_a_good_pair_is_copied_once() -> None:
    found = plan(Snapshot(BY_SECRET, source=good()), NOW)
    assert found.do is Do.COPY
    again = plan(Snapshot(BY_SECRET, good(), source=good()), NOW)
    assert (again.do, again.trouble, again.renewal) == (Do.NOTHING, None, None)
    assert again.in_force == pair.read(good())


def test_a_bad_successor_is_not_served_and_the_message_says_both() -> None:
    bad = Pair(good(BY_CA).chain, good().key)
    found = plan(Snapshot(BY_SECRET, good(), source=bad), NOW)
    assert found.do is Do.NOTHING
    assert found.in_force == pair.read(good())
    assert found.trouble is not None
    assert found.trouble.reason is Reason.PAIR_INVALID
    assert found.trouble.message.startswith("Secret bought cannot be served: the key does not belong to the certif")
    assert "The pair before it, valid until 2027-04-15T08:00:00Z, stays in force" in found.trouble.message


@pytest.mark.parametrize("is_first", [True, False])
def test_a_missing_secret_is_told_and_what_was_there_stays(is_first: bool) -> None:
    found = plan(Snapshot(BY_SECRET, None if is_first else good()), NOW)
    assert found.do is Do.NOTHING
    assert found.trouble is not None
    assert found.trouble.reason is Reason.SECRET_MISSING
    assert (found.in_force is None) == is_first


def test_a_pair_for_other_names_is_refused() -> None:
    wish = BY_SECRET._replace(order=ORDER._replace(names=("mx.example.org", "b.example.org")))
    found = plan(Snapshot(wish, source=good()), NOW)
    assert found.trouble is not None
    assert found.trouble.reason is Reason.NAMES_MISSING


def test_a_pair_whose_time_has_not_begun_is_looked_at_again_when_it_has() -> None:
    later = issue.self_signed(ORDER, NOW + 10 * DAY)
    found = plan(Snapshot(BY_SECRET, source=later), NOW)
    assert found.trouble is not None
    assert found.trouble.reason is Reason.NOT_YET_VALID
    assert found.again == NOW + 10 * DAY - 3600


def test_a_pair_nobody_renews_is_warned_of_while_it_is_served() -> None:
    found = plan(Snapshot(BY_SECRET, good(), source=good()), NOW + 70 * DAY)
    assert found.trouble is None
    assert found.warning == "it ends at 2027-04-15T08:00:00Z, and Secret bought still holds no successor"
    ended = plan(Snapshot(BY_SECRET, good(), source=good()), NOW + 90 * DAY)
    assert ended.in_force is None
    assert ended.trouble is not None
    assert ended.trouble.reason is Reason.EXPIRED


# -- by cert-manager


def test_without_cert_manager_the_message_says_what_to_do() -> None:
    found = plan(Snapshot(BY_CERT_MANAGER, has_cert_manager=False), NOW)
    assert found.do is Do.NOTHING
    assert found.trouble is not None
    assert found.trouble.reason is Reason.CERT_MANAGER_MISSING


def test_a_certificate_is_ordered_and_waited_for() -> None:
    assert plan(Snapshot(BY_CERT_MANAGER), NOW).do is Do.ORDER
    waiting = plan(Snapshot(BY_CERT_MANAGER, ordered=Ordered(True, message="Issuing certificate")), NOW)
    assert waiting.do is Do.NOTHING
    assert waiting.trouble is not None
    assert waiting.trouble.message == "cert-manager has not issued it yet: Issuing certificate"


def test_what_cert_manager_says_of_a_failure_is_passed_on() -> None:
    ordered = Ordered(True, has_failed=True, message="the order was refused")
    found = plan(Snapshot(BY_CERT_MANAGER, ordered=ordered), NOW)
    assert found.trouble is not None
    assert found.trouble.reason is Reason.ISSUER_FAILED
    assert found.trouble.message == (
        "cert-manager could not issue by ClusterIssuer letsencrypt: the order was refused"
    )


def test_what_cert_manager_issued_is_in_force() -> None:
    found = plan(Snapshot(BY_CERT_MANAGER, good(), ordered=Ordered(True, is_ready=True)), NOW)
    assert (found.do, found.why, found.trouble) == (Do.NOTHING, None, None)
    changed = plan(Snapshot(BY_CERT_MANAGER, good(), ordered=Ordered(False, is_ready=True)), NOW)
    assert (changed.do, changed.trouble) == (Do.ORDER, None)
