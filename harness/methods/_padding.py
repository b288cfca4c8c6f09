"""Rows of unlike length as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.methods._rows import Row

IGNORED = -100
"""The label of a token that is not trained, as in torch's cross entropy."""


def pad(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both (rows, tokens), padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, row.prompt : len(row.ids)] = ids[place, row.prompt : len(row.ids)]
    return {"input_ids": ids, "labels": labels}
