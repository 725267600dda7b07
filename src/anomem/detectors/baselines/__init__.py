"""Baselines for comparison with the papers' methods, under the same contract."""
