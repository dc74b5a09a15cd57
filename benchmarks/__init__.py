"""Measurements beside others, run by `make bench-…`. Nothing here is part of the package, and no figure fails a build."""
