"""How many of the documents that an answer should cite it does cite."""

from __future__ import annotations

from harness.metrics._citations import Citations
from harness.records import Example, Prediction


class CitationRecall(Citations):
    """Ids that should be cited and are, divided by all that should be; the mean over examples. With
    `against = "retrieved"` an id counts only where its document was retrieved too, so that it was read and not guessed;
    it then speaks only of variants that retrieve."""

    @property
    def default_name(self) -> str:
        return "citation_recall" if self.against == "gold" else "citation_recall_retrieved"

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        gold = self.gold(example)
        if not gold:
            return None
        found = gold & self.cited(prediction.text or "")
        if self.against == "retrieved":
            found &= self.within_reach(example, prediction)
        return len(found) / len(gold)
