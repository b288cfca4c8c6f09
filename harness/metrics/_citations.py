"""Citations in answers: which documents an answer names, and which it should."""

from __future__ import annotations

import re
from typing import Literal

from harness.metrics._patterns import Pattern
from harness.metrics._ranks import documents
from harness.plugins import Metric
from harness.records import Example, Prediction


class Citations(Metric):
    """The base of citation precision and recall.

    What should be cited are the example's sources. Where it names none, it is what its accepted answers cite, such as
    "[none]" for a question that no document answers; where these cite nothing either, the metric does not speak of the
    example. An answer that cites nothing counts 0. Each id counts once.
    """

    pattern: Pattern = r"\[([^\[\]]+)\](?!\()"
    """A Python regular expression that finds citations: its first group, or all of it where it has none, holds an id,
    or several with commas or semicolons between them. By default what stands in square brackets: [KB-017]."""
    against: Literal["gold", "retrieved"] = "gold"
    """What a citation must be: a document that should be cited, or one of those that were retrieved."""

    @property
    def needs_passages(self) -> bool:  # type: ignore[override]
        return self.against == "retrieved"

    def cited(self, text: str) -> frozenset[str]:
        found = (match.group(1 if match.re.groups else 0) or "" for match in re.finditer(self.pattern, text))
        return frozenset(name for names in found for part in re.split("[,;]", names) if (name := part.strip()))

    def gold(self, example: Example) -> frozenset[str]:
        """The ids that an answer should cite; none where the data does not say."""
        return frozenset(example.sources) or frozenset().union(*(self.cited(target) for target in example.targets))

    def within_reach(self, example: Example, prediction: Prediction) -> frozenset[str]:
        """What was retrieved; for an example that names no source, what its accepted answers cite too."""
        return frozenset(documents(prediction)) | (frozenset() if example.sources else self.gold(example))
