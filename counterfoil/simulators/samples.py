"""The simulators' own small data, made the same each time: loan applications and customers, a few of them bad on purpose.

Names and places are invented. What is bad about which customer is the table BAD_CUSTOMERS, so that a test can count it.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]

FIRST = ("Aroha", "Ben", "Caitlin", "Dev", "Emere", "Farid", "Grace", "Hemi", "Isla", "Jun", "Kiri", "Liam", "Mereana", "Noah",
         "Olive", "Priya", "Rangi", "Sione", "Tui", "Zoë")  # fmt: skip
LAST = ("Ashworth", "Brown", "Chen", "Delacroix", "Faleolo", "Grant", "Hohepa", "Ivanov", "Jensen", "Kaur", "Llewellyn",
        "Mahuta", "Ng", "O'Neill", "Parata", "Quinn", "Rangihuna", "Singh", "Taufa", "Williams")  # fmt: skip
BRANCHES = ("Hamilton", "Tauranga", "Rotorua", "Manukau", "Whangārei", "Online")
PURPOSES = ("Car loan", "Home improvement", "Debt consolidation", "Personal loan", "Boat", "Study", "Mortgage top-up")
STATUSES = (
    ("ARP", "Approved"),
    ("CMP", "Compliance"),
    ("PPW", "Paperwork"),
    ("DEC", "Declined"),
    ("DRW", "Drawn down"),
)
CHANNELS = ("Branch", "Phone", "Web", "Broker")
TASKS = ("Lending Support", "Credit", "Branch", "")
PAYMENTS = ("Direct debit", "Automatic payment", "Salary")
CLIENTS = ("FCUWEBAPP", "FCUCARONL", "FCUBRANCH")

BAD_CUSTOMERS: dict[int, Row] = {
    7: {"full_name": None},
    19: {"full_name": ""},
    31: {"contact_email": "not-an-address"},
    44: {"contact_email": None},
    52: {"quality_score": 140},
    53: {"quality_score": -5},
    68: {"quality_score": "high"},
    69: {"quality_score": 72.5},
    83: {"created_date": "31/02/2026"},
    97: {"record_type": "transaction", "quality_score": 85},
    98: {"record_type": "transaction", "quality_score": 95},
}


def customers(count: int = 120) -> Iterator[Row]:
    """Customers with external_id, full_name, contact_email, created_date, record_type, quality_score."""
    draw = random.Random("customers")
    born = datetime(2024, 1, 8, 9, 0, tzinfo=UTC)
    for number in range(1, count + 1):
        first, last = draw.choice(FIRST), draw.choice(LAST)
        created = born + timedelta(days=draw.randrange(900), minutes=draw.randrange(540))
        yield {
            "external_id": f"C-{number:05d}",
            "full_name": f"{first} {last}",
            "contact_email": f"{first}.{last}{number}@example.org".lower().replace("'", "").replace("ë", "e"),
            "created_date": created.isoformat().replace("+00:00", "Z"),
            "record_type": "customer",
            "quality_score": draw.choice(
                (draw.randrange(80, 101), draw.randrange(80, 101), draw.randrange(50, 80), draw.randrange(50))
            ),
            **BAD_CUSTOMERS.get(number, {}),
        }


def loan_applications(count: int = 60) -> Iterator[Row]:
    """Loan applications with the fields of seed 003's ApplicationMedium and `id`, the external number."""
    draw = random.Random("loan applications")
    for number in range(1, count + 1):
        name = f"{draw.choice(LAST).upper()}, {draw.choice(FIRST)}"
        yield {"id": f"G3{100000 + number * 7}", "applicationName": name, **application_fields(number, draw)}


def application_fields(number: int, draw: random.Random) -> Row:
    """The fields of an ApplicationMedium that are not its name, id or lastSavedDateTime; drawn from `draw`."""
    code, words = draw.choice(STATUSES)
    purpose, client = draw.choice(PURPOSES), f"{draw.randrange(1, 10**6):010d}"
    return {
        "applicationInternalNumber": f"{5000000 + number}",
        "clientApplication": draw.choice(CLIENTS),
        "loadedByClientNumber": client,
        "owner": f"{draw.choice(FIRST)} {draw.choice(LAST)}",
        "applicationTitle": f"{purpose} ${draw.randrange(2, 90) * 500:,}",
        "tradingBranch": draw.choice(BRANCHES),
        "salesChannel": draw.choice(CHANNELS),
        "subPrime": draw.choice("NNNNY"),
        "comparisonRatesSupplied": draw.choice("YN "),
        "paymentMethod": draw.choice(PAYMENTS),
        "type": draw.choice(("PERSONAL", "VEHICLE", "HOME")),
        "appStatusDesc": words,
        "appStatusCode": code,
        "currentTaskWith": draw.choice(TASKS),
    }
