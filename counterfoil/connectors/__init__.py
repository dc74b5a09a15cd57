"""FLOOR 4: the world outside: HTTP, AWS Lambda, files, destination tables. Never imports the ledger or the engine."""
