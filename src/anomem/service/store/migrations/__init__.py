"""Revisions of the tables, applied in order."""
