"""Losses of the methods, as pure functions with the equation numbers of their papers."""
