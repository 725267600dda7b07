"""Benchmark report: tables, comparisons and one page from run lines."""
