"""FLOOR 5: machines do it: the queue, the worker, one loop per duty."""
