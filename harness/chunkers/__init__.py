"""Chunkers: what cuts documents into passages. One plug-in a file."""
