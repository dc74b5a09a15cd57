"""FLOOR 7: HTTP in: what is served. Translates requests to calls of the engine and back, nothing else."""
