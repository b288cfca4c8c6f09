"""The `harness` command: its words lie in `harness/commands/`, one file each; the library does the work.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 1 an error, 2 wrong usage
or a faulty spec, 100 a gate that failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import harness
from harness.commands._common import say
from harness.errors import HarnessError

Command = Callable[[argparse.Namespace], int]

WORDS = (
    "init",
    "check",
    "data",
    "run",
    "list",
    "show",
    "leaderboard",
    "compare",
    "decide",
    "gate",
    "slices",
    "classes",
    "score",
    "judge",
    "rate",
    "models",
    "schema",
    "sync",
    "delete",
    "gc",
    "pack",
    "unpack",
)
"""In the order in which `harness --help` lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command: Command | None = getattr(options, "command", None)
    if command is None:
        parser.print_help()
        return 0
    try:
        return command(options)
    except HarnessError as error:
        say(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept, and the same command goes on from there")
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Prompt, retrieve, fine-tune or combine? Compares them on one held-out set, with what each costs.",
    )
    parser.add_argument("--version", action="version", version=f"harness {harness.__version__}")
    words = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in WORDS:
        module = importlib.import_module(f"harness.commands.{name}")
        word = words.add_parser(name, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + ".")
        word.set_defaults(command=module.run)
        module.arguments(word)
    return parser
