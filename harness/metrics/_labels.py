"""The class that a free text names, by a declared rule, and the metrics that count classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import model_validator

from harness.errors import HarnessError
from harness.metrics._patterns import Pattern
from harness.plugins import Means, Measured, Metric
from harness.records import Example, Prediction

Average = Literal["macro", "micro", "weighted"]

NOT_FOUND = -1
"""Stands for the predicted class where an answer names none."""


class Labelled(Metric):
    """A metric of classes. The class of an example is its first accepted answer; an answer that names any of the
    accepted ones counts as having named that one."""

    classes: tuple[str, ...] = ()
    """The names of the classes; by default the distinct accepted answers of the held-out examples."""
    extract: Literal["exact", "first", "pattern"] = "exact"
    """How an answer names a class: the whole answer is its name ("exact"), the first name in it counts, whole words
    only, the longest where several begin at one place ("first"), or what the group of `pattern` finds is its name."""
    pattern: Pattern | None = None
    """For `extract = "pattern"`: a regular expression with one group, searched in the answer."""
    fold_case: bool = True
    """Whether "Yes" and "yes" are one class. White space around names never counts."""

    @model_validator(mode="after")
    def _fits(self) -> Labelled:
        if (self.pattern is not None) != (self.extract == "pattern"):
            raise ValueError('`pattern` and extract = "pattern" need each other')
        if self.pattern is not None and re.compile(self.pattern).groups != 1:
            raise ValueError(f"`pattern` needs one group that finds the name of the class: {self.pattern!r}")
        folded = [self.fold(name) for name in self.classes]
        if not all(folded) or len(set(folded)) < len(folded):
            raise ValueError("the names of classes must differ, and none may be empty (case is folded away)")
        return self

    def fold(self, text: str) -> str:
        return text.strip().casefold() if self.fold_case else text.strip()

    def named(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Return the classes: those declared, else those of `examples`, sorted, each in its first spelling."""
        if self.classes:
            return self.classes
        spellings: dict[str, str] = {}
        for target in sorted({target.strip() for example in examples for target in example.targets}):
            if target:
                spellings.setdefault(self.fold(target), target)
        return tuple(spellings.values())

    def pairs(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[tuple[float, float] | None]:
        """Return (index of the right class, index of the named one or NOT_FOUND) of each example, None for one without
        an accepted answer. Raises HarnessError for an accepted answer that is no class."""
        names = [self.fold(name) for name in self.named(examples)]
        index = {name: place for place, name in enumerate(names)}
        search = _any_of(names) if self.extract == "first" else None
        found: list[tuple[float, float] | None] = []
        for example, prediction in zip(examples, predictions, strict=True):
            accepted = [self._index(index, example, target) for target in example.targets]
            given = index.get(self._name(prediction.text or "", search), NOT_FOUND)
            right = accepted[0] if accepted else NOT_FOUND
            found.append((float(right), float(right if given in accepted else given)) if accepted else None)
        return found

    def _index(self, index: dict[str, int], example: Example, target: str) -> int:
        name = self.fold(target)
        if name not in index:
            known = ", ".join(map(repr, self.classes[:8])) + (", ..." if len(self.classes) > 8 else "")
            said = f"is none of its `classes` ({known})" if self.classes else "is empty, which is no name of a class"
            raise HarnessError(f"{self.name}: the accepted answer {target!r} of example {example.id!r} {said}")
        return index[name]

    def _name(self, text: str, search: re.Pattern[str] | None) -> str:
        if search is not None:
            found = search.search(self.fold(text))
            return found[0] if found else ""
        if self.pattern is not None:
            found = re.search(self.pattern, text)
            return self.fold(found[1] or "") if found else ""
        return self.fold(text)


def _any_of(names: Sequence[str]) -> re.Pattern[str] | None:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)") if names else None


class Counted(Labelled):
    """A metric whose value follows from how often each class was named for each class."""

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        return self.named(examples)

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        return list(self.pairs(examples, predictions))


class Averaged(Counted):
    """A figure of each class, averaged over the classes."""

    average: Average = "macro"
    """Over classes that each count the same ("macro") or by their held-out examples ("weighted"), or of all examples
    together ("micro")."""

    @property
    def reducer(self) -> str:  # type: ignore[override]
        return f"{self.average}_{self.kind.removeprefix('label_')}"

    @property
    def default_name(self) -> str:
        return self.reducer
