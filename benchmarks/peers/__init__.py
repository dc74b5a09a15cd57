"""The contestants beside us. Each file runs in a virtual environment of its own (or is started by one) and imports nothing of ours."""
