"""Scoring of inspections: loaded versions, micro-batches, recording."""
