"""One training, from the question to the sealed run."""
