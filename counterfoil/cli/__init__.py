"""FLOOR 8: the terminal: argument parsing and printing, nothing else."""
