"""Accounts: who has a user name, what a tenant may send as, and that nothing of it opens a relay."""

from __future__ import annotations

import pytest

from kit.fleets import TENANTS, credential, domain, fleet, mta, policy, told, verdict
from posthof_crds import verifiers
from posthof_crds.engine import SecretRef
from posthof_crds.fleet import Fleet, parts_in_force
from posthof_crds.reasons import Reason
from posthof_crds.verifiers import BadVerifier
from posthof_pod.admit.policy import CompiledPolicy, Facts, Verdict

NAMED = "mtaRef: {name: edge, namespace: mail}\n"
OURS = "generate: {}\nallowedSenders: [a@tenants.example]\n"
ANY_HOP = TENANTS.replace("198.51.100.0/24", '"*"')
A_TENANTS = NAMED + "generate: {}\ndomainRef: {name: a}\n"


def decide(found: Fleet, role: str, credential: str, recipient: str, client: str = "192.0.2.9") -> Verdict:
    assert found.config is not None
    return (
        CompiledPolicy(found.config).decide(Facts(role, client, "x@y.test", recipient, credential=credential)).verdict
    )


class TestAnAccount:
    def test_has_its_verifier_beside_its_password(self) -> None:
        found = fleet(credential("mail/a", "secretRef: {name: s, passwordKey: pw}\nallowedSenders: [a@b.test]"))
        assert found.secrets == {SecretRef(name="mail/s", key="pw.hash")}

    def test_whose_secret_is_missing_says_so_and_stays(self) -> None:
        found = fleet(credential("mail/a", OURS), secrets={})
        assert verdict(found, "mail/a").resolved is Reason.SECRET_MISSING
        assert verdict(found, "mail/a").accepted

    def test_is_content_with_a_password_to_be_hashed_and_with_a_hash(self) -> None:
        for keys in ({"password"}, {"password.hash"}):
            found = fleet(credential("mail/a", OURS), secrets={"mail/a-smtp": keys})
            assert verdict(found, "mail/a").resolved is Reason.RESOLVED

    def test_of_the_mtas_namespace_has_the_user_name_first_then_the_older(self) -> None:
        found = fleet(
            domain("shop/a", "a.tenants.example"),
            credential("shop/bob", A_TENANTS, created="2020-01-01T00:00:00Z"),
            credential("mail/bob", OURS),
            credential("mail/x", OURS + "username: BOB", created="2027-01-01T00:00:00Z"),
        )
        assert verdict(found, "mail/bob").accepted
        assert told(found, "shop/bob").startswith("UsernameTaken: SMTPCredential mail/bob has the user name bob.")
        assert verdict(found, "mail/x").reason is Reason.USERNAME_TAKEN

    def test_names_a_mail_domain_that_is_there(self) -> None:
        found = fleet(credential("mail/a", "generate: {}\ndomainRef: {name: d}"))
        assert verdict(found, "mail/a").reason is Reason.DOMAIN_MISSING
        found = fleet(credential("mail/a", "generate: {}\ndomainRef: {name: d}"), domain("mail/d", "d.test"))
        assert found.config is not None
        assert found.config.credentials["mail/a"].senders == ("d.test",)

    def test_stays_as_it_was_where_it_became_wrong(self) -> None:
        good = fleet(credential("mail/a", OURS))
        assert good.config is not None
        kept = parts_in_force(good.config)
        found = fleet(credential("mail/a", "generate: {}"), good=kept)
        assert found.config is not None
        assert found.config.credentials == good.config.credentials
        assert not verdict(found, "mail/a").accepted


class TestATenantsAccount:
    def test_sends_as_the_domains_of_its_namespace(self) -> None:
        found = fleet(domain("shop/a", "a.tenants.example"), credential("shop/c", A_TENANTS))
        assert verdict(found, "shop/c").accepted

    @pytest.mark.parametrize(
        "senders",
        [
            "'*'",
            "'*@*.tenants.example'",
            "'*.tenants.example'",
            "ceo@owner.example",
            "x@b.tenants.example",
            "x@mx.example.org",
            "a@a.tenants.example, root@bank.example",
        ],
    )
    def test_never_sends_as_others(self, senders: str) -> None:
        found = fleet(
            domain("shop/a", "a.tenants.example"),
            domain("blog/b", "b.tenants.example"),
            domain("mail/o", "owner.example"),
            credential("shop/c", f"{NAMED}generate: {{}}\nallowedSenders: [{senders}]"),
        )
        assert verdict(found, "shop/c").reason is Reason.SENDER_NOT_ALLOWED
        assert found.config is not None
        assert found.config.credentials == {}
        assert found.secrets == frozenset()

    def test_gives_what_checks_its_password_only_to_the_mta_it_names(self) -> None:
        unnamed = A_TENANTS.removeprefix(NAMED)
        found = fleet(domain("shop/a", "a.tenants.example"), credential("shop/c", unnamed))
        assert found.secrets == frozenset()
        assert found.config is not None
        assert found.config.credentials == {}

    def test_is_nothing_in_a_namespace_that_is_not_allowed(self) -> None:
        found = fleet(credential("other/c", NAMED + "generate: {}\nallowedSenders: [x@y.test]"))
        assert verdict(found, "other/c").reason is Reason.NOT_ALLOWED

    @pytest.mark.parametrize(("tenants", "verdict_"), [(TENANTS, Verdict.REFUSE), (ANY_HOP, Verdict.RELAY)])
    def test_writes_to_the_world_only_where_the_owner_lets_its_namespace(
        self, tenants: str, verdict_: Verdict
    ) -> None:
        found = fleet(domain("shop/a", "a.tenants.example"), credential("shop/c", A_TENANTS), of=mta(tenants))
        assert decide(found, "Submission", "shop/c", "bob@gmail.example") is verdict_

    def test_obeys_the_rules_of_its_own_namespace_about_accounts_and_nobody_elses(self) -> None:
        rule = (
            "match: {credentials: ['*']}\naction: {type: Smarthost, nextHops: [{host: out.shop.svc.cluster.local}]}"
        )
        found = fleet(
            domain("shop/a", "a.tenants.example"),
            credential("shop/c", A_TENANTS),
            credential("mail/own", OURS),
            policy("shop/out", rule),
        )
        assert verdict(found, "shop/out").accepted
        assert found.config is not None
        asked = CompiledPolicy(found.config)

        def rule_of(credential: str) -> str:
            decision = asked.decide(
                Facts("Submission", "192.0.2.9", "x@y.test", "b@world.example", credential=credential)
            )
            return decision.rule.name if decision.rule else ""

        assert rule_of("shop/c") == "shop/out"
        assert rule_of("mail/own") == ""
        assert rule_of("") == ""


class TestARuleAboutAccounts:
    RULE = "match: {credentials: ['*']}\naction: {type: Direct}"

    def test_of_the_owner_is_about_everybodys(self) -> None:
        found = fleet(
            domain("shop/a", "a.tenants.example"), credential("shop/c", A_TENANTS), policy("mail/all", self.RULE)
        )
        assert decide(found, "Submission", "shop/c", "bob@world.example") is Verdict.RELAY

    @pytest.mark.parametrize("role", ["MX", "Internal", "Submission", "Submissions", ""])
    def test_lets_nobody_relay_who_has_not_logged_in(self, role: str) -> None:
        found = fleet(credential("mail/c", OURS), policy("mail/all", self.RULE))
        assert decide(found, role, "", "bob@world.example") is Verdict.REFUSE
        assert decide(found, role, "mail/nobody", "bob@world.example") is Verdict.REFUSE

    def test_that_names_one_is_about_that_one(self) -> None:
        rule = "match: {credentials: [c]}\naction: {type: Reject}"
        found = fleet(credential("mail/c", OURS), credential("mail/d", OURS), policy("mail/no", rule))
        assert decide(found, "Submission", "mail/c", "bob@world.example") is Verdict.REFUSE
        assert decide(found, "Submission", "mail/d", "bob@world.example") is Verdict.RELAY


class TestAVerifier:
    def test_knows_its_password_and_no_other(self) -> None:
        found = verifiers.parse(verifiers.make("s\u00e4cret", b"0123456789abcdef"))
        assert verifiers.check(found, "s\u00e4cret")
        assert verifiers.check(found, "s\u0061\u0308cret")  # composed by SASLprep
        assert not verifiers.check(found, "secret")
        assert not verifiers.check(found, "")
        assert not verifiers.check(found._replace(scrypt=None), "secret")
        assert verifiers.check(found._replace(scrypt=None), "s\u00e4cret")

    def test_of_rfc_7677_is_as_the_standard_has_it(self) -> None:
        import base64

        salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
        found = verifiers.scram_of(b"pencil", salt, 4096)
        assert base64.b64encode(found.stored_key) == b"WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        assert base64.b64encode(found.server_key) == b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "secret",
            "$scrypt$ln=30,r=8,p=1$MDEyMzQ1Njc$MDEyMzQ1Njc4OWFiY2RlZg",
            "$scrypt$ln=17,r=16,p=4$MDEyMzQ1Njc$MDEyMzQ1Njc4OWFiY2RlZg",  # seconds, for everybody who waits behind it
            "SCRAM-SHA-256$9999999:MDEyMzQ1Njc=$" + "QUFB" * 10 + "QUE=:" + "QUFB" * 10 + "QUE=",
            "$scrypt$ln=14,r=8,p=1$!$x",
            "SCRAM-SHA-256$1:MDEy$MDEy:MDEy",
            "$argon2id$v=19$m=1,t=1,p=1$MDEy$MDEy",
        ],
    )
    def test_that_cannot_be_one_is_refused_without_being_told(self, text: str) -> None:
        with pytest.raises(BadVerifier) as caught:
            verifiers.parse(text)
        assert not text or text not in str(caught.value)

    def test_of_nobody_fits_no_password_and_is_always_the_same(self) -> None:
        like = verifiers.parse(verifiers.make("x", b"0123456789abcdef"))
        one, two = verifiers.nobody(b"key", "eve", like), verifiers.nobody(b"key", "eve", like)
        assert one == two
        assert one != verifiers.nobody(b"key", "mallory", like)
        assert not verifiers.check(one, "x")
        assert one.scram is not None
        assert like.scram is not None
        assert (one.scram.iterations, len(one.scram.salt)) == (like.scram.iterations, len(like.scram.salt))
