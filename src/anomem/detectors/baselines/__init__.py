"""Baselines that the papers and peers are compared with, under the same contract."""
