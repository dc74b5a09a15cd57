"""What becomes of an upload: the steps in their order and times, each fate, and that all of it hangs on seed and request id alone."""

import json
from typing import Any

import pytest

from counterfoil.simulators.lighthouse_workflow import FATES, FIRST, GIVEN_UP, Workflow

T0 = 1_800_000_000.0
START = int(T0 * 1000)
EVIDENCE, GATEWAY, REMOVAL = "CLAIMS_EVIDENCE", "BENEFITS_GATEWAY_SERVICE", "REMOVE_FILE_BINARY"


def workflow(
    *, seed: int = 0, step: tuple[float, float] = (10.0, 10.0), wait: tuple[float, float] = (100.0, 100.0)
) -> Workflow:
    return Workflow(seed, step, wait)


def seen(flow: Workflow, after: float, request_id: int = FIRST, **more: Any) -> Any:
    """The status of an upload so many seconds after it was accepted."""
    piece = flow.tell(request_id, START + int(after * 1000), more.get("internal", False), more.get("odd"))
    assert piece is not None
    return json.loads(piece)


def looks(flow: Workflow, after: float, **more: Any) -> tuple[str, ...]:
    """The status, and the status of each step in order."""
    told = seen(flow, after, **more)
    return (told["status"], *(step["status"] for step in told["steps"]))


def one(fate: str = "", **more: Any) -> Workflow:
    """One upload with this fate; its steps end after 10 and 20 s, a success is taken back 100 s later."""
    flow = workflow(**more)
    assert flow.add(1, T0, {fate: 1.0} if fate else {}) == FIRST
    return flow


def test_an_upload_goes_through_its_steps() -> None:
    flow = one()
    assert looks(flow, 0) == ("IN_PROGRESS", "IN_PROGRESS", "NOT_STARTED")
    assert looks(flow, 9.999) == ("IN_PROGRESS", "IN_PROGRESS", "NOT_STARTED")
    assert looks(flow, 10) == ("IN_PROGRESS", "SUCCESS", "IN_PROGRESS")
    assert looks(flow, 20) == looks(flow, 1e9) == ("SUCCESS", "SUCCESS", "SUCCESS")


def test_times_are_milliseconds_and_there_is_no_end_while_it_goes_on() -> None:
    flow = one()
    assert seen(flow, 19)["time"] == {"startTime": START}
    assert seen(flow, 500)["time"] == {"startTime": START, "endTime": START + 20_000}


def test_each_step_names_the_next_and_the_last_none() -> None:
    steps = seen(one(), 0)["steps"]
    assert [(step["name"], step.get("nextStepName")) for step in steps] == [(EVIDENCE, GATEWAY), (GATEWAY, None)]
    steps = seen(one(), 0, internal=True)["steps"]
    assert [(step["name"], step.get("nextStepName")) for step in steps] == [
        (EVIDENCE, GATEWAY),
        (GATEWAY, REMOVAL),
        (REMOVAL, None),
    ]
    assert all(step["description"] for step in steps)


def test_the_internal_step_is_shown_when_asked() -> None:
    assert looks(one(), 15, internal=True) == ("IN_PROGRESS", "SUCCESS", "IN_PROGRESS", "NOT_STARTED")
    assert looks(one(), 25, internal=True) == ("SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS")


@pytest.mark.parametrize(
    ("fate", "step", "end", "statuses"),
    [("fail_evidence", EVIDENCE, 10, ("FAILED", "NOT_STARTED")), ("fail_gateway", GATEWAY, 20, ("SUCCESS", "FAILED"))],
)
def test_it_can_fail_at_either_step(fate: str, step: str, end: int, statuses: tuple[str, str]) -> None:
    flow = one(fate)
    assert looks(flow, end - 1)[0] == "IN_PROGRESS"
    told = seen(flow, end)
    assert looks(flow, end) == looks(flow, 1e9) == ("FAILED", *statuses)
    assert told["error"] == {"detail": GIVEN_UP, "step": step}
    assert told["time"]["endTime"] == START + end * 1000


@pytest.mark.parametrize(("fate", "at"), [("stall_evidence", "IN_PROGRESS"), ("stall_gateway", "SUCCESS")])
def test_it_can_stall_for_ever_at_either_step(fate: str, at: str) -> None:
    for after in (15, 86_400, 1e9):
        told = seen(one(fate), after)
        assert (told["status"], told["steps"][0]["status"], "endTime" in told["time"]) == ("IN_PROGRESS", at, False)


def test_success_can_be_taken_back_for_a_while() -> None:
    flow = one("reopen")
    assert [looks(flow, after)[0] for after in (19, 20, 119, 120, 219, 220, 1e9)] == [
        "IN_PROGRESS",
        "SUCCESS",
        "SUCCESS",
        "IN_PROGRESS",
        "IN_PROGRESS",
        "SUCCESS",
        "SUCCESS",
    ]
    assert looks(flow, 150) == ("IN_PROGRESS", "SUCCESS", "IN_PROGRESS")
    assert "endTime" not in seen(flow, 150)["time"]
    assert seen(flow, 300)["time"]["endTime"] == START + 220_000


def test_success_can_be_revoked() -> None:
    flow = one("revoke")
    assert [looks(flow, after)[0] for after in (20, 119, 120, 1e9)] == ["SUCCESS", "SUCCESS", "FAILED", "FAILED"]
    assert seen(flow, 120)["error"]["step"] == GATEWAY


def test_a_step_that_nobody_knows() -> None:
    flow = one("strange_step")
    assert [step["name"] for step in seen(flow, 0)["steps"]] == [EVIDENCE, "DOCUMENT_CONVERSION", GATEWAY]
    assert [step.get("nextStepName") for step in seen(flow, 0)["steps"]] == ["DOCUMENT_CONVERSION", GATEWAY, None]
    assert looks(flow, 5) == ("IN_PROGRESS", "IN_PROGRESS", "NOT_STARTED", "NOT_STARTED")
    assert looks(flow, 15) == ("IN_PROGRESS", "SUCCESS", "IN_PROGRESS", "NOT_STARTED")
    assert looks(flow, 20) == ("SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS")


def test_a_status_that_nobody_knows() -> None:
    flow = one("strange_status")
    assert looks(flow, 15)[0] == "IN_PROGRESS"
    assert looks(flow, 20) == looks(flow, 1e9) == ("COMPLETED_WITH_WARNINGS", "SUCCESS", "SUCCESS")
    assert "endTime" in seen(flow, 20)["time"]


def test_an_odd_answer_changes_nothing() -> None:
    flow = one()
    assert looks(flow, 30, odd="unknown_status") == ("ON_HOLD", "SUCCESS", "NOT_STARTED")
    assert len(seen(flow, 30, odd="unknown_step")["steps"]) == 3
    assert looks(flow, 30) == ("SUCCESS", "SUCCESS", "SUCCESS")


def test_an_unknown_id_is_told_of_nothing() -> None:
    flow = one()
    assert [flow.tell(other, START, False) for other in (FIRST - 1, FIRST + 1, 0, -5, 10**30)] == [None] * 5


def test_draws_hang_on_seed_and_request_id_and_not_on_how_uploads_came() -> None:
    rates = {"fail_evidence": 0.1, "revoke": 0.2}
    at_once, one_by_one, other = workflow(step=(1, 10)), workflow(step=(1, 10)), workflow(seed=1, step=(1, 10))
    at_once.add(300, T0, rates)
    other.add(300, T0, rates)
    for _ in range(300):
        one_by_one.add(1, T0, rates)
    drawn = [(flow.firsts, flow.seconds, flow.fates) for flow in (at_once, one_by_one, other)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_steps_take_times_from_the_whole_span() -> None:
    flow = workflow(step=(1, 10))
    flow.add(2000, T0, {})
    second = [end - first for first, end in zip(flow.firsts, flow.seconds, strict=True)]
    for took in (flow.firsts, second):
        assert 1000 <= min(took) < 1100
        assert 9900 < max(took) <= 10_000


def test_draws_do_not_hang_on_each_other() -> None:
    flow = workflow(step=(1, 10))
    flow.add(4000, T0, {"fail_evidence": 0.5, "revoke": 0.5})
    counts = [flow.fates.count(FATES.index(fate) + 1) for fate in ("fail_evidence", "revoke")]
    assert 1850 < counts[0] < 2150
    assert 880 < counts[1] < 1120
    second = [end - first for first, end in zip(flow.firsts, flow.seconds, strict=True)]
    longer = sum(a < b for a, b in zip(flow.firsts, second, strict=True))
    assert 1850 < longer < 2150


@pytest.mark.parametrize("fate", FATES)
def test_rates_are_kept(fate: str) -> None:
    flow = workflow()
    flow.add(4000, T0, {fate: 0.1})
    assert 320 < sum(map(bool, flow.fates)) < 480


def test_rates_hold_for_what_comes_after() -> None:
    flow = workflow()
    flow.add(10, T0, {})
    flow.add(10, T0, {"stall_gateway": 1.0})
    assert flow.statuses(START + 60_000) == {"SUCCESS": 10, "IN_PROGRESS": 10}


def test_one_upload_can_be_given_another_fate() -> None:
    flow = one()
    flow.condemn(FIRST, "fail_gateway")
    assert flow.status(FIRST, START + 60_000) == "FAILED"
    flow.condemn(FIRST, "")
    assert flow.status(FIRST, START + 60_000) == "SUCCESS"
    for wrong in ((FIRST + 1, ""), (FIRST, "nonsense")):
        with pytest.raises(ValueError, match="Known fates: fail_evidence"):
            flow.condemn(*wrong)


@pytest.mark.parametrize(
    ("step", "wait"), [((5.0, 1.0), (1.0, 1.0)), ((1.0, 1e7), (1.0, 1.0)), ((1.0, 1.0), (2.0, 1.0))]
)
def test_times_that_cannot_be(step: tuple[float, float], wait: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="Give at most 10d"):
        workflow(step=step, wait=wait)


def test_a_hundred_thousand_are_light() -> None:
    flow = workflow()
    flow.add(100_000, T0, {})
    held = sum(kept.buffer_info()[1] * kept.itemsize for kept in (flow.starts, flow.firsts, flow.seconds)) + len(
        flow.fates
    )
    assert held == 17 * len(flow)
