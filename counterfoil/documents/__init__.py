"""FLOOR 4: documents: what a file is, whether it may be sent, and getting it ready. Knows no ledger and no network."""
