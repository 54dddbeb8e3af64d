"""RCPT TO: who exists, where aliases lead, what is refused."""

from __future__ import annotations

import asyncio

import pytest

from kit.manifests import compiled, domain, mta, policy
from posthof_crds.engine import Domain, EngineConfig, InboundMode, SpoolSettings
from posthof_pod.admit.policy import CompiledPolicy, Facts
from posthof_pod.admit.recipients import MISCONFIGURED, Recipients
from posthof_pod.model import Origin, Recipient
from posthof_pod.replies import Reply

OURS = domain(
    "ours",
    """
    mode: Maildir
    recipients: {list: [Alice, bob, "dot.name", "jürgen"]}
    aliases:
      info: [alice]
      team: [alice, bob, ALICE, friend@far.test]
      chain: [team, far@far.test]
      alice: [alice, archive@far.test]
      split+vip: [bob]
    """,
)
ALIASES = domain("list", "mode: Alias\naliases: {all: [bob@ours.test, x@far.test], postmaster: [bob@ours.test]}")
CATCH = domain("catch", "mode: Maildir\nrecipients: {list: [box]}\ncatchAll: [box]")
REJECT = domain("no", "mode: Reject\nrejectText: Write to ours.test")
ANY = domain("any", "mode: Relay\nnextHops: [{host: a}]\nrecipients: {any: true}\nseparator: ''")
HOUSE = mta(more="doubleBounceTo: bob@ours.test")
ALL = (HOUSE, OURS, ALIASES, CATCH, REJECT, ANY)


def resolver(*rules: str, **given: object) -> Recipients:
    return Recipients(CompiledPolicy(compiled(*ALL, *rules)), **given)  # type: ignore[arg-type]  # keywords of Recipients


def facts(recipient: str, **given: object) -> Facts:
    values: dict[str, object] = {
        "role": "MX",
        "client": "203.0.113.9",
        "sender": "s@far.test",
        "recipient": recipient,
    }
    return Facts(**{**values, **given})  # type: ignore[arg-type]  # a table of facts by name


def asked(house: Recipients, recipient: str, **given: object) -> list[str] | str:
    """Addresses, or the reply."""
    answer = house.resolve(facts(recipient, **given))
    assert isinstance(answer, Reply | tuple)
    return str(answer) if isinstance(answer, Reply) else [each.address for each in answer]


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("bob@ours.test", ["bob@ours.test"]),
        ("BOB@Ours.TEST", ["BOB@Ours.TEST"]),
        ('"bob"@ours.test', ['"bob"@ours.test']),
        ("bob+shop@ours.test", ["bob+shop@ours.test"]),
        ("JÜRGEN@ours.test", ["JÜRGEN@ours.test"]),
        ("info@ours.test", ["alice@ours.test", "archive@far.test"]),
        ("INFO+News@ours.test", ["alice+News@ours.test", "archive@far.test"]),
        ("alice@ours.test", ["alice@ours.test", "archive@far.test"]),
        ("team@ours.test", ["alice@ours.test", "archive@far.test", "bob@ours.test", "friend@far.test"]),
        ("split+vip@ours.test", ["bob@ours.test"]),
        ("split@ours.test", "550 5.1.1 No such mailbox here"),
        ("nobody@ours.test", "550 5.1.1 No such mailbox here"),
        ("+bob@ours.test", "550 5.1.1 No such mailbox here"),
        ("all@list.test", ["bob@ours.test", "x@far.test"]),
        ("nobody@list.test", "550 5.1.1 No such mailbox here"),
        ("anybody@catch.test", ["box@catch.test"]),
        ("box+x@catch.test", ["box+x@catch.test"]),
        ("any+one@any.test", ["any+one@any.test"]),
        ("bob@no.test", "550 5.7.1 Write to ours.test"),
        ("x@far.test", "550 5.7.1 Relaying denied: this server takes no mail for that domain from you"),
        ("bob", "553 5.1.3 The address needs a domain"),
        ("bob@[192.0.2.1]", "550 5.7.1 Relaying denied: this server takes no mail for that domain from you"),
    ],
)
def test_what_a_recipient_stands_for(recipient: str, found: list[str] | str) -> None:
    assert asked(resolver(), recipient) == found


@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("postmaster", ["bob@ours.test"]),
        ("PostMaster", ["bob@ours.test"]),
        ("postmaster@ours.test", ["postmaster@ours.test"]),
        ("postmaster@list.test", ["bob@ours.test"]),
        ("postmaster@catch.test", ["box@catch.test"]),
        ("postmaster@no.test", ["bob@ours.test"]),
        ("postmaster@any.test", ["postmaster@any.test"]),
        ("postmaster@[192.0.2.1]", ["bob@ours.test"]),
    ],
)
def test_postmaster_is_always_taken(recipient: str, found: list[str]) -> None:
    for rules in ([], [policy("no", "action: {type: Reject}")]):
        assert asked(resolver(*rules, is_own=lambda ip: ip == "192.0.2.1"), recipient) == found


def test_postmaster_is_taken_where_a_rule_refuses_everybody_else() -> None:
    house = resolver(policy("no", "action: {type: Reject, text: Closed}"))
    assert asked(house, "bob@ours.test") == "550 5.7.1 Closed"
    assert asked(house, "postmaster@ours.test") == ["postmaster@ours.test"]
    assert asked(house, "postmaster@far.test") == "550 5.7.1 Closed"


def test_postmaster_without_any_domain_lands_in_the_built_in_maildir() -> None:
    house = Recipients(CompiledPolicy(compiled(mta())))
    assert asked(house, "postmaster") == ["postmaster@mx.example.org"]
    assert asked(house, "postmaster@mx.example.org") == ["postmaster@mx.example.org"]
    assert asked(house, "root@mx.example.org") == "550 5.1.1 No such mailbox here"


def test_a_bare_postmaster_may_live_in_a_foreign_domain() -> None:
    house = Recipients(CompiledPolicy(compiled(mta(more="doubleBounceTo: ops@far.test"))))
    assert asked(house, "postmaster") == ["ops@far.test"]
    closed = compiled(mta(more="doubleBounceTo: ops@far.test"), policy("no", "action: {type: Reject}"))
    assert asked(Recipients(CompiledPolicy(closed)), "postmaster") == ["ops@far.test"]


def test_an_address_literal_of_ours_is_the_host_s_own_domain() -> None:
    own = {"is_own": lambda ip: ip in ("192.0.2.1", "2001:db8::1")}
    host = domain("host", "mode: Maildir\nrecipients: {list: [root]}", place="mx.example.org")
    house = Recipients(CompiledPolicy(compiled(*ALL, host)), **own)  # type: ignore[arg-type]  # keywords of Recipients
    assert asked(house, "root@[192.0.2.1]") == ["root@mx.example.org"]
    assert asked(house, "root@[IPv6:2001:DB8::1]") == ["root@mx.example.org"]
    assert asked(house, "bob@[192.0.2.1]") == "550 5.1.1 No such mailbox here"
    assert str(asked(house, "root@[192.0.2.2]")).startswith("550 5.7.1 Relaying denied")


def test_a_domain_in_its_own_script_and_as_a_labels_is_one() -> None:
    umlaut = domain("u", "mode: Maildir\nrecipients: {list: [bob]}", place="münchen.example")
    house = Recipients(CompiledPolicy(compiled(umlaut)))
    assert asked(house, "bob@MÜNCHEN.example") == ["bob@MÜNCHEN.example"]
    assert asked(house, "bob@xn--mnchen-3ya.example") == ["bob@xn--mnchen-3ya.example"]


def test_the_parameters_stay_and_original_is_what_was_asked_for() -> None:
    answer = resolver().resolve(facts("info@ours.test"), 4, "rfc822;i@x.test")
    assert answer == (
        Recipient("alice@ours.test", "", 4, "rfc822;i@x.test", "info@ours.test"),
        Recipient("archive@far.test", "", 4, "rfc822;i@x.test", "info@ours.test"),
    )
    assert resolver().resolve(facts("bob@ours.test"), 4, "o") == (Recipient("bob@ours.test", "", 4, "o", ""),)


# -- rules -----------------------------------------------------------------------------------------------------------


def test_the_rule_that_took_a_foreign_recipient_is_named() -> None:
    house = resolver(policy("out", "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}"))
    assert house.resolve(facts("x@far.test", client="10.0.0.1")) == (Recipient("x@far.test", "out"),)
    assert (
        asked(house, "x@far.test") == "550 5.7.1 Relaying denied: this server takes no mail for that domain from you"
    )


def test_alias_targets_elsewhere_go_by_the_rule_for_them_or_directly() -> None:
    out = policy("out", "match: {clients: [10.0.0.0/8]}\naction: {type: Smarthost, nextHops: [{host: a}]}")
    answer = resolver(out).resolve(facts("all@list.test"))
    assert answer == (
        Recipient("bob@ours.test", original="all@list.test"),
        Recipient("x@far.test", "out", original="all@list.test"),
    )


def test_a_target_that_a_rule_refuses_is_left_out_while_there_are_others() -> None:
    house = resolver(policy("no", "match: {recipients: [far.test]}\naction: {type: Reject, text: No}"))
    assert asked(house, "all@list.test") == ["bob@ours.test"]
    lone = Recipients(
        CompiledPolicy(
            compiled(
                mta(),
                domain("l", "mode: Alias\naliases: {a: [x@far.test]}"),
                policy("no", "match: {recipients: [far.test]}\naction: {type: Reject, text: No}"),
            )
        )
    )
    assert asked(lone, "a@l.test") == "550 5.7.1 No"


def test_a_redirect_answers_once_in_a_chain() -> None:
    everything = policy("sink", "action: {type: Redirect, addresses: [bob@ours.test, dev@far.test]}")
    house = resolver(everything)
    assert asked(house, "someone@far.test") == ["bob@ours.test", "dev@far.test"]
    assert asked(house, "nobody@ours.test") == ["bob@ours.test", "dev@far.test"]
    answer = house.resolve(facts("someone@far.test"))
    assert isinstance(answer, tuple)
    assert {each.original for each in answer} == {"someone@far.test"}


def test_a_hold_stands_over_all_that_comes_of_an_alias() -> None:
    house = resolver(policy("hold", "match: {recipients: [list.test]}\naction: {type: Hold}"))
    answer = house.resolve(facts("all@list.test"))
    assert isinstance(answer, tuple)
    assert [(each.address, each.rule) for each in answer] == [("bob@ours.test", "hold"), ("x@far.test", "hold")]
    assert asked(house, "nobody@list.test") == "550 5.1.1 No such mailbox here"


def test_a_discard_asks_nobody() -> None:
    house = resolver(policy("gone", "match: {recipients: [trap@ours.test]}\naction: {type: Discard}"))
    assert house.resolve(facts("trap@ours.test")) == (Recipient("trap@ours.test", "gone"),)


def test_a_rule_that_names_our_domain_says_where_and_the_mail_domain_says_who() -> None:
    house = resolver(
        policy("there", "match: {recipients: [ours.test]}\naction: {type: Smarthost, nextHops: [{host: a}]}")
    )
    assert house.resolve(facts("bob@ours.test")) == (Recipient("bob@ours.test", "there"),)
    assert asked(house, "nobody@ours.test") == "550 5.1.1 No such mailbox here"
    answer = house.resolve(facts("team@ours.test"))
    assert isinstance(answer, tuple)
    assert {each.address: each.rule for each in answer} == {
        "alice@ours.test": "there",
        "archive@far.test": "",
        "bob@ours.test": "there",
        "friend@far.test": "",
    }


def test_headers_decide_after_data() -> None:
    bulk = "match: {clients: [10.0.0.0/8], headers: [{name: x-kind, pattern: bulk}]}"
    house = resolver(
        policy("bulk", f"priority: 9\n{bulk}\naction: {{type: Redirect, addresses: [bob@ours.test]}}"),
        policy(
            "no", "priority: 9\nmatch: {headers: [{name: x-kind, pattern: spam}]}\naction: {type: Reject, text: Spam}"
        ),
        policy("out", "match: {recipients: [far.test]}\naction: {type: Direct}"),
    )
    inside = facts("", client="10.0.0.1")
    early = [
        house.resolve(inside._replace(recipient="x@far.test"), 4, "o"),
        house.resolve(inside._replace(recipient="y@other.test")),
        house.resolve(inside._replace(recipient="info@ours.test")),
    ]
    assert early[:2] == [(Recipient("x@far.test", "out", 4, "o"),), (Recipient("y@other.test", "bulk"),)]
    taken = [recipient for answer in early if isinstance(answer, tuple) for recipient in answer]
    assert house.finish(inside, taken, {"x-kind": ["bulk"]}) == (
        Recipient("bob@ours.test", "", 4, "o", "x@far.test"),
    )
    assert str(house.finish(inside, taken, {})).startswith("550 5.7.1 Relaying denied")
    assert house.finish(inside, taken[:1], {}) == (Recipient("x@far.test", "out", 4, "o"),)
    assert str(house.finish(inside, taken[:1], {"x-kind": ["spam"]})) == "550 5.7.1 Spam"
    again = house.finish(inside, taken[2:], {})
    assert again == early[2]


def test_reports_find_their_way() -> None:
    house = resolver()
    assert asked(house, "s@far.test", client="", role="", sender="", origin=Origin.REPORT) == ["s@far.test"]
    assert asked(house, "info@ours.test", sender="", origin=Origin.REPORT) == ["alice@ours.test", "archive@far.test"]


def test_one_mailbox_named_twice_is_one_recipient() -> None:
    house = resolver()
    given = [
        Recipient("Bob@ours.test", notify=4),
        Recipient("bob@OURS.test"),
        Recipient("x@far.test"),
        Recipient("X@far.test"),
        Recipient("x@FAR.test"),
    ]
    assert house.without_duplicates(given) == (given[0], given[2], given[3])


# -- loops and bounds ------------------------------------------------------------------------------------------------


def made_by_hand(**aliases: tuple[str, ...]) -> Recipients:
    """A config that no loader has looked at."""
    ours = Domain(name="d", domain="d.test", mode=InboundMode.MAILDIR, recipients=frozenset({"box"}), aliases=aliases)
    config = EngineConfig(
        name="x",
        hostname="x.test",
        listeners=(),
        spool=SpoolSettings(path="/x"),
        mail_root="/x",
        state_dir="/x",
        domains={"d.test": ours},
        alias_depth=5,
        alias_recipients=20,
    )
    return Recipients(CompiledPolicy(config))


def test_loops_and_bounds_keep_the_mail_at_its_sender() -> None:
    told = str(MISCONFIGURED)
    assert told.startswith("451 4.3.5 ")
    assert asked(made_by_hand(a=("b@d.test",), b=("a@d.test",)), "a@d.test") == told
    assert asked(made_by_hand(a=("a@d.test",)), "a@d.test") == "550 5.1.1 No such mailbox here"
    deep = {f"a{n}": (f"a{n + 1}@d.test",) for n in range(6)}
    assert asked(made_by_hand(**deep, a6=("box@d.test",)), "a0@d.test") == told
    assert asked(made_by_hand(**deep, a6=("box@d.test",)), "a3@d.test") == ["box@d.test"]
    wide = tuple(f"u{n}@far.test" for n in range(21))
    assert asked(made_by_hand(a=wide), "a@d.test") == told
    assert len(asked(made_by_hand(a=wide[:20]), "a@d.test")) == 20
    assert asked(made_by_hand(a=("gone@d.test", "box@d.test")), "a@d.test") == ["box@d.test"]


def test_a_bomb_of_aliases_ends_soon() -> None:
    bomb = {f"a{n}": tuple(f"a{n + 1}@d.test" for _ in range(50)) for n in range(4)}
    assert asked(made_by_hand(**bomb, a4=("box@d.test",)), "a0@d.test") == ["box@d.test"]


# -- callouts --------------------------------------------------------------------------------------------------------


class Oracle:
    """Knows at once, or later."""

    def __init__(self, known: dict[str, Reply | None], *, later: bool = False) -> None:
        self.known, self.later = known, later
        self.asked: list[str] = []

    def ask(self, domain: Domain, address: str) -> Reply | asyncio.Future[Reply | None] | None:
        self.asked.append(address)
        answer = self.known.get(address, Reply(550, "5.1.1", "gone"))
        if not self.later:
            return answer
        future: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, answer)
        return future


LMTP = domain(
    "box",
    """
    mode: LMTP
    nextHops: [{host: a}]
    recipients: {callout: {}}
    aliases: {team: [eve, gone, x@far.test], lost: [gone]}
    """,
)
NOT_NOW = Reply(451, "4.4.3", "later")


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("recipient", "found"),
    [
        ("eve@box.test", ["eve@box.test"]),
        ("eve+x@box.test", ["eve+x@box.test"]),
        ("gone@box.test", "550 5.1.1 gone"),
        ("lost@box.test", "550 5.1.1 gone"),
        ("slow@box.test", "451 4.4.3 later"),
        ("team@box.test", ["eve@box.test", "gone@box.test", "x@far.test"]),
        ("postmaster@box.test", ["postmaster@box.test"]),
        ("gone@all.test", ["eve@box.test"]),
    ],
)
def test_callouts_decide_at_once_or_later(later: bool, recipient: str, found: list[str] | str) -> None:
    catch_all = "mode: LMTP\nnextHops: [{host: a}]\nrecipients: {callout: {}}\ncatchAll: [eve@box.test]"
    known = {"eve@box.test": None, "eve+x@box.test": None, "slow@box.test": NOT_NOW}
    house = Recipients(CompiledPolicy(compiled(LMTP, domain("all", catch_all))), callout=Oracle(known, later=later))

    async def ask() -> Reply | tuple[Recipient, ...]:
        answer = house.resolve(facts(recipient))
        return answer if isinstance(answer, Reply | tuple) else await answer

    answer = asyncio.run(ask())
    assert (str(answer) if isinstance(answer, Reply) else [each.address for each in answer]) == found


def test_an_answer_in_the_cache_makes_no_awaitable() -> None:
    house = Recipients(CompiledPolicy(compiled(LMTP)), callout=Oracle({"eve@box.test": None}))
    assert house.resolve(facts("eve@box.test")) == (Recipient("eve@box.test"),)


def test_headers_and_callouts_go_together() -> None:
    rule = policy("no", "match: {headers: [{name: subject, pattern: 'x*'}]}\naction: {type: Reject}")
    house = Recipients(CompiledPolicy(compiled(LMTP, rule)), callout=Oracle({"eve@box.test": None}, later=True))

    async def ask() -> object:
        answer = house.finish(facts(""), [Recipient("eve@box.test")], {})
        assert not isinstance(answer, Reply | tuple)
        return await answer

    assert asyncio.run(ask()) == (Recipient("eve@box.test"),)
