"""Inspection station: scoring over HTTP, history, labels that improve the model, roles, drift."""
