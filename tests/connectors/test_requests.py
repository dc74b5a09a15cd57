from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from counterfoil.connectors.requests import CallBuilder
from counterfoil.flows.delivery import Call
from counterfoil.flows.functions import Functions
from counterfoil.model.delivery import Parcel
from counterfoil.model.errors import Refused


def address(value: Any, query: dict[str, str] | None = None) -> URL:
    call = Call("POST", "/clients/{payload.x}/reports", query or {})
    build = CallBuilder(URL("https://host/v2"), {}, Functions())
    return build.call(call).build(Parcel("k", "report", {"x": value})).url


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("12345678", "12345678"),
        ("a/../b", "a%2F..%2Fb"),
        ("..;", "..%3B"),
        ("%2e%2e", "%252e%252e"),
        ("x?y#z", "x%3Fy%23z"),
        ("...", "%2E%2E%2E"),
        ("é", "%C3%A9"),
    ],
)
def test_a_value_stays_in_its_segment_of_the_address(value: str, segment: str) -> None:
    assert address(value).raw_path == f"/v2/clients/{segment}/reports"
    asked = address(value, {"q": "{payload.x}", "fixed": "a b"})
    assert asked.raw_path == f"/v2/clients/{segment}/reports"
    assert dict(asked.query) == {"q": value, "fixed": "a b"}


@pytest.mark.parametrize("value", ["..", "."])
def test_no_value_climbs_out_of_the_declared_path(value: str) -> None:
    with pytest.raises(Refused, match="climb"):
        address(value)


def test_an_absent_parameter_is_left_out_not_sent_empty() -> None:
    # A look-up that asks for `report_id=` finds nothing, and what is there would be sent a second time.
    asked = address("1", {"case": "{payload.x}", "report": "{parent.receipt?}", "ids": "{payload.none?null}"})
    assert dict(asked.query) == {"case": "1"}
