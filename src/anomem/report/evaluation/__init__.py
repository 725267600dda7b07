"""Evaluation report: a page for one model on one data set."""
