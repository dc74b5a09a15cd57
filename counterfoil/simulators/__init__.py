"""FLOOR 7, apart: the other sides, over real sockets, with faults. Imports nothing of ours."""
