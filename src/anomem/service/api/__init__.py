"""HTTP interface: one router per file, mounted below /api/v1."""
