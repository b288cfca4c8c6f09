"""Metrics: what an answer is worth. One plug-in a file."""
