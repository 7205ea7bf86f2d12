"""How soon and how often what has ended is started again."""

from frontend.local.restarts import MAX_RESTARTS, PERIOD_S, Restarts


def test_the_first_start_is_at_once_and_later_ones_wait_twice_as_long_each() -> None:
    restarts = Restarts()
    assert [restarts.wait_after_end(float(now)) for now in range(MAX_RESTARTS)] == [0, 1, 2, 4, 8]


def test_after_too_many_ends_within_the_period_it_is_not_started_again() -> None:
    restarts = Restarts()
    for now in range(MAX_RESTARTS):
        restarts.wait_after_end(float(now))
    assert restarts.wait_after_end(PERIOD_S - 1) is None


def test_ends_that_are_older_than_the_period_do_not_count() -> None:
    restarts = Restarts()
    for now in range(MAX_RESTARTS):
        restarts.wait_after_end(float(now))
    assert restarts.wait_after_end(PERIOD_S + MAX_RESTARTS) == 0


def test_without_restarts_nothing_is_started_again() -> None:
    assert Restarts(0).wait_after_end(0.0) is None
