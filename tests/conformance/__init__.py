"""The hosts' own test suites with the arena in the place of the stock threads: ``python -m tests.conformance``."""
