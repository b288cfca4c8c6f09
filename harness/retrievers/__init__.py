"""Retrievers: what finds the passages for a question. One plug-in a file."""
