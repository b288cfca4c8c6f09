"""Precision and recall of classes in one figure: averaged over classes."""

from __future__ import annotations

from harness.metrics._labels import Averaged


class LabelF1(Averaged):
    """2 x right / (answers that name the class + its held-out examples), the harmonic mean of precision and recall
    (scikit-learn's `f1_score` with `labels` = the classes that held-out has).

    Classes without a held-out example are left out of every average: nothing can be known of them.
    """
