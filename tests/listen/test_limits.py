"""Counts per client, with the time passed in."""

from __future__ import annotations

from itertools import pairwise

from posthof_crds.engine import ListenerLimits
from posthof_pod.listen.limits import FULL, TOO_FAST, TOO_MANY_SESSIONS, TOO_MUCH_MAIL, Clients, Rate
from posthof_pod.listen.networks import Networks, client_key, client_network, plain
from posthof_pod.schedule.slices import NOTHING, WHOLE, Portion


def test_an_ipv6_client_is_its_64() -> None:
    assert client_key("2001:db8:1:2:3:4:5:6") == client_key("2001:db8:1:2::1")
    assert client_key("2001:db8:1:2::1") != client_key("2001:db8:1:3::1")
    assert client_key("192.0.2.1") != client_key("192.0.2.2")
    assert client_key("") == ""
    assert [client_network(one) for one in ("2001:db8::1", "192.0.2.1", "")] == ["2001:db8::/64", "192.0.2.1", ""]


def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert plain("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain("FE80::1%eth0") == "fe80::1"


def test_networks_hold_their_addresses() -> None:
    networks = Networks(("192.0.2.0/24", "2001:db8::/32"))
    assert "192.0.2.77" in networks
    assert "2001:db8::1" in networks
    assert "198.51.100.1" not in networks
    assert "" not in networks
    assert "192.0.2.77" not in Networks(())


def test_sessions_of_a_client_are_limited() -> None:
    clients = Clients(ListenerLimits(client_sessions=2))
    assert clients.enter("2001:db8::1", 0) is None
    assert clients.enter("2001:db8::2", 0) is None
    assert clients.enter("2001:db8::3", 0) == TOO_MANY_SESSIONS
    assert clients.enter("2001:db8:0:1::3", 0) is None
    clients.leave("2001:db8::1")
    assert clients.enter("2001:db8::3", 0) is None


def test_sessions_of_all_are_limited() -> None:
    clients = Clients(ListenerLimits(sessions=2))
    assert clients.enter("192.0.2.1", 0) is None
    assert clients.enter("192.0.2.2", 0) is None
    assert clients.enter("192.0.2.3", 0) == FULL
    clients.leave("192.0.2.1")
    assert clients.enter("192.0.2.3", 0) is None


def test_nothing_is_kept_of_clients_that_left() -> None:
    clients = Clients(ListenerLimits())
    for number in range(100):
        clients.enter(f"192.0.2.{number}", 0)
    for number in range(100):
        clients.leave(f"192.0.2.{number}")
    assert clients.total == 0
    assert clients._sessions == {}


def test_new_sessions_a_minute_are_limited_over_a_sliding_minute() -> None:
    clients = Clients(ListenerLimits(client_session_rate=3))

    def comes(now: float) -> object:
        reply = clients.enter("192.0.2.1", now)
        if reply is None:
            clients.leave("192.0.2.1")
        return reply

    assert [comes(now) for now in (1000, 1001, 1002)] == [None] * 3
    assert comes(1003) == TOO_FAST
    assert comes(1059) == TOO_FAST
    assert comes(1061) == TOO_FAST
    assert comes(1090) is None
    assert comes(1300) is None


def test_messages_a_minute_are_limited() -> None:
    clients = Clients(ListenerLimits(client_message_rate=1))
    assert clients.message("192.0.2.1", 5) is None
    assert clients.message("192.0.2.1", 6) == TOO_MUCH_MAIL
    assert clients.message("192.0.2.2", 6) is None


def test_a_rate_without_a_limit_counts_nothing() -> None:
    rate = Rate()
    assert all(rate.admits("client", 0, now) for now in range(100))
    assert len(rate) == 0


def test_the_memory_of_rates_is_bounded() -> None:
    rate = Rate(clients=100)
    for number in range(1000):
        assert rate.admits(str(number), 1, 5)
    assert len(rate) == 100
    assert not rate.admits("5", 1, 6)


def test_a_session_that_moves_is_counted_where_it_went() -> None:
    clients = Clients(ListenerLimits(client_sessions=1))
    assert clients.enter("192.0.2.1", 0) is None
    assert clients.move("192.0.2.1", "198.51.100.1", 0) is None
    assert clients.enter("192.0.2.1", 0) is None
    assert clients.move("192.0.2.1", "198.51.100.1", 0) == TOO_MANY_SESSIONS
    clients.leave("192.0.2.1")
    clients.leave("198.51.100.1")
    assert clients.total == 0


def test_time_outs_are_short_under_stress() -> None:
    clients = Clients(ListenerLimits(sessions=10, client_sessions=0, timeout=300, stress_timeout=10))
    for _ in range(9):
        clients.enter("192.0.2.1", 0)
    assert clients.timeout == 300
    clients.enter("192.0.2.1", 0)
    assert clients.is_stressed
    assert clients.timeout == 10


def divided(workers: int, **limits: int) -> list[Clients]:
    portions = [Portion(WHOLE.part(n, 1, workers)) for n in range(workers)]
    for portion in portions:
        portion.move(1_700_000_005.0)
    return [Clients(ListenerLimits(**limits), portion) for portion in portions]


def let_in(workers: list[Clients], client: str, now: float = 0.0, tries: int = 100) -> list[int]:
    return [sum(one.enter(client, now) is None for _ in range(tries)) for one in workers]


def test_all_workers_together_let_in_as_many_sessions_of_a_client_as_the_limit_says() -> None:
    assert let_in(divided(4, client_sessions=40), "192.0.2.1") == [10] * 4
    assert sum(let_in(divided(6, client_sessions=20), "192.0.2.1")) == 20
    assert sum(let_in(divided(6, client_sessions=2), "192.0.2.1")) == 2


def test_a_limit_smaller_than_the_fleet_is_another_workers_later() -> None:
    workers = divided(3, client_sessions=1)
    had = set()
    for turn in range(9):
        for n, one in enumerate(workers):
            one.portion.move(1_700_000_005.0 + 10 * turn)
            if one.enter("192.0.2.1", 0) is None:
                had.add(n)
                one.leave("192.0.2.1")
    assert had == {0, 1, 2}


def test_who_was_let_in_before_the_portion_shrank_stays_and_counts() -> None:
    clients = Clients(ListenerLimits(client_sessions=10))
    assert let_in([clients], "192.0.2.1") == [10]
    clients.portion.set(WHOLE.part(0, 1, 2))
    for _ in range(6):
        clients.leave("192.0.2.1")
    assert let_in([clients], "192.0.2.1") == [1]


def test_rates_of_a_client_are_divided_too() -> None:
    assert let_in(divided(4, client_sessions=0, client_session_rate=20), "192.0.2.1") == [5] * 4
    workers = divided(2, client_message_rate=6)
    assert [sum(one.message("192.0.2.1", 0) is None for _ in range(10)) for one in workers] == [3, 3]


def test_a_rate_smaller_than_the_fleet_is_one_in_some_minutes() -> None:
    (first, *_) = divided(6, client_sessions=0, client_session_rate=2)
    when = [second for second in range(3600) if first.enter("192.0.2.1", second) is None]
    assert 15 <= len(when) <= 21
    assert min(later - sooner for sooner, later in pairwise(when)) >= 89


def test_a_worker_that_has_no_portion_yet_lets_nobody_in() -> None:
    clients = Clients(ListenerLimits(client_session_rate=100), Portion(NOTHING))
    assert clients.enter("192.0.2.1", 0) == TOO_MANY_SESSIONS
