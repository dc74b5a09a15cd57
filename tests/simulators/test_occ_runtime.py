"""The function under AWS's own runtime client in child processes: the same answers and errors as in-process; death of a child."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from counterfoil.simulators.occ_lambda import OccCore
from counterfoil.simulators.occ_runtime import Runtimes

pytest.importorskip("awslambdaric")


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def test_both_runtimes_answer_alike(occ: Any) -> None:
    now = 1_790_000_000.0
    async with occ(now=now) as here, occ(now=now, runtime="awslambdaric", instances=1) as there:
        for event in ({"functionName": "application-medium", "applicationExternalNumber": "G3100007", "clientId": "1"},
                      {"functionName": "applications-by-date", "changedDatSince": "2000-01-01", "clientId": "1"},
                      {"functionName": "applications-by-date", "changedDatSince": "a/b", "clientId": "1"}, {}):  # fmt: skip
            one, other = await here.invoke(event), await there.invoke(event)
            assert one.json == other.json
        for fault in ("function_error", "status500", "invalid_json", "empty_body"):
            here.sim.set_faults({fault: 1})
            there.sim.set_faults({fault: 1})
            one, other = _told(await here.medium("G3100007")), _told(await there.medium("G3100007"))
            here.sim.set_faults({fault: 0})
            there.sim.set_faults({fault: 0})
            assert one == other
        assert here.sim.record.served.times == there.sim.record.served.times


def _told(answer: Any) -> Any:
    found = {name: value for name, value in answer.json.items() if name not in ("requestId", "stackTrace")}
    return answer.status, answer.headers.get("X-Amz-Function-Error"), sorted(answer.json), found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child under /proc")
async def test_a_child_that_dies_fails_its_call_and_is_replaced(occ: Any) -> None:
    before = set(_children())
    async with occ(runtime="awslambdaric", instances=1) as side:
        assert (await side.medium("G3100007")).status == 200
        (child,) = set(_children()) - before
        os.kill(child, signal.SIGKILL)
        last = (await side.medium("G3100007")).json  # whether the dead one still got the call is a race; both are right
        assert last.get("errorType", "Runtime.ExitError") == "Runtime.ExitError"
        assert (await side.medium("G3100007")).json["statusCode"] == 200
    assert set(_children()) == before


async def test_a_call_that_a_dead_child_held_fails_as_aws_says() -> None:
    state = Runtimes(OccCore(None, None))  # type: ignore[arg-type]
    call = asyncio.create_task(state.invoke(b"{}", "r1", None))
    handed = await state.next_for("child")
    assert (handed.body, handed.headers["Lambda-Runtime-Aws-Request-Id"]) == (b"{}", "r1")
    state.child_died("child", -9)
    outcome = await call
    assert outcome.failed
    assert json.loads(outcome.payload)["errorType"] == "Runtime.ExitError"
