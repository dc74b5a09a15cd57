"""FLOOR 5: measures: the audit (the sum), status, health. Reads only."""
