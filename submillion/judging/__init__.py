"""What numbers can say: scores, calibration, paired tests, verdicts, shift."""
