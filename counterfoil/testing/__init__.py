"""For those who write connectors: the suites every connector must pass."""
