"""How many of an answer's citations are right."""

from __future__ import annotations

from harness.metrics._citations import Citations
from harness.records import Example, Prediction


class CitationPrecision(Citations):
    """Cited ids that should be cited, divided by all cited ids (0 for an answer that cites nothing); the mean over
    examples. With `against = "retrieved"`: cited ids that stand among the retrieved documents, so that what is missing
    from 1 was made up; it speaks only of variants that retrieve.

    It compares ids alone: whether the cited text supports the sentence, as ALCE asks (Gao et al. 2023,
    arXiv 2305.14627), needs a judge.
    """

    @property
    def default_name(self) -> str:
        return "citation_precision" if self.against == "gold" else "citation_precision_retrieved"

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        gold = self.gold(example)
        if not gold:
            return None
        cited = self.cited(prediction.text or "")
        right = cited & (gold if self.against == "gold" else self.within_reach(example, prediction))
        return len(right) / len(cited) if cited else 0.0
