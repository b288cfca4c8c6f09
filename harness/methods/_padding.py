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
        for start, end in row.learned:
            labels[place, start:end] = ids[place, start:end]
    return {"input_ids": ids, "labels": labels}


def pack(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Return `input_ids`, `labels` and `position_ids`, all (1, tokens): the rows one after another. Positions begin
    again with each row, by which attention keeps the rows apart."""
    parts = [pad([row]) for row in rows]
    made = {name: torch.cat([part[name] for part in parts], dim=1) for name in ("input_ids", "labels")}
    return made | {"position_ids": torch.cat([torch.arange(len(row.ids)) for row in rows])[None]}
