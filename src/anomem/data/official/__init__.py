"""Readers of image sets in their providers' layouts, one module per family of layouts."""
