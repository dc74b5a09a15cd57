"""A limit on calls: so many in a window, then none until it ends."""

from counterfoil.simulators.rate import Window


def test_a_window_lets_so_many_through_and_then_a_new_one_begins() -> None:
    window = Window.of((2, 60.0))
    assert window is not None
    assert [window.take(100.0), window.take(159.9), window.take(159.9), window.take(160.0)] == [True, True, False, True]


def test_headers_tell_what_is_left_and_until_when() -> None:
    window = Window(2, 60.0)
    window.take(100.0)
    assert window.headers(130.0) == {"RateLimit-Limit": "2", "RateLimit-Remaining": "1", "RateLimit-Reset": "30"}
    window.take(130.0)
    window.take(130.0)
    assert window.headers(170.0) == {"RateLimit-Limit": "2", "RateLimit-Remaining": "0", "RateLimit-Reset": "0"}


def test_without_a_limit_there_is_no_window() -> None:
    assert Window.of(None) is None
