"""Protocols, one per file, each for any detector."""
