"""Who guesses waits longer each time, then is not heard at all; nobody else is locked out by it."""

from __future__ import annotations

from posthof_pod.accounts.guesses import ACCOUNT_LIMIT, CLIENT_LIMIT, DELAY_MAX, FAMILIAR, FORGIVEN, Guesses


def test_each_wrong_answer_takes_longer_up_to_a_bound() -> None:
    guesses = Guesses()
    waits = [guesses.attempt("192.0.2.1", f"user{n}", 0.0) for n in range(8)]
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == DELAY_MAX


def test_a_client_that_goes_on_is_not_heard_until_its_time_has_passed() -> None:
    guesses = Guesses()
    for n in range(int(CLIENT_LIMIT)):
        assert guesses.attempt("192.0.2.1", f"user{n}", 0.0) is not None
    assert guesses.attempt("192.0.2.1", "another", 0.0) is None
    assert guesses.attempt("192.0.2.2", "another", 0.0) is not None
    assert guesses.attempt("192.0.2.1", "another", FORGIVEN - 1) is None
    assert guesses.attempt("192.0.2.1", "another", FORGIVEN + 1) is not None


def test_an_account_is_shut_to_strangers_from_everywhere_and_open_to_those_it_knows() -> None:
    guesses = Guesses()
    assert guesses.attempt("198.51.100.7", "alice", 0.0) is not None
    guesses.right("198.51.100.7", "alice", 0.0)
    for n in range(int(ACCOUNT_LIMIT)):
        assert guesses.attempt(f"192.0.2.{n}", "alice", 1.0) is not None
    assert guesses.attempt("203.0.113.1", "alice", 2.0) is None
    assert guesses.attempt("198.51.100.7", "alice", 2.0) is not None
    assert guesses.attempt("198.51.100.7", "alice", FAMILIAR + 3.0) is not None  # all is forgiven by then


def test_a_name_that_nobody_has_is_counted_like_any_other() -> None:
    """The module knows no accounts: there is nothing by which two names could differ."""
    one, two = Guesses(), Guesses()
    answers = [
        [guesses.attempt(f"192.0.2.{n % 5}", name, float(n)) for n in range(60)]
        for guesses, name in ((one, "alice"), (two, "nobody"))
    ]
    assert answers[0] == answers[1]


def test_a_hundred_at_once_are_a_hundred() -> None:
    guesses = Guesses()
    heard = [guesses.attempt("192.0.2.1", "alice", 0.0) for _ in range(100)]
    assert sum(one is not None for one in heard) == CLIENT_LIMIT


def test_right_answers_do_not_count() -> None:
    guesses = Guesses()
    for n in range(1000):
        assert guesses.attempt("192.0.2.1", "alice", float(n)) == 1.0
        guesses.right("192.0.2.1", "alice", float(n))


def test_a_client_that_may_be_a_node_is_never_shut_out_but_the_account_is() -> None:
    guesses = Guesses()
    for n in range(100):
        assert guesses.attempt("", f"user{n}", 0.0) is not None
    for _ in range(int(ACCOUNT_LIMIT)):
        guesses.attempt("", "alice", 0.0)
    assert guesses.attempt("", "alice", 0.0) is None


def test_each_worker_takes_its_part_of_the_limits() -> None:
    guesses = Guesses()
    guesses.share = 2
    heard = [guesses.attempt("192.0.2.1", f"user{n}", 0.0) for n in range(20)]
    assert sum(one is not None for one in heard) == CLIENT_LIMIT / 2


def test_memory_is_bounded() -> None:
    guesses = Guesses(remembered=100)
    for n in range(10_000):
        guesses.attempt(f"client{n}", f"user{n}", 0.0)
        guesses.right(f"client{n}", f"user{n + 1}", 0.0)
    assert len(guesses) <= 300
