"""Adapters: which weights a training stage trains. One plug-in a file."""
