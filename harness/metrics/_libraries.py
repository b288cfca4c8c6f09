"""The libraries that compute some of the metrics: their versions, which stand in the signatures."""

from __future__ import annotations

from importlib import metadata

from harness import extras


def version(package: str) -> str:
    """Return the installed version of `package`. Raises ModelError that names what to install where it is absent."""
    with extras.needed("metrics"):
        return metadata.version(package)
