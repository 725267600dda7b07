"""Background jobs: fit, refit, calibrate, re-score, each in a process of its own."""
