"""The score bands of seed 004, until decision tables arrive: 80 and more loads, 50 to 79 waits for a person, less is refused."""

from counterfoil.model.verdict import Outcome, Verdict


def score_band(record: dict) -> Verdict:
    """Verdict on one customer, by internal field names. Transactions need 90 to load; other types are not known."""
    score, kind = record["qualityScore"], record["recordType"]
    enough = {"customer": 80, "transaction": 90}.get(kind)
    if enough is None:
        return Verdict(Outcome.INVALID, "The record type is neither customer nor transaction.", "unknown_type")
    if score >= enough:
        return Verdict(Outcome.VALID, rule="score_band")
    if kind == "customer" and score >= 50:
        return Verdict(Outcome.WARNING, "The quality score is between 50 and 79: a person decides.", "score_50_to_79")
    return Verdict(Outcome.INVALID, f"The quality score is below {50 if kind == 'customer' else 90}.", "score_too_low")
