"""Readers of image sets in their providers' own layouts: one module for each family of layouts."""
