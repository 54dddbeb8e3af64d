"""Source addresses that are not this machine's are told before the first mail needs them."""

from __future__ import annotations

from kit.manifests import compiled, mta, policy
from posthof_pod.config.egress import unusable
from posthof_pod.resolve.own import is_local_address

RULE = policy(
    "out", "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}\negress: {addresses: [127.0.0.1, '2001:db8::1']}"
)


def test_addresses_of_this_machine_are_fine() -> None:
    assert unusable(compiled(mta(more="egress: {addresses: [127.0.0.1]}")), is_local_address) == []
    assert unusable(compiled(), is_local_address) == []


def test_others_are_told_with_their_owner() -> None:
    found = unusable(compiled(mta(more="egress: {addresses: [192.0.2.1]}"), RULE), is_local_address)
    assert [problem.partition(" is not ")[0] for problem in found] == [
        "MTA/edge: egress address 192.0.2.1",
        "RelayPolicy/out: egress address 2001:db8::1",
    ]


def test_an_address_is_asked_once_and_inherited_ones_are_told_once() -> None:
    asked: list[str] = []

    def is_local(address: str) -> bool:
        asked.append(address)
        return False

    inheriting = policy("in", "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}\negress: {helo: a.example.org}")
    found = unusable(compiled(mta(more="egress: {addresses: [192.0.2.1]}"), inheriting), is_local)
    assert (asked, len(found)) == (["192.0.2.1"], 1)
