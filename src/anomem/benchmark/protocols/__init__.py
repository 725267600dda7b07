"""Protocols: one question per file, asked of any detector."""
