"""Reducers: from the statistics of all examples to one value."""

from __future__ import annotations

from harness.reducers import REDUCERS


def test_the_mean_takes_one_number_an_example() -> None:
    assert REDUCERS["mean"]([(1.0,), (0.0,), (0.5,)], ()) == 0.5
