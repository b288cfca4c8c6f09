"""What TRL's trainers of preferences share here: batches planned ahead, computed in parts, and measured over dev.

Imported where a training begins and nowhere else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from harness.methods import _rows
from harness.methods._following import Followed


class Planable(Protocol):
    @property
    def tokens(self) -> int:
        """Tokens that it is trained on."""

    @property
    def padded(self) -> int:
        """Tokens that it takes in a batch of its own."""


class Means:
    """Means of figures over parts, weighed by their rows."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = defaultdict(float)
        self._rows: dict[str, int] = defaultdict(int)

    def add(self, figures: Mapping[str, float], rows: int) -> None:
        for name, value in figures.items():
            self._totals[name] += value * rows
            self._rows[name] += rows

    def values(self) -> dict[str, float]:
        return {name: total / self._rows[name] for name, total in self._totals.items()}


class Planned(Followed):
    """Mixed in before a TRL trainer whose loss is a mean over rows; `plan` is called once it is made.

    A batch is computed in parts of rows of like length, whose losses are weighed by their rows, so that a step is the
    same within rounding whatever the parts are.
    """

    model: Any

    def plan(
        self,
        rows: Sequence[Planable],
        dev: Sequence[Sequence[Planable]],
        *,
        batches: Sequence[Sequence[int]],
        micro_batch: int,
        autocast: bool,
        whole: bool = False,
    ) -> None:
        """`batches` are the rows of each step of the whole training, `dev` batches to measure by. At most `micro_batch`
        rows are computed at once; `autocast` is whether products are computed in bfloat16. With `whole` no batch is
        computed in parts."""
        self.rows, self.dev, self.batches = rows, dev, batches
        self.micro_batch, self.autocast, self.whole = micro_batch, autocast, whole
        self.part: Sequence[Any] = ()
        self._share = 1.0

    # --------------------------------------------------------------------------------------------- what a trainer says

    @abstractmethod
    def collate(self, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
        """What TRL's trainer takes as the batch of `rows`."""

    @property
    @abstractmethod
    def kept_figures(self) -> dict[str, list[float]]:
        """Where TRL's trainer keeps what it measured until it logs."""

    def begin(self, rows: Sequence[Any]) -> None:
        """Called before the parts of a batch are computed."""

    def measured(self) -> dict[str, float]:
        """Figures of all rows since the last call that are no means over parts."""
        return {}

    # -------------------------------------------------------------------------------------------------------- training

    def get_train_dataloader(self) -> Any:
        return DataLoader(range(len(self.rows)), batch_sampler=self.batches, collate_fn=list)  # type: ignore[arg-type]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Rows are counted in `training_step`."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def step_tokens(self) -> int:
        return self._tokens

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> torch.Tensor:
        rows = [self.rows[place] for place in inputs]
        self._tokens = sum(row.tokens for row in rows)
        self.begin(rows)
        loss = torch.zeros((), device=self.args.device)
        means = Means()
        for part in self._parts(rows):
            self.part, self._share = part, len(part) / len(rows)
            loss += super().training_step(model, self.collate(part))  # type: ignore[misc]
            means.add(self._taken(), len(part))
        self.kept_figures.update({name: [value] for name, value in (means.values() | self.measured()).items()})
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
            loss: torch.Tensor = super().compute_loss(model, inputs)  # type: ignore[misc]
        return loss * self._share

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss over the dev rows, and what the trainer measures beside it."""
        figures = {f"eval_{name}": value for name, value in self._dev_figures().items()}
        self.log(dict(figures))  # type: ignore[attr-defined]
        figures |= self.dev_metric()
        self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)  # type: ignore[attr-defined]
        return figures

    @torch.no_grad()
    def _dev_figures(self) -> dict[str, float]:
        self.model.eval()
        self._share = 1.0
        means = Means()
        for rows in self.dev:
            self.begin(rows)
            for part in self._parts(rows):
                self.part = part
                inputs = self._prepare_inputs(self.collate(part))  # type: ignore[attr-defined]
                loss = self.compute_loss(self.model, inputs).item()
                means.add({"loss": loss} | self._taken(), len(part))
        self.model.train()
        return means.values() | self.measured()

    def _parts(self, rows: Sequence[Planable]) -> Iterator[list[Any]]:
        if self.whole:
            yield list(rows)
            return
        sizes = [row.padded for row in rows]
        for part in _rows.parts(sizes, self.micro_batch, self.most_tokens(sizes)):
            yield [rows[place] for place in part]

    def most_tokens(self, sizes: Sequence[int]) -> int:
        """Tokens in one forward pass at most, for rows of such `sizes`."""
        return _rows.CPU_TOKENS if self.args.device.type == "cpu" else max(sizes) * len(sizes)

    def _taken(self) -> dict[str, float]:
        """What the trainer measured of the last part, taken from where it would add it to other parts."""
        taken = {name: float(values[-1]) for name, values in self.kept_figures.items() if values}
        self.kept_figures.clear()
        return taken
