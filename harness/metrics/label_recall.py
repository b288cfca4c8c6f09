"""Of the examples of a class, how many were recognised: averaged over classes."""

from __future__ import annotations

from harness.metrics._labels import Averaged


class LabelRecall(Averaged):
    """Right answers divided by the held-out examples of the class (scikit-learn's `recall_score` with `labels` = the
    classes that held-out has). The micro and the weighted average are the accuracy.

    Classes without a held-out example are left out of every average: nothing can be known of them.
    """
