"""Settings: readings of durations, instants and limits; the command line; every setting is in the reference."""

from pathlib import Path

import pytest

from counterfoil.simulators import case_system, customer_api, deputy_gateway, faults, occ_lambda, options

REFERENCE = Path(__file__).parents[2] / "docs/reference/simulators.md"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("150ms", 0.15), ("2s", 2), ("5min", 300), ("1h", 3600), ("5d", 432000), ("3", 3), ("0.5s", 0.5)],
)
def test_duration(text: str, seconds: float) -> None:
    assert options.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 weeks", "-1s"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        options.duration(text)


def test_span_and_limit_and_instant() -> None:
    assert options.span("50-150ms") == pytest.approx((0.05, 0.15))
    assert options.span("500ms-2s") == pytest.approx((0.5, 2))
    assert options.span("2s") == (2, 2)
    assert (options.limit("60/min"), options.limit("10/s"), options.limit("100/15s")) == ((60, 60), (10, 1), (100, 15))
    assert options.instant("1970-01-02") == 86400
    assert options.instant("1970-01-01T12:00:00+12:00") == 0


def test_the_command_line_gives_the_settings() -> None:
    told = ["--port", "8001", "--fault", "html=0.1", "--fault", "vanish", "--latency", "50-150ms", "--limit", "60/min"]
    given = options.from_arguments(customer_api.Options, [*told, "--with-parent"], "")
    assert (given.port, given.faults, given.limit, given.with_parent) == (
        8001,
        ("html=0.1", "vanish"),
        (60, 60.0),
        True,
    )
    assert given.latency == pytest.approx((0.05, 0.15))
    assert options.from_arguments(occ_lambda.Options, [], "") == occ_lambda.Options()


SIMULATORS = (customer_api, occ_lambda, case_system, deputy_gateway)


@pytest.mark.parametrize("kind", [one.Options for one in SIMULATORS], ids=lambda kind: kind.__module__)
def test_every_setting_is_in_the_reference(kind: type[options.Common]) -> None:
    text = REFERENCE.read_text()
    assert [
        name for name in (options.flag_name(field.name) for field in options.flagged(kind)) if f"`{name}`" not in text
    ] == []


def test_every_fault_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    names = {name for one in SIMULATORS for name in one.KNOWN}
    assert sorted(name for name in names if f"`{name}`" not in text) == []
    passing = {*faults.PASSING, *faults.LAMBDA_PASSING, *faults.CASE_PASSING, *faults.GATEWAY_PASSING}
    assert names == passing | faults.LASTING


def test_a_setting_that_means_nothing_to_a_simulator_is_no_flag_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        options.from_arguments(case_system.Options, ["--data", "x.csv"], "")
    assert left.value.code == 2
    assert "--data" in capsys.readouterr().err
    given = options.from_arguments(
        deputy_gateway.Options, ["--case-fault", "late_store=0.1", "--case-fault", "unknown_case"], ""
    )
    assert given.case_faults == ("late_store=0.1", "unknown_case")
