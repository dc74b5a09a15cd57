"""The flow files whole, by their `kind`: what every flow begins with, and the tables of its kind."""

from __future__ import annotations

from collections.abc import Mapping

from counterfoil.flows.shape import Shape
from counterfoil.flows.shapes import FLOW, HEAD
from counterfoil.flows.shapes_delivery import DELIVERY_ENTRIES
from counterfoil.flows.shapes_relay import RELAY_ENTRIES

SHAPES: Mapping[str, Shape] = {
    "sync": FLOW,
    "delivery": Shape("flow", (*HEAD, *DELIVERY_ENTRIES), lambda **given: given, "flow: claim-uploads"),
    "relay": Shape("flow", (*HEAD, *RELAY_ENTRIES), lambda **given: given, "flow: deputy-relay"),
}
