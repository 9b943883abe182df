"""Speed, measured: `make bench`. Not tests: they take minutes and want a quiet machine."""
