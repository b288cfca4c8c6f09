"""What is said of a training: rows that were cut, memory that ran out, overfitting and forgetting."""

from __future__ import annotations

from typing import Any

import pytest

from harness.training_notes import notes


def look(bits: float, facts: float) -> dict[str, float]:
    return {"bits_per_byte": bits, "facts": facts}


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({}, []),
        ({"dev_loss": 0.5, "dev_loss_last": 0.51, "dev_loss_lowest": 0.5}, []),
        ({"dev_loss": None, "dev_loss_last": 0.51}, []),
        (
            {"dev_loss": 0.6, "dev_loss_last": 0.6, "dev_loss_lowest": 0.5},
            [
                "overfitting in stage 2: after its lowest, 0.5, the loss on dev rose to 0.6 while training went on; "
                "the last weights were kept"
            ],
        ),
        (
            {"dev_loss": 0.55, "dev_loss_last": 0.6, "dev_loss_lowest": 0.5, "best_by": "token_f1"},
            [
                "overfitting in stage 2: after its lowest, 0.5, the loss on dev rose to 0.6 while training went on; "
                "the weights that were kept, the best by token_f1, have 0.55"
            ],
        ),
        (
            {"train_loss": 0.2, "dev_loss": 0.5},
            [
                "train/dev gap in stage 2: the weights that were kept have a loss of 0.2 on what they were trained on "
                "and 0.5 on dev"
            ],
        ),
        ({"kl": 5.0, "target_kl": 6.0}, []),
        (
            {"kl": 7.0, "target_kl": 6.0},
            [
                "too far from its start in stage 2: every evaluation was beyond target_kl = 6, and the last weights, 7 "
                "nats away, were kept"
            ],
        ),
        (
            {"dev_loss": 0.5, "dev_loss_last": 0.6, "dev_loss_lowest": 0.5},
            [
                "overfitting in stage 2: after its lowest, 0.5, the loss on dev rose to 0.6 while training went on; "
                "the weights of the lowest were kept"
            ],
        ),
        (
            {"out_of_memory": 2, "micro_batch": 1},
            [
                "memory ran out 2 times in training in stage 2; it went on with 1 row at once, for steps of the same "
                "size"
            ],
        ),
        (
            {"train_rows": 9, "train_cut": 2},
            ["2 of 9 training rows lost the end of their answer to max_length in stage 2"],
        ),
        ({"probe": {"before": look(1.0, 0.9), "after": look(1.09, 0.8)}}, []),
        (
            {"probe": {"before": look(1.0, 0.9), "after": look(1.2, 0.75)}},
            [
                "forgetting in stage 2: general English now takes 1.20 bits per byte, 1.00 before training",
                "forgetting in stage 2: of everyday facts the model now knows 75%, 90% before training",
            ],
        ),
    ],
)
def test_a_stage_s_figures_are_told_in_sentences(details: dict[str, Any], said: list[str]) -> None:
    assert list(notes(1, details)) == said


def test_a_stage_of_another_variant_is_named_with_it() -> None:
    assert list(notes(0, {"train_rows": 9, "train_cut": 2}, "teacher")) == [
        "2 of 9 training rows lost the end of their answer to max_length in stage 1 of teacher"
    ]


def test_the_first_stage_of_a_variant_is_not_numbered() -> None:
    assert list(notes(0, {"dev_rows": 3, "dev_dropped": 1})) == [
        "1 of 3 dev rows lost their whole answer to max_length and were left out"
    ]
