"""`harness schema`: print the JSON Schema of specs, for editors."""

from __future__ import annotations

import argparse

HELP = "print the JSON Schema of specs, for editors"


def arguments(word: argparse.ArgumentParser) -> None:
    del word  # It takes none.


def run(options: argparse.Namespace) -> int:
    from harness import schema

    print(schema.schema_text(), end="")
    return 0
