"""Planted faults, each of one line: `python -m tests.mutants` says which of them the tests catch. Run by hand."""
