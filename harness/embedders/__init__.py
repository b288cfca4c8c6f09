"""Embedders: what turns texts into vectors. One plug-in a file."""
