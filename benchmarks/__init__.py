"""Speed, measured: `make bench`. Not tests: they take minutes and need a quiet machine."""
