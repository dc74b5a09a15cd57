"""The flow files of deliveries and relays, whole: what every flow begins with, and the tables of its kind."""

from __future__ import annotations

from counterfoil.flows.shape import Shape
from counterfoil.flows.shapes import head
from counterfoil.flows.shapes_delivery import DELIVERY_ENTRIES
from counterfoil.flows.shapes_relay import RELAY_ENTRIES

DELIVERY = Shape("flow", (*head("delivery"), *DELIVERY_ENTRIES), lambda **given: given, "flow: claim-uploads")
RELAY = Shape("flow", (*head("relay"), *RELAY_ENTRIES), lambda **given: given, "flow: deputy-relay")
