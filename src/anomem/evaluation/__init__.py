"""Evaluation: figures from scores and labels, for every caller."""
