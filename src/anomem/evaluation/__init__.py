"""Figures from scores and labels; every caller judges here."""
