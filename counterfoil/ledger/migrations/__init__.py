"""Numbered migrations, applied by ledger.migrate. SQL only."""
