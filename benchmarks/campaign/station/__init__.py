"""Inspection station under attack, faults and a simulated inspector."""
