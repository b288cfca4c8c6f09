"""Backends: where answers come from. One plug-in a file."""
