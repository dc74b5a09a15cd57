"""Draws: repeatable by seed whatever the order, limited in a row, true to their rates."""

import pytest

from counterfoil.simulators.faults import Faults, parse_faults


def test_the_same_seed_gives_the_same_faults_in_any_order_of_requests() -> None:
    keys = [f"k{number}" for number in range(200)]
    one, other = _faults(throttle=0.3), _faults(throttle=0.3)
    forwards = {key: [one.strike("detail", key) for _ in range(3)] for key in keys}
    backwards = {key: [other.strike("detail", key) for _ in range(3)] for key in reversed(keys)}
    assert forwards == backwards
    third = Faults(("throttle",), seed=2)
    third.set({"throttle": 0.3})
    assert {key: [third.strike("detail", key) for _ in range(3)] for key in keys} != forwards


def test_the_rate_is_kept() -> None:
    faults = _faults(throttle=0.05)
    struck = sum(faults.strike("detail", f"k{number}") == "throttle" for number in range(5000))
    assert 200 <= struck <= 300


def test_a_key_is_hit_at_most_so_often_in_a_row() -> None:
    faults = _faults(error500=1)
    assert [faults.strike("detail", "k") for _ in range(6)] == ["error500", "error500", None] * 2


def test_without_a_limit_a_fault_of_rate_one_always_strikes() -> None:
    faults = Faults(("error500",), max_in_a_row=0)
    faults.set({"error500": 1})
    assert [faults.strike("detail", "k") for _ in range(5)] == ["error500"] * 5


def test_a_fault_may_be_bound_to_one_endpoint() -> None:
    faults = _faults(html="1@list")
    assert (faults.strike("detail", "k"), faults.strike("list", "")) == (None, "html")


def test_a_fault_that_means_something_at_one_endpoint_strikes_there_only() -> None:
    faults = _faults(late_store=1)
    assert (faults.strike("find", "k"), faults.strike("store", "k")) == (None, "late_store")


def test_a_burst_strikes_that_many_requests_whatever_their_key() -> None:
    faults = Faults(("burst",), burst_length=6)
    faults.set({"burst": 0.01})
    struck = [faults.strike("detail", f"k{number}") for number in range(1000)]
    first = next(number for number, name in enumerate(struck) if name)
    assert set(struck[first : first + 6]) == {"error500", "error503"}
    assert struck[first + 6] is None


def test_marks_stay_with_a_key() -> None:
    faults = Faults(("vanish",))
    faults.set({"vanish": 0.1})
    marked = [key for key in map(str, range(1000)) if faults.marks("vanish", key)]
    assert 60 < len(marked) < 140
    assert all(faults.marks("vanish", key) for key in marked)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"nonsense": 1}, "Known: throttle"), ({"throttle": 2}, "from 0 to 1"), ({"throttle": "x"}, "from 0 to 1"),
     ({"throttle": "1@nowhere"}, "list, detail, write")],
)  # fmt: skip
def test_a_wrong_fault_is_refused_in_words_and_changes_nothing(changes: dict[str, object], said: str) -> None:
    faults = Faults(("throttle",))
    faults.set({"throttle": 0.5})
    with pytest.raises(ValueError, match=said):
        faults.set(changes)
    assert faults.rates == {"throttle": (0.5, "")}


def test_endpoints_and_lasting_faults_of_a_simulators_own() -> None:
    faults = Faults(("fails", "slow"), endpoints=("upload",), lasting=("fails",))
    faults.set({"fails": 1, "slow": "1@upload"})
    assert [faults.strike("upload", "k"), faults.strike("status", "k")] == ["slow", None]
    assert faults.marks("fails", "k")
    with pytest.raises(ValueError, match="Known: upload"):
        faults.set({"slow": "1@list"})


def test_rate_nought_takes_a_fault_away() -> None:
    faults = _faults(throttle=1)
    faults.set({"throttle": 0})
    assert faults.strike("detail", "k") is None


def test_texts_of_the_command_line() -> None:
    assert parse_faults(["html", "throttle=0.05@detail"]) == {"html": "1", "throttle": "0.05@detail"}


def _faults(**rates: object) -> Faults:
    faults = Faults(tuple(rates), seed=1)
    faults.set(rates)
    return faults
