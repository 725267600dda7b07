"""Benchmarks: plan units of work, execute them, record each as one line."""
