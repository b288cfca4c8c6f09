"""Of the answers that name a class, how many are right: averaged over classes."""

from __future__ import annotations

from harness.metrics._labels import Averaged


class LabelPrecision(Averaged):
    """Right answers divided by the answers that name the class (scikit-learn's `precision_score` with `labels` = the
    classes that held-out has and `zero_division=0`: a class that no answer names counts 0). Where no answer names any
    class it has no value.

    Classes without a held-out example are left out of every average: nothing can be known of them.
    """
