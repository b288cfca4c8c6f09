"""How much more than chance the named classes have to do with the right ones."""

from __future__ import annotations

from harness.metrics._labels import Counted


class Mcc(Counted):
    """Matthews' correlation coefficient for any number of classes, -1 to 1 (Gorodkin 2004, R_K; scikit-learn's
    `matthews_corrcoef`). Answers that name no class count as naming a class of their own.

    0 where all answers name the same class; no value where held-out has one class only.
    """

    reducer = "mcc"
    unit = "correlation"
    floor = -1.0
