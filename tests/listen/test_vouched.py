"""Whose address a listener vouches for: rules believe no other."""

from __future__ import annotations

import pytest

from posthof_crds.engine import Listener, ListenerRole
from posthof_pod.listen.reception import FrontDesk
from posthof_pod.listen.seen import MOST, summed
from posthof_pod.smtp.server import Dialogue

NODE = "10.244.0.1"


class Nobody:
    """Stands in for gate and watch: nothing of them is asked here."""

    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: None


def desk(*, role: str = "MX", preserved: bool = False, front_ends: tuple[str, ...] = ()) -> FrontDesk:
    listener = Listener(
        name="in",
        role=ListenerRole(role),
        host="",
        port=25,
        client_ip_preserved=preserved,
        xclient_trusted=front_ends,
    )
    nobody = Nobody()
    return FrontDesk(
        listener,
        "mx.test",
        nobody,  # type: ignore[arg-type]
        contexts=lambda: None,
        watch=nobody,  # type: ignore[arg-type]
        blob_threshold=1,
        clock=lambda: 0.0,
    )


@pytest.mark.parametrize(
    ("role", "preserved", "is_named", "vouched"),
    [
        ("MX", True, False, NODE),
        ("MX", False, False, ""),
        ("MX", False, True, NODE),  # a trusted balancer's word
        ("Internal", False, False, NODE),  # a ClusterIP of its own
    ],
)
def test_addresses_count_where_nothing_can_hide_them(
    role: str, preserved: bool, is_named: bool, vouched: str
) -> None:
    session = desk(role=role, preserved=preserved).session(NODE, 1, is_named=is_named)
    assert (session.client, session.vouched) == (NODE, vouched)


def test_a_nodes_address_is_no_front_end_and_a_trusted_front_end_vouches() -> None:
    assert not desk(front_ends=("10.0.0.0/8",)).session(NODE, 1).has_xclient
    trusting = desk(front_ends=("10.0.0.0/8",), preserved=True)
    trusting.clients.enter(NODE, 0.0)
    session = trusting.session(NODE, 1)
    dialogue = Dialogue(session, trusting)
    dialogue.greet()
    assert b"220" in dialogue.feed(b"EHLO f.test\r\nXCLIENT ADDR=198.51.100.7\r\n")
    assert (session.client, session.vouched) == ("198.51.100.7", "198.51.100.7")


def test_a_listener_that_begins_to_doubt_does_so_with_the_next_session() -> None:
    front = desk(preserved=True)
    assert front.session(NODE, 1).vouched == NODE
    front.swap(desk().listener, "mx.test", Nobody())  # type: ignore[arg-type]
    assert front.session(NODE, 1).vouched == ""


def test_sessions_of_public_listeners_are_counted_by_address_within_bounds() -> None:
    public = desk()
    for _ in range(3):
        public.session(NODE, 1)
    public.session("203.0.114.1", 1)
    assert public.seen.counts(1000.0) == {NODE: 3, "203.0.114.1": 1}
    assert summed([public.seen.counts(1000.0), {"": 2}]) == (6, 3, (NODE, "203.0.114.1"))
    public.seen.counts(2000.0)
    assert public.seen.counts(3000.0) == {}
    for n in range(MOST + 5):
        public.session(f"10.1.{n >> 8}.{n & 255}", 1)
    assert public.seen.counts(3000.0)[""] == 5
    inside = desk(role="Internal")
    inside.session(NODE, 1)
    assert inside.seen.counts(1000.0) == {}
