"""What BLEU, chrF and TER share: sacrebleu counts, example by example; a reducer makes the corpus figure of the counts.

Post 2018, "A Call for Clarity in Reporting BLEU Scores" (WMT 18): the numbers are comparable only with the settings
that sacrebleu's signature names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

from harness import extras
from harness.plugins import Metric
from harness.records import Example, Prediction


class Corpus(Metric):
    """The base of the metrics that sacrebleu computes over a whole corpus, on its scale from 0 to 100.

    All accepted answers of an example are its references; examples may have different numbers of them, and an example
    without any is not spoken of. The value equals sacrebleu's `corpus_score`; the mean of single examples would not.

    The fields of a subclass are the settings of sacrebleu's own class, under their names.
    """

    unit: ClassVar[str] = "points"
    ceiling: ClassVar[float | None] = 100.0

    @abstractmethod
    def library(self) -> Callable[..., Any]:
        """Return sacrebleu's own class of this metric."""

    def opened(self) -> Any:
        """Return sacrebleu's own metric with the settings of this one."""
        own = type(self).model_fields.keys() - Metric.model_fields.keys()
        return self.library()(**{name: getattr(self, name) for name in own})

    def settings_of_formula(self) -> tuple[float, ...]:
        """The numbers that begin every row of statistics: what the reducer must know beside the counts."""
        return ()

    def identity(self, *, built: bool = False) -> dict[str, Any]:
        """The settings, and sacrebleu's own signature with its version: another one makes another score. What it says
        of the number of references is left out, which belongs to the held-out split and has its place there."""
        opened = self._opened
        opened.num_refs = -1
        parts = str(opened.get_signature()).split("|")
        signature = "|".join(part for part in parts if not part.startswith("nrefs:"))
        return super().identity(built=built) | {"sacrebleu": signature}

    def measure(self, example: Example, prediction: Prediction) -> tuple[float, ...] | None:
        if not example.targets:
            return None
        fold = self._opened._preprocess_segment
        references = self._opened._extract_reference_info([fold(target) for target in example.targets])
        counts = self._opened._compute_segment_statistics(fold(prediction.text or ""), references)
        return (*self.settings_of_formula(), *map(float, counts))

    @cached_property
    def _opened(self) -> Any:
        with extras.needed("metrics"):
            return self.opened()
