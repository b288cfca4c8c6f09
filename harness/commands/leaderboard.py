"""`harness leaderboard`: print a leaderboard."""

from __future__ import annotations

import argparse

from harness.commands._common import experiment_argument, json_argument, open_snapshot, print_board, print_json

HELP = "print a leaderboard"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("--markdown", action="store_true", help="print a Markdown table")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import leaderboard

    store, snapshot = open_snapshot(options)
    board = snapshot.leaderboard or leaderboard.build(snapshot, store)
    if options.json:
        return print_json(board)
    if options.markdown:
        print(leaderboard.markdown(board))
    else:
        print_board(board)
    return 0
