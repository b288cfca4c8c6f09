"""Prompts: how a question becomes requests to the model. One plug-in a file."""
