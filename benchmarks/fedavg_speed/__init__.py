"""Rounds of federated averaging beside a plain loop and beside other simulators; see `__main__` and ../README.md."""
