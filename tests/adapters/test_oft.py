"""Orthogonal fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.oft import Oft
from harness.errors import ModelError


def test_blocks_that_do_not_fill_a_layer_are_refused_with_its_width(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.raises(
        ModelError, match=r"block_size = 48 does not divide the width of every target; there are some of"
    ):
        Oft(block_size=48).wrap(model)
